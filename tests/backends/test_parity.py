"""Every backend computes the same as the NumPy reference: shapes, counts, logits, training."""

from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

import densenet_multi as dm
import native
from cases import (
    SMALL,
    as_float32,
    difference_quotient,
    images,
    labels,
    random_weights,
    small,
)
from densenet_multi.comparison.deviation import deviation
from parity import check_forward, check_training, gradient_scale
from tolerances import Deviations

VARIANT_SIZES = [("d2l", 96), ("d2l", 99), ("densenet_bc100_k12", 32), ("densenet121", 65)]
SLOW_TO_TRACE = pytest.mark.long("keras", "flax")  # a hundred layers, one at a time
# XLA is slow in float64, so images are smaller; not every size is 1 modulo 4
FLOAT64_SIZES = [
    ("d2l", 35),
    pytest.param("densenet_bc100_k12", 8, marks=SLOW_TO_TRACE),
    pytest.param("densenet121", 35, marks=pytest.mark.long("flax")),
    *(pytest.param(*each, marks=pytest.mark.long) for each in VARIANT_SIZES),
]
# only long tests cover other variants
USUAL = {"d2l": (), "densenet121": (), "densenet_bc100_k12": SLOW_TO_TRACE}
OTHERS = [("d2l", 96), ("densenet_bc100_k12", 32), ("densenet_bc100_k12", 8)]
FLOAT32_SIZES = [
    ("d2l", 99),
    pytest.param("densenet121", 65, marks=SLOW_TO_TRACE),
    *(pytest.param(*each, marks=pytest.mark.long) for each in OTHERS),
]
NET_SIZES = [(name, size) for name in SMALL for size in (32, 33, 35)]


# --- Shapes and counts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant",
    [pytest.param(v, marks=USUAL.get(v, pytest.mark.long)) for v in dm.VARIANTS],
)
def test_counts_of_every_variant_equal_the_manifest_and_every_bit_returns(backend, variant):
    spec = dm.get_spec(variant)
    model = backend.build(spec)
    assert backend.count_parameters(model) == dm.count_parameters(spec)
    weights = as_float32(random_weights(spec))
    backend.import_weights(model, weights)
    for name, array in backend.export_weights(model).items():
        np.testing.assert_array_equal(array, weights[name])


def test_a_model_accepts_image_and_batch_sizes_other_than_the_first(backend):
    spec = small("plain with bias")
    model = backend.build(spec)
    for count, height, width in [(2, 32, 32), (1, 45, 32), (3, 32, 51)]:
        x = images(spec, height, width, count)
        assert backend.predict(model, x).shape == (count, 7)
        for stage, shape in dm.shape_trace(spec, height, width):
            assert backend.features(model, x)[stage].shape == (count, *shape)


@pytest.mark.parametrize("optimized", [False, True], ids=["plain", "optimized"])
def test_class_activation_maps_have_the_logits_as_their_means(backend, optimized):
    spec = small("cubic")
    weights, x = random_weights(spec), images(spec, 19)
    model = backend.build(spec, dtype="float64")
    backend.import_weights(model, weights)
    model = backend.optimize(model) if optimized else model
    logits, stages = backend.predict(model, x), backend.features(model, x)
    for c, bias in enumerate(weights["classifier.bias"]):
        places = dm.class_activation_map(spec, weights, stages, c)
        actual = places.mean(axis=(1, 2)) + bias
        np.testing.assert_allclose(actual, logits[:, c], rtol=0, atol=1e-12)


# --- Weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_export_returns_every_imported_bit(backend, name, dtype):
    spec = small(name)
    weights = {n: a.astype(dtype) for n, a in random_weights(spec).items()}
    model = backend.build(spec, dtype=dtype)
    backend.import_weights(model, weights)
    exported = backend.export_weights(model)
    assert list(exported) == list(dm.tensors(spec))
    for tensor, expected in weights.items():
        assert exported[tensor].dtype == dtype
        np.testing.assert_array_equal(exported[tensor], expected)


def test_build_starts_from_the_seeded_weights(backend):
    spec = small("bottleneck")
    exported = backend.export_weights(backend.build(spec, seed=5))
    for name, expected in dm.init_weights(spec, seed=5).items():
        np.testing.assert_array_equal(exported[name], expected)


def test_exported_weights_are_copies(backend):
    spec = small("plain")
    model = backend.build(spec)
    before = backend.export_weights(model)
    kept = {name: array.copy() for name, array in before.items()}
    backend.loss_and_gradients(model, images(spec, 8), labels(spec))
    backend.import_weights(model, dm.init_weights(spec, seed=9))
    for name in kept:
        np.testing.assert_array_equal(before[name], kept[name])


def test_imported_weights_are_copies(backend):
    spec = small("plain")
    # JAX would share memory that is aligned to 64 bytes
    weights = {n: aligned(a) for n, a in as_float32(random_weights(spec)).items()}
    model = backend.build(spec)
    backend.import_weights(model, weights)
    before = backend.export_weights(model)
    for array in weights.values():
        array[...] = 1
    for name, array in backend.export_weights(model).items():
        np.testing.assert_array_equal(array, before[name])


def aligned(array, boundary=64):
    memory = np.zeros(array.nbytes + boundary, np.uint8)
    start = -memory.ctypes.data % boundary
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def test_import_names_every_problem_and_leaves_the_model_untouched(backend):
    spec = small("plain with bias")
    model = backend.build(spec)
    before = backend.export_weights(model)
    bad = as_float32(random_weights(spec))
    del bad["features.conv0.bias"]
    bad["features.conv0.weight"] = bad["features.conv0.weight"].transpose(2, 3, 1, 0)
    bad["features.norm5.weight"] = np.ones(spec.norm5.num_features, np.int32)
    bad["features.norm5.bias"] = bad["features.norm5.bias"].astype(np.float64)
    bad["features.norm0.running_mean"][1] = np.nan
    bad["classifier.bias"][0] = np.inf
    bad["features.norm0.moments"] = np.zeros(())
    with pytest.raises(dm.WeightsError) as error:
        backend.import_weights(model, bad)
    for name in [*bad.keys() - before.keys(), *before.keys() - bad.keys()]:
        assert name in str(error.value)
    for name in ["conv0.weight", "norm5.weight", "norm5.bias", "norm0.running_mean", "classifier"]:
        assert name in str(error.value)
    after = backend.export_weights(model)
    for name, expected in before.items():
        np.testing.assert_array_equal(after[name], expected)


# --- Forward ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "size"), FLOAT64_SIZES)
def test_variants_have_the_references_logits_in_float64(backend, deviations, variant, size):
    spec = dm.get_spec(variant)
    check_forward(backend, spec, random_weights(spec), images(spec, size), deviations)


@pytest.mark.parametrize(("variant", "size"), FLOAT32_SIZES)
def test_variants_have_the_references_logits_in_float32(backend, deviations, variant, size):
    spec = dm.get_spec(variant)
    weights, x = as_float32(random_weights(spec)), images(spec, size).astype(np.float32)
    check_forward(backend, spec, weights, x, deviations)


@pytest.mark.parametrize(("name", "size"), NET_SIZES)
def test_small_nets_have_the_references_logits_in_float64(backend, deviations, name, size):
    spec = small(name)
    check_forward(backend, spec, random_weights(spec), images(spec, size, size + 2), deviations)


@pytest.mark.parametrize(
    ("tensor", "named"),
    [
        ("features.conv0.weight", "stage 'stem'"),
        ("features.denseblock1.denselayer1.conv2.weight", "stage 'denseblock1'"),
        ("features.transition1.conv.weight", "stage 'transition1'"),
        ("features.denseblock2.denselayer2.norm1.bias", "stage 'denseblock2'"),
        ("features.norm5.running_mean", "stage 'norm5'"),
        ("classifier.bias", "the output"),
    ],
)
def test_a_failing_forward_pass_names_the_first_stage_that_differs(tensor, named):
    spec = small("bottleneck")
    weights = random_weights(spec)
    wrong = {**weights, tensor: 1.001 * weights[tensor]}
    backend = SimpleNamespace(
        NAME="wrong",
        build=Mock(),
        import_weights=Mock(),
        features=lambda _, x: dm.reference.forward(spec, wrong, x).stages,
        predict=lambda _, x: dm.reference.predict(spec, wrong, x),
    )
    with pytest.raises(AssertionError, match=f"^wrong: {named} deviates by"):
        check_forward(backend, spec, weights, images(spec, 32), Deviations())


def test_a_network_without_a_classifier_gives_pooled_features(backend, deviations):
    spec = small("bottleneck", num_classes=0)
    check_forward(backend, spec, random_weights(spec), images(spec, 32), deviations)
    with pytest.raises(dm.ImageError, match="no classifier"):
        backend.loss_and_gradients(backend.build(spec), images(spec, 32), [0, 0])


def test_prediction_changes_nothing(backend):
    spec = small("bottleneck", drop_rate=0.5)
    model = backend.build(spec)
    before = backend.export_weights(model)
    first = backend.predict(model, images(spec, 32))
    backend.features(model, images(spec, 32))
    np.testing.assert_array_equal(backend.predict(model, images(spec, 32)), first)
    for name, array in backend.export_weights(model).items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_have_the_models_dtype_whatever_the_images_have(backend, dtype):
    spec = small("plain")
    model = backend.build(spec, dtype=dtype)
    for given in (np.float32, np.float64):
        x = images(spec, 8).astype(given)
        assert backend.predict(model, x).dtype == dtype
        assert {a.dtype for a in backend.features(model, x).values()} == {np.dtype(dtype)}
        loss, gradients = backend.loss_and_gradients(model, x, labels(spec))
        assert type(loss) is float
        assert {a.dtype for a in gradients.values()} == {np.dtype(dtype)}


# --- Training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_loss_statistics_and_gradients_of_a_step_in_float64(backend, deviations, name):
    spec = small(name, bn_decay=0.875)
    check_training(backend, spec, random_weights(spec), deviations)


@pytest.mark.parametrize("name", ["bottleneck", "cubic"])
def test_the_classes_that_fit_trains_give_the_same_results_for_a_step_in_float64(
    backend, deviations, name
):
    faster = import_module(f"densenet_multi.{backend.NAME}.faster")
    spec = small(name, bn_decay=0.875)
    check_training(backend, spec, random_weights(spec), deviations, exchange=faster.for_training)


@pytest.mark.parametrize("name", SMALL)
def test_loss_and_statistics_of_a_step_in_float32(backend, deviations, name):
    spec = small(name)
    check_training(backend, spec, as_float32(random_weights(spec)), deviations)


def test_statistics_of_a_step_with_the_papers_decay(backend, deviations):
    spec, weights = small("bottleneck", bn_decay=0.9), random_weights(small("bottleneck"))
    x, y = images(spec, 32, count=3), labels(spec, 3)
    model = backend.build(spec, dtype="float64")
    backend.import_weights(model, weights)
    backend.loss_and_gradients(model, x, y)
    after = backend.export_weights(model)
    variance = backend.RUNNING_VARIANCE
    expected = dm.reference.forward(spec, weights, x, training=True, variance=variance)
    for name, statistic in expected.statistics.items():
        value = deviation(after[name], statistic)
        deviations.check("statistics decay 0.9", backend.NAME, value, name)


def test_a_step_updates_statistics_and_nothing_else(backend):
    spec = small("bottleneck", drop_rate=0.2)
    model = backend.build(spec)
    before = backend.export_weights(model)
    backend.loss_and_gradients(model, images(spec, 32), labels(spec))
    after = backend.export_weights(model)
    for name, info in dm.tensors(spec).items():
        changed = not np.array_equal(before[name], after[name])
        assert changed == (info.role == "statistic"), name


def test_both_variance_conventions_convert_exactly_over_five_steps(backend):
    # r_unbiased - d^t r0 = n / (n - 1) * (r_biased - d^t r0), for constant n (docs/conventions.md)
    decay, steps = 0.875, 5
    spec = small("plain with bias", bn_decay=decay)
    weights = random_weights(spec)
    model = backend.build(spec, dtype="float64")
    backend.import_weights(model, weights)
    biased = weights
    for step in range(steps):
        x = images(spec, 32, count=3, seed=step)
        backend.loss_and_gradients(model, x, labels(spec, 3))
        biased = {**biased, **dm.reference.forward(spec, biased, x, training=True).statistics}
    after = backend.export_weights(model)
    sizes = dict(dm.shape_trace(spec, 32, 32))
    for layer, stage in [("norm5", "norm5"), ("denseblock2.denselayer1.norm1", "denseblock2")]:
        name = f"features.{layer}.running_var"
        n = 3 * sizes[stage][1] * sizes[stage][2]
        factor = n / (n - 1) if backend.RUNNING_VARIANCE == "unbiased" else 1
        kept = decay**steps * weights[name]
        expected = kept + factor * (biased[name] - kept)
        assert deviation(after[name], expected) < 1e-12


@pytest.mark.parametrize("name", ["bottleneck", "cubic"])
def test_gradients_equal_central_differences_of_the_reference(backend, deviations, name):
    spec = small(name)
    weights, x, y = random_weights(spec), images(spec, 32), labels(spec)
    model = backend.build(spec, dtype="float64")
    backend.import_weights(model, weights)
    _, gradients = backend.loss_and_gradients(model, x, y)
    rng = np.random.default_rng(4)
    for tensor, gradient in gradients.items():
        direction = rng.normal(size=gradient.shape)
        direction /= np.linalg.norm(direction)
        expected = difference_quotient(spec, weights, x, y, tensor, direction)
        value = abs(np.sum(gradient * direction) - expected) / gradient_scale(gradients)
        deviations.check("gradients differences", backend.NAME, value, tensor)


def test_a_bias_before_a_batch_norm_has_no_gradient(backend):
    # in the chapter's network, every convolution has a bias and is followed by a BatchNorm
    spec = small("plain with bias")
    model = backend.build(spec, dtype="float64")
    backend.import_weights(model, random_weights(spec))
    _, gradients = backend.loss_and_gradients(model, images(spec, 32), labels(spec))
    dead = [n for n, info in dm.tensors(spec).items() if info.kind == "conv.bias"]
    assert len(dead) == 6
    for name in dead:
        assert np.abs(gradients[name]).max() < 1e-13 * gradient_scale(gradients), name


def test_one_value_per_channel_has_no_unbiased_variance(backend):
    spec = small("plain with bias")
    model = backend.build(spec)
    before = backend.export_weights(model)
    x, y = images(spec, dm.min_image_size(spec), count=1), labels(spec, 1)
    if backend.RUNNING_VARIANCE == "biased":
        loss, _ = backend.loss_and_gradients(model, x, y)
        expected = dm.reference.forward(spec, before, x, training=True)
        assert deviation(loss, dm.reference.cross_entropy(expected.logits, y)) < 1e-5
        return
    with pytest.raises(dm.ImageError, match="more than one value per channel"):
        backend.loss_and_gradients(model, x, y)
    for name, array in backend.export_weights(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_the_loss_of_a_sure_answer_is_not_negative(backend):
    spec = small("plain", num_classes=1)
    loss, _ = backend.loss_and_gradients(backend.build(spec), images(spec, 32), labels(spec))
    assert loss == 0


def test_a_configuration_is_not_a_spec(backend):
    with pytest.raises(dm.ConfigError, match=r"spec: expected a DenseNetSpec.*get_spec\('d2l'\)"):
        backend.DenseNet(dm.VARIANTS["d2l"])


def test_batch_variances_keep_their_digits_far_from_zero(backend):
    # E[x^2] - E[x]^2 would lose them; a dense layer starts with its BatchNorm
    layer = native.make(backend.NAME, backend.DenseBlock, dm.dense_block(1, 3, growth_rate=4))
    # multiples of 1/64: in float32, 256 + x, its partial sums and its mean are exact
    x = np.random.default_rng(0).integers(0, 64, (4, 3, 8, 8)) / 64
    near, far = (native.call(backend.NAME, layer, x + c, training=True) for c in (0, 256))
    assert deviation(far[:, 3:], near[:, 3:]) < 1e-4


# --- Dropout and building blocks ----------------------------------------------------------------


def test_dropout_zeroes_a_layers_output_while_training_only(backend):
    rate = 0.3
    spec = small("bottleneck", growth_rate=16)
    plain = backend.build(spec)
    dropping = backend.build(replace(spec.config, drop_rate=rate).resolve())
    x = np.random.default_rng(0).normal(size=(8, 8, 16, 16))

    def run(model, *, training):
        layer = model.features.denseblock1.denselayer1
        return native.call(backend.NAME, layer, x, training=training)

    np.testing.assert_array_equal(run(dropping, training=False), run(plain, training=False))
    full, dropped = run(plain, training=True), run(dropping, training=True)
    survived = dropped != 0
    np.testing.assert_allclose(dropped[survived], full[survived] / (1 - rate), rtol=1e-5, atol=1e-6)
    n = survived.size
    assert abs(survived.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / n)
    assert not np.array_equal(run(dropping, training=True), dropped)  # a new mask each time


def test_the_chapters_dense_block_and_transition(backend):
    x = np.random.default_rng(0).random((4, 3, 8, 8))
    block = native.make(backend.NAME, backend.DenseBlock, dm.dense_block(2, 3, growth_rate=10))
    y = native.call(backend.NAME, block, x)
    assert y.shape == (4, 23, 8, 8)
    np.testing.assert_array_equal(y[:, :3], x.astype(np.float32))  # old channels first
    transition = native.make(backend.NAME, backend.Transition, dm.transition(23, 10))
    assert native.call(backend.NAME, transition, y).shape == (4, 10, 4, 4)


# --- Bad input ----------------------------------------------------------------------------------


def test_bad_images_and_labels_are_refused_by_name(backend):
    spec = small("plain with bias")
    model = backend.build(spec)
    x, y = images(spec, 32), labels(spec)
    for bad, message in [
        (x[0], "images: expected shape"),
        (x.transpose(0, 2, 3, 1), "channels-last"),
        (x.repeat(3, axis=1), "images: expected shape"),
        (x[:0], "N at least 1"),
        (np.zeros((2, 1, 32, 32), np.uint8), "floating point"),
        (np.where(x > x.min(), x, np.nan), "expected finite pixels, found 1 "),
        (images(spec, 3), "too few"),
    ]:
        for use in (backend.predict, backend.features):
            with pytest.raises(ValueError, match=message):
                use(model, bad)
        with pytest.raises(ValueError, match=message):
            backend.loss_and_gradients(model, bad, y)
    for bad in (y[:1], y + 7, y - 10, y.astype(float), y[:, None]):
        with pytest.raises(dm.ImageError, match="labels"):
            backend.loss_and_gradients(model, x, bad)
    with pytest.raises(dm.ConfigError, match="dtype"):
        backend.build(spec, dtype="float16")
