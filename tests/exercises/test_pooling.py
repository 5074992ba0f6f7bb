"""Exercise 1: pairs differ in their pooling alone, and what pooling does is measured right."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import numpy as np
import pytest

import densenet_multi as dm
from cases import images, random_weights, small
from densenet_multi.data import load_data
from densenet_multi.exercises import Settings, exercise, pooling
from densenet_multi.exercises._interval import interval, spread, t_quantile
from densenet_multi.spec import PoolSpec

POOL = PoolSpec(kernel_size=2, stride=2, padding=0)
MAPS = np.random.default_rng(0).normal(size=(3, 4, 7, 6))  # the last row is in no window


def looked(energy):
    own = {"receivers": 4.0, "share": 0.25, "ties": 0.0}
    return {"transition1": {**own, "energy_avg": energy, "energy_max": energy / 2}}


def run(pool, seed, accuracy):
    known = {"loss": 0.5, "accuracies": [accuracy], "seconds": 1.0, "transitions": looked(0.5)}
    return {"pool": pool, "seed": seed, "accuracy": accuracy, **known}


@pytest.fixture
def told(monkeypatch):
    """A backend that only writes down what it is told."""
    written = SimpleNamespace(specs=[], seeds=[], recipes=[], data=[], counts=[], gpu=False)

    def build(spec, seed):
        written.specs.append(spec)
        written.seeds.append(seed)
        return SimpleNamespace(spec=spec)

    def fit(model, data, recipe, validation):
        written.recipes.append(recipe)
        written.data.append((data, validation))
        accuracy = 0.75 + recipe.seed / 100 - (model.spec.config.transition_pool == "max") / 20
        epoch = SimpleNamespace(validation_accuracy=accuracy, validation_loss=0.5, seconds=1.0)
        return SimpleNamespace(epochs=[epoch] * recipe.epochs)

    def inspect(_backend, _model, take, count):
        written.counts.append(len(take(np.arange(count))))
        return looked(0.5)

    backend = SimpleNamespace(build=build, fit=fit, use_gpu=lambda _: written.gpu)
    monkeypatch.setattr(pooling, "load_backend", lambda _: backend)
    monkeypatch.setattr(pooling, "inspect_transitions", inspect)
    return written


def test_networks_of_a_pair_differ_in_their_pooling_alone(told):
    exercise("pooling").run(Settings(backend="torch", data="sample", seeds=2))
    assert told.seeds == [0, 0, 1, 1] == [recipe.seed for recipe in told.recipes]
    assert [spec.config.transition_pool for spec in told.specs] == ["avg", "max"] * 2
    average, maximum = told.specs[:2]
    assert replace(average.config, transition_pool="max").resolve() == maximum
    assert told.recipes[0] == told.recipes[1]
    assert all(given is told.data[0][i] for data in told.data for i, given in enumerate(data))
    weights = [dm.init_weights(spec, seed=0) for spec in (average, maximum)]
    assert weights[0].keys() == weights[1].keys()
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name])


def test_the_result_has_every_run_and_the_paired_difference(told):
    result = exercise("pooling").run(Settings(backend="torch", data="sample"))
    assert len(result["runs"]) == 2 * pooling.SEEDS
    assert result["difference"]["mean"] == pytest.approx(0.05)  # the seeds' own spread cancels
    assert result["difference"]["std"] == pytest.approx(0, abs=1e-12)
    assert result["accuracy"]["avg"]["std"] == pytest.approx(0.01)
    assert (result["train_examples"], result["test_examples"]) == (1000, 1000)
    assert "seed" not in result["recipe"]
    assert told.recipes[0].epochs == pooling.EPOCHS["sample"][False]
    assert (result["device"], result["data"]) == ("cpu", "sample")
    assert "(sample), 20 epochs, torch on the CPU" in pooling.tables(result)[0].title


def test_the_result_states_a_gpu_and_how_many_images_were_inspected(told, monkeypatch):
    told.gpu = True
    monkeypatch.setattr(pooling, "gpu", lambda: "NVIDIA H200")
    monkeypatch.setattr(pooling, "LOOKED_AT", 30)
    result = exercise("pooling").run(Settings(backend="torch", data="sample", seeds=1))
    assert (result["device"], result["gpu"]) == ("gpu", "NVIDIA H200")
    assert "torch on NVIDIA H200" in pooling.tables(result)[0].title
    assert told.counts == [30, 30]
    assert result["looked_at"] == 30
    monkeypatch.setattr(pooling, "LOOKED_AT", 3000)  # more than there are
    assert exercise("pooling").run(Settings(data="sample", seeds=1))["looked_at"] == 1000
    assert told.counts[2:] == [1000, 1000]


def test_the_long_version_has_more_seeds_and_epochs(told):
    result = exercise("pooling").run(Settings(backend="torch", data="sample", full=True))
    assert len(result["runs"]) == 2 * pooling.FULL_SEEDS
    assert told.recipes[0].epochs == pooling.EPOCHS["sample"][True]


def test_the_average_gives_each_input_a_quarter_and_the_maximum_all_to_one():
    found = pooling.gradient_of("avg", POOL, MAPS)
    assert found == pytest.approx({"receivers": 4, "share": 0.25, "ties": 0})
    found = pooling.gradient_of("max", POOL, MAPS)
    assert found == pytest.approx({"receivers": 1, "share": 1, "ties": 0})


def test_equal_maxima_are_ties_of_which_one_receives_the_gradient():
    maps = np.zeros((1, 1, 2, 4))
    maps[0, 0, :, 2:] = [[5, 1], [5, 2]]  # four equal inputs, and two equal maxima
    found = pooling.gradient_of("max", POOL, maps)
    assert found == {"receivers": 1, "share": 1, "ties": 1}
    maps[0, 0, 0, 2] = 6
    found = pooling.gradient_of("max", POOL, maps)
    assert found == pytest.approx({"receivers": 1, "share": 1, "ties": 0.5})
    assert pooling.gradient_of("avg", POOL, maps)["receivers"] == 4


def test_windows_of_equal_pixels_keep_all_energy_and_checkerboards_none():
    flat = np.random.default_rng(1).normal(size=(2, 3, 4, 4)).repeat(2, axis=2).repeat(2, axis=3)
    board = np.tile([[1.0, -1.0], [-1.0, 1.0]], (2, 3, 4, 4))
    for kind in pooling.POOLS:
        assert pooling.energy_kept(kind, POOL, flat) == pytest.approx(1)
        assert pooling.energy_kept(kind, POOL, board) == 0
        assert pooling.energy_kept(kind, POOL, np.ones_like(board)) == 1


def test_energy_is_what_the_best_line_predicts():
    for kind, pool in pooling.POOLS.items():
        pixels = MAPS[:, :, :6, :6]
        pooled = pool(POOL, pixels).repeat(2, axis=2).repeat(2, axis=3)
        lost = 0.0
        for channel in range(MAPS.shape[1]):
            x, y = pooled[:, channel].ravel(), pixels[:, channel].ravel()
            slope, start = np.polyfit(x, y, 1)
            lost += ((y - slope * x - start) ** 2).mean()
        total = pixels.var(axis=(0, 2, 3)).sum()
        assert pooling.energy_kept(kind, POOL, MAPS) == pytest.approx(1 - lost / total)


def test_no_pooling_keeps_more_energy_than_the_average():
    average, maximum = (pooling.energy_kept(kind, POOL, MAPS) for kind in ("avg", "max"))
    assert 0.1 < maximum < average < 0.5  # of noise, a mean of four keeps a quarter


@pytest.mark.parametrize("name", ["bottleneck", "cubic"])  # average; maximum, with a bias
def test_what_a_transition_pools_is_that_of_the_network(name):
    spec, kinds = small(name), set()
    weights = random_weights(spec)
    stages = dm.reference.forward(spec, weights, images(spec, 33)).stages
    for transition, block in pooling._transitions(spec):
        before = dm.reference.before_pooling(transition, weights, stages[block])
        actual = pooling.POOLS[transition.pool_kind](transition.pool, before)
        np.testing.assert_allclose(actual, stages[transition.name], rtol=1e-10, atol=1e-12)
        kinds.add(transition.pool_kind)
    assert kinds == {"max" if name == "cubic" else "avg"}


def reference_backend(spec, weights):
    return SimpleNamespace(
        export_weights=lambda _: weights,
        features=lambda _, x: dm.reference.forward(spec, weights, x).stages,
    )


def test_each_transition_of_a_network_is_inspected_over_all_images(monkeypatch):
    spec = small("bottleneck")
    weights, seen = random_weights(spec), images(spec, 33, count=5)
    backend = reference_backend(spec, weights)
    model = SimpleNamespace(spec=spec)
    whole = pooling.inspect_transitions(backend, model, seen.__getitem__, 5)
    monkeypatch.setattr(pooling, "AT_ONCE", 2)
    assert list(whole) == ["transition1", "transition2"]
    for name, found in pooling.inspect_transitions(backend, model, seen.__getitem__, 5).items():
        assert found == pytest.approx(whole[name])
        assert found["receivers"] == 4
        assert found["energy_max"] <= found["energy_avg"] < 1
    assert pooling.inspect_transitions(backend, model, seen.__getitem__, 4) != whole


@pytest.mark.parametrize("name", ["bottleneck", "cubic"])
def test_a_backends_network_is_inspected_like_the_reference(backend, name):
    spec = small(name)
    weights, seen = random_weights(spec), images(spec, 33, count=3)
    model = backend.build(spec, dtype="float64")
    backend.import_weights(model, weights)
    actual = pooling.inspect_transitions(backend, model, seen.__getitem__, 3)
    expected = pooling.inspect_transitions(
        reference_backend(spec, weights), model, seen.__getitem__, 3
    )
    assert actual.keys() == expected.keys()
    for transition, found in actual.items():
        assert found == pytest.approx(expected[transition], rel=1e-9)


@pytest.mark.long("keras", "flax")
def test_a_real_backend_trains_pairs_and_is_inspected(backend, monkeypatch):
    monkeypatch.setattr(pooling, "EPOCHS", {"sample": (1, 1)})
    monkeypatch.setattr(pooling, "LOOKED_AT", 10)
    monkeypatch.setattr(pooling, "AT_ONCE", 5)
    data = load_data("sample", image_size=32)
    train, test = (
        replace(part, pixels=part.pixels[:count], labels=part.labels[:count])
        for part, count in ((data.train, 128), (data.test, 20))
    )
    few = replace(data, train=train, test=test)
    monkeypatch.setattr(pooling, "load_data", lambda *_, **__: few)
    less = {"block_config": (1, 1), "growth_rate": 4, "num_init_features": 4}
    monkeypatch.setattr(pooling, "get_spec", partial(dm.get_spec, **less))
    result = exercise("pooling").run(Settings(backend=backend.NAME, data="sample", seeds=1))
    assert [run["pool"] for run in result["runs"]] == ["avg", "max"]
    assert all(0 < run["loss"] < 10 for run in result["runs"])
    found = result["transitions"]["transition1"]
    assert found["avg"]["receivers"]["mean"] == 4
    assert found["max"]["receivers"]["mean"] == 1
    assert len(pooling.tables(result)[0].rows) == 2


@pytest.mark.parametrize(
    ("degrees", "expected"),  # any table of Student's t, 0.975
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042)],
)
def test_quantiles_are_those_of_students_t(degrees, expected):
    assert t_quantile(degrees) == pytest.approx(expected, abs=5e-4)


def test_an_interval_is_that_of_the_mean_of_paired_differences():
    found = interval([1.0, 2.0, 3.0])
    half = 4.3027 / 3**0.5
    assert found["each"] == [1, 2, 3]
    assert (found["low"], found["high"]) == pytest.approx((2 - half, 2 + half), abs=1e-3)
    assert spread([0.5]) == {"mean": 0.5, "std": None}
    assert interval([0.5])["low"] is None


def test_tables_state_the_interval_and_whether_it_contains_0():
    def tables(accuracies):
        runs = [
            run(pool, seed, value)
            for seed, pair in enumerate(accuracies)
            for pool, value in zip(pooling.POOLS, pair, strict=True)
        ]
        counts = {"train_examples": 60_000, "test_examples": 10_000, "looked_at": 1000}
        recipe = {"variant": "d2l", "image_size": 32, "epochs": 2}
        result = {"runs": runs, "backend": "torch", "recipe": recipe, "data": "sample", **counts}
        result |= pooling.summary(runs)
        root = ET.fromstring(pooling.draw(result))  # noqa: S314  # ours
        spoken = "".join(root.itertext())
        return pooling.tables(result), spoken

    (accuracies, pooled), spoken = tables([(0.91, 0.90), (0.92, 0.93), (0.90, 0.89)])
    assert accuracies.rows[1] == ("seed 1", "0.9200", "0.9300", "-0.0100")
    assert accuracies.rows[3] == ("mean", "0.9100", "0.9067", "+0.0033")
    assert "contains 0" in accuracies.note
    assert "not that of another choice of test images" in accuracies.note
    assert "by construction" in pooled.note
    assert all(pooled.is_number[2:])
    assert pooled.rows[0][-2:] == ("50.0%", "25.0%")
    assert "average 50.0%, maximum 25.0%" in spoken
    (accuracies, _), spoken = tables([(0.91, 0.90), (0.92, 0.9101), (0.90, 0.8899)])
    assert "does not contain 0" in accuracies.note
    assert "does not contain 0" in spoken
    (accuracies, _), _ = tables([(0.91, 0.90)])
    assert "says nothing about spread" in accuracies.note
    assert [row[0] for row in accuracies.rows] == ["seed 0", "mean"]
