"""A training step: its loss, running statistics and weights are judged, each by its own rules."""

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import densenet_multi as dm
from cases import random_weights, small
from densenet_multi import reference
from densenet_multi.commands import main
from densenet_multi.diagnosis.diagnose import batch
from densenet_multi.diagnosis.step import DECAYED, Step, diagnose_step
from densenet_multi.tasks import doctor as task

RATE, DECAY = 0.5, 0.1
SPEC = small("bottleneck")
WEIGHTS = random_weights(SPEC)
IMAGES, LABELS = batch(SPEC, dm.Usage())
KEPT = SPEC.config.bn_decay
RNG = np.random.default_rng(7)
GRADIENTS = {  # a step is judged by its rule, whatever the gradients are
    name: RNG.normal(scale=0.1, size=array.shape)
    for name, array in WEIGHTS.items()
    if "running" not in name
}


def step(
    *, scale=1.0, rate=RATE, decayed="all", decay=KEPT, variance="biased", times=1, dtype="float64"
):
    """A step that does these things, and else what it should."""
    own = reference.forward(SPEC, WEIGHTS, IMAGES, training=True, variance=variance)
    new = {}
    for name, old in WEIGHTS.items():
        if name in GRADIENTS:
            is_decayed = {
                "all": True,
                "none": False,
                "kernels": old.ndim > 1,
                "without-norms": "norm" not in name,
                "without-biases": old.ndim > 1 or "norm" in name,
            }[decayed]
            new[name] = old - rate * (scale * GRADIENTS[name] + DECAY * old * is_decayed)
        else:
            taken = (own.statistics[name] - KEPT * old) / (1 - KEPT)
            new[name] = old
            for _ in range(times):
                new[name] = decay * new[name] + (1 - decay) * taken
    loss = reference.cross_entropy(own.logits, LABELS)
    new = {name: array.astype(dtype) for name, array in new.items()}
    return Step(
        IMAGES, LABELS, new, GRADIENTS, RATE, DECAY, loss=loss, variance="biased", dtype=dtype
    )


def named(found):
    return [(each.convention, each.stage) for each in found.findings]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_right_step_is_the_same(dtype):
    found = diagnose_step(SPEC, WEIGHTS, step(dtype=dtype))
    assert found.same
    assert not found.notes
    assert found.deviation < {"float32": 1e-5, "float64": 1e-12}[dtype]


BROKEN = {
    "complement": ({"decay": 1 - KEPT}, "bn_momentum", "stem", "exchanges what is kept"),
    "keras": ({"decay": 0.99}, "bn_momentum", "stem", r"keeps 0\.99 of .* \(as in Keras"),
    "own": ({"decay": 0.83}, "bn_momentum", "stem", r"keeps 0\.83 of"),
    "twice": ({"times": 2}, "statistics_twice", "stem", "updates the running statistics twice"),
    "frozen": ({"times": 0}, "statistics_frozen", "stem", "keeps the old statistics"),
    "unbiased": ({"variance": "unbiased"}, "running_variance", "stem", "keeps the unbiased"),
    "sum": ({"scale": len(IMAGES)}, "loss_sum", "output", "sum over the 8 examples"),
    "scaled": ({"scale": 2.5}, "learning_rate", "output", "gradient that is 2.5 times as large"),
    "rate": ({"rate": 0.25}, "learning_rate", "output", "step that is 0.5 times as large"),
    **{
        decayed: ({"decayed": decayed}, "weight_decay", "input", f"decays {DECAYED[decayed][0]}")
        for decayed in DECAYED
        if decayed != "all"
    },
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BROKEN)
def test_every_other_rule_is_named(name, dtype):
    changed, convention, stage, text = BROKEN[name]
    found = diagnose_step(SPEC, WEIGHTS, step(**changed, dtype=dtype))
    assert [each for each, _ in named(found)] == [convention]
    if name != "unbiased":  # in float32, only where a map is small
        assert named(found) == [(convention, stage)]
    assert found.findings[0].after < found.findings[0].before
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(found.findings[0].text)
    assert found.findings[0].remedy


def test_two_at_once_are_both_named():
    found = diagnose_step(SPEC, WEIGHTS, step(decay=0.99, variance="unbiased", decayed="kernels"))
    assert [name for name, _ in named(found)] == ["bn_momentum", "running_variance", "weight_decay"]


def test_a_block_that_updates_twice_is_named_alone():
    right, twice = step(), step(times=2)
    mixed = {
        name: (twice if "denseblock2" in name else right).weights[name] for name in right.weights
    }
    found = diagnose_step(SPEC, WEIGHTS, replace(right, weights=mixed))
    assert named(found) == [("statistics_twice", "denseblock2")]
    assert "twice in denseblock2" in found.findings[0].text


def test_weights_that_do_not_move_are_listed():
    right = step()
    still = {"classifier.bias": WEIGHTS["classifier.bias"]}
    found = diagnose_step(SPEC, WEIGHTS, replace(right, weights={**right.weights, **still}))
    assert named(found) == [("update_missing", "output")]
    assert "does not change classifier.bias" in found.findings[0].text
    nothing = {name: array for name, array in WEIGHTS.items() if name in GRADIENTS}
    found = diagnose_step(SPEC, WEIGHTS, replace(right, weights={**right.weights, **nothing}))
    assert "changes no weight" in found.findings[0].text


@pytest.mark.parametrize(
    ("loss", "convention"),
    [
        (lambda own, _: 8 * own, "loss_sum"),
        (lambda _, evaluated: evaluated, "statistics_frozen"),
        (lambda own, _: 0.9 * own, None),
    ],
)
def test_the_loss_is_judged_first(loss, convention):
    right = step()
    evaluated = reference.cross_entropy(reference.predict(SPEC, WEIGHTS, IMAGES), LABELS)
    found = diagnose_step(SPEC, WEIGHTS, replace(right, loss=loss(right.loss, evaluated)))
    assert [name for name, _ in named(found)] == ([convention] if convention else [])
    assert (found.unexplained is None) == bool(convention)


def test_what_no_rule_gives_is_blamed_on_nothing():
    right = step()
    noise = {n: a + 0.01 * RNG.normal(size=a.shape) for n, a in right.weights.items()}
    for leaf, words in (("weight", "weights after the step"), ("running_mean", "statistics of")):
        mixed = {n: (noise if n.endswith(leaf) else right.weights)[n] for n in noise}
        found = diagnose_step(SPEC, WEIGHTS, replace(right, weights=mixed))
        assert not found.findings
        assert words in found.unexplained


def test_what_a_step_cannot_show_is_said():
    right = step()
    assert diagnose_step(SPEC, WEIGHTS, replace(right, loss=None)).notes == (
        "the loss, which was not given",
    )
    new = {n: WEIGHTS[n] - RATE * GRADIENTS[n] for n in GRADIENTS}
    without = replace(right, weight_decay=0.0, weights={**right.weights, **new})
    assert diagnose_step(SPEC, WEIGHTS, without).notes == ("weight decay, which is 0 in this step",)
    either = diagnose_step(SPEC, WEIGHTS, replace(right, variance=None))
    assert either.notes[0].endswith("the port's is biased")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate: expected a finite number above 0"),
        ({"decayed": "some"}, "decayed: expected"),
        ({"variance": "some"}, "variance: expected"),
        ({"gradients": {}}, "gradients: expected one for every weight, found none of features"),
    ],
)
def test_a_step_that_is_not_described_is_refused(changed, message):
    with pytest.raises(dm.ConfigError, match=f"^{message}"):
        diagnose_step(SPEC, WEIGHTS, replace(step(), **changed))


# --- The task and the command -------------------------------------------------------------------


def test_a_step_needs_its_batch_and_its_rate(tmp_path):
    path = tmp_path / "net.safetensors"
    dm.save_weights(path, SPEC, {n: a.astype("f") for n, a in WEIGHTS.items()})
    for given, message in (
        ({"after": path, "model": "x:y"}, "after: expected outputs="),
        ({"step": lambda *_: None}, "learning_rate: expected"),
        ({}, "model: expected one of model=, outputs= and step=, found none"),
    ):
        with pytest.raises(dm.ConfigError, match=message):
            task.doctor(path, **given)


@pytest.mark.backend
def test_a_step_of_this_backend_is_right_and_a_forgotten_decay_is_named(backend, tmp_path):
    spec = dm.get_spec("d2l", block_config=(1, 1))
    start = backend.build(spec, seed=1)
    path, weights = tmp_path / "net.safetensors", backend.export_weights(start)
    dm.save_weights(path, spec, weights)

    def taken(images, labels):
        model = backend.build(spec, seed=1)
        recipe = dm.Recipe(epochs=1, batch_size=8, learning_rate=0.1, weight_decay=0.1)
        history = backend.fit(model, (images, labels), recipe)
        file = tmp_path / "after.safetensors"
        dm.save_weights(file, spec, backend.export_weights(model))
        return {"loss": history.steps[0].loss, "weights": file}

    found = task.doctor(path, step=taken, learning_rate=0.1, weight_decay=0.1)
    assert found["same"], found
    found = task.doctor(path, step=taken, learning_rate=0.1, weight_decay=0.1, decayed="kernels")
    assert [each["convention"] for each in found["findings"]] == ["weight_decay"]
    # the same from files
    images, labels = batch(spec, dm.Usage())
    np.savez(tmp_path / "batch.npz", inputs=images.astype("f"), labels=labels)
    arguments = ["doctor", path, "--outputs", tmp_path / "batch.npz", "--learning-rate", "0.2"]
    arguments += ["--weight-decay", "0.1", "--after", tmp_path / "after.safetensors"]
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 1, done.output
    assert "learning_rate" in done.stdout
    assert "0.5 times as large" in " ".join(done.stdout.split())
