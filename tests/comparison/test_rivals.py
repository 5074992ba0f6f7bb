"""What ``bench`` compares with: a beginner's network computes the same function as ours."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import densenet_multi as dm
from beginners import beginners_network
from cases import images, labels, random_weights
from densenet_multi.comparison import rivals
from densenet_multi.comparison.child_process import FinishedError
from densenet_multi.comparison.deviation import TOLERANCES, deviation
from densenet_multi.comparison.lockstep import TOLERANCES as OF_STEPS
from densenet_multi.data import epoch_order

SPEC = dm.get_spec("d2l")
FOLDER = Path(rivals.__file__).parent
RIVALS = sorted(path for path in FOLDER.glob("*.py") if path.stem != "__init__")


# --- Without a framework ------------------------------------------------------------------------


def functions(node: ast.AST) -> dict[str, list[str]]:
    found = (child for child in ast.iter_child_nodes(node) if isinstance(child, ast.FunctionDef))
    return {one.name: [a.arg for a in one.args.args if a.arg != "self"] for one in found}


@pytest.mark.parametrize("path", RIVALS, ids=lambda path: path.stem)
def test_every_rival_offers_the_same_functions(path):
    module = ast.parse((FOLDER / "__init__.py").read_text())
    (contract,) = (
        node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Rival"
    )
    offered = functions(ast.parse(path.read_text()))
    expected = functions(contract)
    assert {name: offered.get(name) for name in expected} == expected
    assert [name for name in offered if name in expected] == list(expected)  # in the same order


def test_there_is_a_rival_for_every_backend_of_ours():
    assert [path.stem for path in RIVALS] == dm.backend_names()


# --- With one -----------------------------------------------------------------------------------


def test_a_beginners_network_has_as_many_parameters(backend):
    expected = [info.shape for info in dm.tensors(SPEC).values()]
    with beginners_network(backend.NAME, rivals.load_rival(backend.NAME), 32) as (_, tensors):
        shapes = [tensor.read().shape for tensor in tensors]
    assert shapes == expected
    counts = dm.count_parameters(SPEC)
    assert (counts.trainable, counts.statistics) == (758_226, 6_608)
    assert sum(map(np.prod, shapes)) == counts.total


def test_a_beginners_network_is_the_same_function(backend):
    rival = rivals.load_rival(backend.NAME)
    weights, x = random_weights(SPEC), images(SPEC, 35)
    with beginners_network(backend.NAME, rival, 35) as (network, tensors):
        for tensor, array in zip(tensors, weights.values(), strict=True):
            tensor.write(array)
        found = rival.logits(network, x)
    assert deviation(found, dm.reference.predict(SPEC, weights, x)) < TOLERANCES["float64"]


@pytest.mark.long("keras", "flax")
def test_a_beginners_loop_takes_the_steps_of_fit(backend):
    rival = rivals.load_rival(backend.NAME)
    weights, x, y = random_weights(SPEC), images(SPEC, 32, count=8), labels(SPEC, 8)
    recipe = replace(dm.RECIPES["chapter"], epochs=1, batch_size=4, average=0, recalibrate=0)
    order = epoch_order(8, recipe.seed, 0)
    batches = [(x[indices], y[indices]) for indices in (order[:4], order[4:])]
    steps = []
    with beginners_network(backend.NAME, rival, 32) as (network, tensors):
        for tensor, array in zip(tensors, weights.values(), strict=True):
            tensor.write(array)
        rate = recipe.rounded().learning_rate
        rival.train(network, batches, rate, lambda: steps.append(None))
        rival.finish()
        found = [tensor.read() for tensor in tensors]
    model = backend.build(SPEC, dtype="float64")
    backend.import_weights(model, weights)
    backend.fit(model, (x, y), recipe)
    assert len(steps) == 2
    for (name, expected), actual in zip(backend.export_weights(model).items(), found, strict=True):
        assert deviation(actual, expected) < OF_STEPS["float64"], name


@pytest.mark.long("keras", "flax")
def test_a_loop_adds_up_the_gradients_of_a_batchs_parts(backend):
    # two equal parts have the mean gradient of one, and the same batch statistics
    rival = rivals.load_rival(backend.NAME)
    weights, x, y = random_weights(SPEC), images(SPEC, 32, count=8), labels(SPEC, 8)
    found, steps = [], []
    for batches, parts in [
        ([(x[:4], y[:4]), (x[4:], y[4:])], 1),
        ([(x[twice], y[twice]) for twice in ([0, 1, 2, 3] * 2, [4, 5, 6, 7] * 2)], 2),
    ]:
        with beginners_network(backend.NAME, rival, 32) as (network, tensors):
            for tensor, array in zip(tensors, weights.values(), strict=True):
                tensor.write(array)
            rival.train(network, batches, 0.1, lambda: steps.append(None), parts)
            rival.finish()
            found.append(dict(zip(weights, [tensor.read() for tensor in tensors], strict=True)))
    assert len(steps) == 4
    for name, info in dm.tensors(SPEC).items():
        if info.role == "trainable":  # each part updates the running statistics
            assert deviation(found[1][name], found[0][name]) < OF_STEPS["float64"], name


@pytest.mark.long("keras", "flax")
def test_a_plain_loop_trains_until_it_is_stopped(backend):
    rival = rivals.load_rival(backend.NAME)
    x, y = images(SPEC, 32, count=4).astype(np.float32), labels(SPEC, 4)
    rounds = iter([1, 2])

    def after_step():
        if next(rounds, None) is None:
            raise FinishedError

    with pytest.raises(FinishedError):
        rival.train(rival.beginners_network(32), [(x, y)] * 4, 0.1, after_step)


@pytest.mark.long("keras", "flax")
def test_the_frameworks_own_network_answers_as_ours_does(backend):
    rival = rivals.load_rival(backend.NAME)
    size = 224 if backend.NAME == "gluon" else 64  # the zoo's last pooling is 7 x 7
    network = rival.framework_network("densenet121", size)
    if network is None:
        assert backend.NAME == "torch"  # torchvision is not installed here
        return
    x = np.random.default_rng(0).random((2, 3, size, size), np.float32)
    assert rival.logits(network, x).shape == (2, dm.VARIANTS["densenet121"].num_classes)
    assert rival.framework_network("d2l", size) is None


def test_gluon_alone_has_to_be_told_to_free_arrays_early(backend):
    class Model:
        def hybridize(self, *active, **given):
            hybridized.append((active, given))

    hybridized, model = [], Model()
    rivals.load_rival(backend.NAME).free_arrays_early(model)
    model.hybridize(static_alloc=True)  # as fit does
    expected = ((True,), {}) if backend.NAME == "gluon" else ((), {"static_alloc": True})
    assert hybridized == [expected]
