"""Folded networks: the same function with fewer BatchNorms, in NumPy and in every backend."""

import numpy as np
import pytest
from hypothesis import given

import densenet_multi as dm
from cases import SMALL, as_float32, images, labels, random_weights, small
from densenet_multi._fold import fold
from densenet_multi._spec_dict import from_dict, to_dict
from densenet_multi.comparison.deviation import deviation
from densenet_multi.spec import BatchNormSpec
from parity import check_forward
from strategies import small_configs


@pytest.mark.parametrize("name", SMALL)
def test_the_folded_network_is_the_same_function(name):
    spec = small(name)
    weights, x = random_weights(spec), images(spec, 33)
    before = {tensor: array.copy() for tensor, array in weights.items()}
    folded = fold(spec, weights)
    ours = dm.reference.forward(*folded, x)
    theirs = dm.reference.forward(spec, weights, x)
    assert deviation(ours.logits, theirs.logits) < 1e-14
    for stage, expected in theirs.stages.items():
        assert deviation(ours.stages[stage], expected) < 1e-14
    np.testing.assert_equal(weights, before)


@given(small_configs())
def test_every_norm_after_a_convolution_is_folded_and_no_other(config):
    spec = config.resolve()
    folded, weights = fold(spec, random_weights(spec))
    assert list(weights) == list(dm.tensors(folded))
    gone = [name for name in dm.tensors(spec) if name not in weights]
    assert {name.split(".")[-2] for name in gone} <= {"norm0", "norm2"}
    assert not isinstance(folded.stem.norm0, BatchNormSpec)
    for block, _ in folded.stages:
        assert not any(isinstance(layer.norm2, BatchNormSpec) for layer in block.layers)
    x = images(spec, max(8, dm.min_image_size(spec)))
    assert dm.shape_trace(folded, *x.shape[2:]) == dm.shape_trace(spec, *x.shape[2:])
    assert from_dict(to_dict(folded)) == folded
    again, same = fold(folded, weights)
    assert again == folded
    np.testing.assert_equal(same, weights)


def test_folding_keeps_the_dtype_and_rounds_once():
    spec = small("bottleneck")
    weights = as_float32(random_weights(spec))
    _, narrow = fold(spec, weights)
    _, wide = fold(spec, {name: array.astype(np.float64) for name, array in weights.items()})
    assert {array.dtype.name for array in narrow.values()} == {"float32"}
    np.testing.assert_equal(narrow, as_float32(wide))


def test_folding_checks_the_weights():
    spec = small("bottleneck")
    weights = random_weights(spec)
    del weights["features.norm0.bias"]
    with pytest.raises(dm.WeightsError, match=r"features\.norm0\.bias: missing"):
        fold(spec, weights)


def test_the_reference_does_not_train_a_folded_network():
    spec, weights = fold(small("bottleneck"), random_weights(small("bottleneck")))
    with pytest.raises(dm.ConfigError, match="all its BatchNorms"):
        dm.reference.forward(spec, weights, images(spec, 32), training=True)


@pytest.mark.parametrize("size", [pytest.param(32, marks=pytest.mark.long), 35])
@pytest.mark.parametrize("name", SMALL)
def test_an_optimized_model_is_the_same_function(backend, name, size, deviations):
    spec = small(name, drop_rate=0.3)
    weights, x = random_weights(spec), images(spec, size, size + 5)
    check_forward(backend, spec, weights, x, deviations, optimized=True)
    weights, x = as_float32(weights), x.astype(np.float32)
    check_forward(backend, spec, weights, x, deviations, optimized=True)


def test_an_optimized_model_takes_other_sizes_and_keeps_its_weights(backend):
    spec = small("bottleneck")
    model = backend.build(spec, dtype="float64")
    backend.import_weights(model, random_weights(spec))
    optimized = backend.optimize(model)
    for count, height, width in ((1, 32, 32), (3, 40, 33), (2, 35, 64)):
        x = images(spec, height, width, count=count)
        expected = backend.predict(model, x)
        assert deviation(backend.predict(optimized, x), expected) < 1e-13
    backend.import_weights(model, random_weights(spec, seed=9))
    assert deviation(backend.predict(optimized, x), expected) < 1e-13
    assert backend.export_weights(optimized).keys() == dm.tensors(optimized.spec).keys()
    assert backend.count_parameters(optimized) == dm.count_parameters(optimized.spec)
    again = backend.optimize(optimized)
    np.testing.assert_array_equal(backend.predict(again, x), backend.predict(optimized, x))


@pytest.mark.parametrize("name", ["bottleneck", "plain with bias"])
def test_an_optimized_model_follows_weights_that_it_is_given(backend, name):
    spec = small(name)
    optimized = backend.optimize(backend.build(spec, dtype="float64"))
    weights, x = random_weights(spec), images(spec, 32)
    for gamma in (n for n in weights if ".norm1.weight" in n):
        # zero, tiny and negative scales: relu(a x + b) is then constant, or clamps x from above
        weights[gamma][:5] = 0.0, -0.0, 1e-310, -1e-9, -1.5
    backend.import_weights(optimized, fold(spec, weights)[1])
    expected = dm.reference.forward(spec, weights, x).logits
    assert deviation(backend.predict(optimized, x), expected) < 1e-13


def test_an_optimized_model_is_not_trained(backend):
    spec = small("bottleneck")
    optimized = backend.optimize(backend.build(spec))
    x, y = images(spec, 32, count=4).astype(np.float32), labels(spec, 4)
    before = backend.export_weights(optimized)
    with pytest.raises(dm.ConfigError, match="the model that you passed to optimize"):
        backend.loss_and_gradients(optimized, x, y)
    with pytest.raises(dm.ConfigError, match="the model that you passed to optimize"):
        backend.fit(optimized, (x, y), dm.Recipe(epochs=1, batch_size=2))
    np.testing.assert_equal(backend.export_weights(optimized), before)


def test_the_spec_of_an_optimized_model_is_not_built(backend):
    """Its weights would fit such a network, which would lack the ReLUs after folded BatchNorms."""
    optimized = backend.optimize(backend.build(small("bottleneck")))
    with pytest.raises(dm.ConfigError, match="spec: expected all of its BatchNorms"):
        backend.build(optimized.spec)
    built = backend.build(optimized.spec.config.resolve())
    assert backend.count_parameters(built) == dm.count_parameters(small("bottleneck"))


def test_bfloat16_is_close_or_refused_by_name(backend):
    spec = small("bottleneck")
    model, x = backend.build(spec), images(spec, 32, 35, count=4).astype(np.float32)
    backend.import_weights(model, as_float32(random_weights(spec)))
    if backend.NAME == "gluon":
        with pytest.raises(dm.ConfigError, match="bfloat16: expected False: Gluon"):
            backend.optimize(model, bfloat16=True)
        return
    exact, rounded = backend.optimize(model), backend.optimize(model, bfloat16=True)
    assert 1e-4 < deviation(backend.predict(rounded, x), backend.predict(exact, x)) < 0.03
    maps, expected = backend.features(rounded, x), backend.features(exact, x)
    for stage, found in maps.items():
        assert found.dtype == np.float32
        assert 1e-4 < deviation(found, expected[stage]) < 0.03, stage
    # weights are rounded when they are used, not when they are stored
    np.testing.assert_equal(backend.export_weights(rounded), backend.export_weights(exact))
    with pytest.raises(dm.ConfigError, match="bfloat16: expected False for a network in float64"):
        backend.optimize(backend.build(spec, dtype="float64"), bfloat16=True)
