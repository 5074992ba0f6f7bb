"""Every backend refuses, in the same way, anything but its own models and parts of a spec."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

import densenet_multi as dm
from cases import images, labels, small

SPEC = small("plain")
X, Y = images(SPEC, 8).astype("float32"), labels(SPEC)
ARGUMENTS = {  # function of a model -> its other arguments
    "optimize": {},
    "use_gpu": {},
    "import_weights": {"weights": dm.init_weights(SPEC)},
    "export_weights": {},
    "predict": {"images": X},
    "features": {"images": X},
    "loss_and_gradients": {"images": X, "labels": Y},
    "count_parameters": {},
    "fit": {"data": (X, Y), "recipe": dm.Recipe(epochs=1, batch_size=2)},
}


@pytest.fixture(scope="module")
def models():
    """A function that returns a backend's model, and builds it only once."""
    return cache(lambda backend: backend.build(SPEC))


@pytest.mark.parametrize("function", ARGUMENTS)
def test_anything_but_a_model_of_the_backend_is_refused(backend, models, function):
    call, others = getattr(backend, function), ARGUMENTS[function]
    of_another = SimpleNamespace(spec=SPEC, features=SimpleNamespace())
    for wrong in (SPEC, None, backend.DenseNet, models(backend).features, of_another, X):
        with pytest.raises(dm.ConfigError) as caught:
            call(wrong, **others)
        assert str(caught.value).startswith(
            f"model: expected a model of densenet_multi.{backend.NAME}, found a "
        )
        assert str(caught.value).endswith(
            f"; type: model = densenet_multi.{backend.NAME}.build(spec)"
        )
    with pytest.raises(TypeError, match="model"):  # Python's own error for a missing argument
        call()


@pytest.mark.parametrize("part", ["Stem", "DenseLayer", "DenseBlock", "Transition", "Features"])
def test_a_class_is_built_only_from_its_part_of_a_spec(backend, part):
    with pytest.raises(dm.ConfigError, match=r"^spec: expected a \w+Spec: .*; found dict"):
        getattr(backend, part)({})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("resume", {}),
        ("checkpoint", "checkpoint.safetensors"),
        ("callbacks", print),
        ("callbacks", [print, None]),
        ("recipe", {"epochs": 1}),
        ("data", [1, 2]),
        ("validation", (None, None)),
    ],
    ids=str,
)
def test_fit_names_a_wrong_argument_before_the_first_step(backend, models, name, wrong):
    model = models(backend)
    before = backend.export_weights(model)
    with pytest.raises((dm.ConfigError, dm.ImageError), match=rf"^{name}"):
        backend.fit(model, **{**ARGUMENTS["fit"], name: wrong})
    after = backend.export_weights(model)
    assert all(np.array_equal(after[name], array) for name, array in before.items())


@pytest.mark.parametrize("seed", [np.uint64(2**64 - 1), np.int8(3)])
def test_every_seed_of_64_bits_builds_the_same_network_everywhere(backend, seed):
    spec = small("plain", drop_rate=0.5)  # in Flax, dropout has a seed too
    weights = backend.export_weights(backend.build(spec, seed=seed))
    expected = dm.init_weights(spec, int(seed))
    assert all(np.array_equal(weights[name], array) for name, array in expected.items())
