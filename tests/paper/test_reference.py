"""The reference computes what the paper says: every operation against loops over pixels.

The loops here are written from the definitions and share nothing with reference.py.
"""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import densenet_multi as dm
from cases import SMALL, images, random_weights, small
from densenet_multi import reference
from densenet_multi.spec import PoolSpec
from strategies import small_configs

EXACT = {"rtol": 1e-13, "atol": 1e-13}  # the same sums in another order


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# --- Each operation against its definition ------------------------------------------------------


def looped_windows(x, kernel_size, stride, padding, border):
    """{(n, c, row, column): the values under that window}, read pixel by pixel."""
    count, channels, height, width = x.shape
    found = {}
    for row, top in enumerate(range(-padding, height + padding - kernel_size + 1, stride)):
        for column, left in enumerate(range(-padding, width + padding - kernel_size + 1, stride)):
            for n, c in itertools.product(range(count), range(channels)):
                found[n, c, row, column] = [
                    x[n, c, i, j] if 0 <= i < height and 0 <= j < width else border
                    for i in range(top, top + kernel_size)
                    for j in range(left, left + kernel_size)
                ]
    return found


def looped_convolution(x, kernel, stride, padding):
    windows = looped_windows(x, kernel.shape[2], stride, padding, border=0.0)
    rows = 1 + max(row for _, _, row, _ in windows)
    columns = 1 + max(column for _, _, _, column in windows)
    y = np.zeros((len(x), len(kernel), rows, columns))
    for n, c, row, column in windows:
        for o in range(len(kernel)):
            values = windows[n, c, row, column]
            taps = kernel[o, c].ravel()
            y[n, o, row, column] += sum(v * t for v, t in zip(values, taps, strict=True))
    return y


def looped_pool(x, pool, summary, border):
    windows = looped_windows(x, pool.kernel_size, pool.stride, pool.padding, border)
    y = np.zeros(tuple(1 + max(index) for index in zip(*windows, strict=True)))
    for index, values in windows.items():
        y[index] = summary(values)
    return y


sides = st.integers(3, 7)
counts = st.integers(1, 3)


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_a_convolution_is_the_sum_of_pixels_times_taps(data):
    n, c, o, h, w, k = data.draw(st.tuples(counts, counts, counts, sides, sides, counts))
    stride, padding = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 2))
    x, kernel = pixels(n, c, h, w), pixels(o, c, k, k, seed=1)
    actual = reference.convolve(x, kernel, stride, padding)
    np.testing.assert_allclose(actual, looped_convolution(x, kernel, stride, padding), **EXACT)


def test_a_convolution_does_not_flip_its_kernel():
    kernel = np.zeros((1, 1, 3, 3))
    kernel[0, 0, 0, 0] = 1.0  # reads the pixel above and to the left
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    shifted = [[0, 0, 0, 0], [0, 0, 1, 2], [0, 4, 5, 6], [0, 8, 9, 10]]
    np.testing.assert_array_equal(reference.convolve(x, kernel, 1, 1)[0, 0], shifted)


@pytest.mark.parametrize("size", [6, 7, 8, 9])
def test_the_stems_convolution_starts_three_pixels_outside_the_image(size):
    """SAME padding would start two pixels outside an image of even size."""
    x = pixels(1, 1, size, size)
    kernel = np.zeros((1, 1, 7, 7))
    kernel[0, 0, 3, 3] = 1.0  # the center of the kernel reads pixels 0, 2, 4, ...
    np.testing.assert_array_equal(reference.convolve(x, kernel, 2, 3), x[:, :, ::2, ::2])


@given(counts, counts, sides, sides, st.sampled_from([(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 1, 0)]))
@settings(deadline=None, max_examples=40)
def test_pooling_summarises_each_window(n, c, h, w, window):
    pool, x = PoolSpec(*window), pixels(n, c, h, w)
    expected = looped_pool(x, pool, max, border=-math.inf)
    np.testing.assert_array_equal(reference.max_pool(pool, x), expected)
    if pool.padding == 0:
        mean = looped_pool(x, pool, lambda values: sum(values) / len(values), border=None)
        np.testing.assert_allclose(reference.average_pool(pool, x), mean, **EXACT)


def test_the_border_of_max_pooling_is_minus_infinity_not_zero():
    x = np.full((1, 1, 4, 4), -5.0)
    pooled = reference.max_pool(PoolSpec(3, 2, 1), x)
    np.testing.assert_array_equal(pooled, np.full((1, 1, 2, 2), -5))


def test_average_pooling_drops_an_odd_last_row_and_column():
    x = pixels(2, 3, 5, 7)
    pool = PoolSpec(kernel_size=2, stride=2)
    np.testing.assert_array_equal(
        reference.average_pool(pool, x), reference.average_pool(pool, x[:, :, :4, :6])
    )
    assert reference.average_pool(pool, x).shape == (2, 3, 2, 3)


def test_a_transition_pools_after_its_convolution_which_matters_for_the_maximum_alone():
    spec = small("cubic")
    assert spec.stages[0][1].pool_kind == "max"
    weights, x = random_weights(spec), images(spec, 9, 7)
    stages = reference.forward(spec, weights, x).stages
    name = "features.transition1"
    block = stages["denseblock1"]
    mean, var, gamma, beta = (
        weights[f"{name}.norm.{leaf}"][:, None, None]
        for leaf in ("running_mean", "running_var", "weight", "bias")
    )
    y = np.maximum((block - mean) / np.sqrt(var + spec.config.bn_eps) * gamma + beta, 0)
    y = np.einsum("oc,nchw->nohw", weights[f"{name}.conv.weight"][:, :, 0, 0], y)
    y = y + weights[f"{name}.conv.bias"][:, None, None]
    corners = [y[:, :, i:8:2, j:6:2] for i in (0, 1) for j in (0, 1)]
    np.testing.assert_allclose(stages["transition1"], np.max(corners, axis=0), **EXACT)
    averaged = replace(spec.config, transition_pool="avg").resolve()
    means = reference.forward(averaged, weights, x).stages["transition1"]
    np.testing.assert_allclose(means, np.mean(corners, axis=0), **EXACT)


@pytest.mark.parametrize(("kind", "summary"), [("avg", np.mean), ("max", np.max)])
def test_the_last_map_is_pooled_by_averages_or_by_the_maximum(kind, summary):
    spec = small("plain", global_pool=kind, num_classes=0)
    weights, x = random_weights(spec), images(spec, 8)
    found = reference.forward(spec, weights, x)
    pixels = np.maximum(found.stages["norm5"], 0).reshape(*found.logits.shape, -1)
    np.testing.assert_allclose(found.logits, summary(pixels, axis=2), **EXACT)


def test_relu_replaces_what_is_negative_by_zero_and_nothing_else():
    x = np.array([[[[-2.0, -0.0, 0.0, 3.5]]]])
    np.testing.assert_array_equal(reference.relu(x), [[[[0, 0, 0, 3.5]]]])


def test_batch_norm_in_evaluation_divides_by_the_root_of_the_running_variance_and_epsilon():
    spec = small("bottleneck", bn_eps=0.25)
    weights = random_weights(spec)
    x = images(spec, 32)
    stages = reference.forward(spec, weights, x).stages
    # the last block's output is the input of norm5
    y = np.empty_like(stages["denseblock3"])
    for n, c, i, j in np.ndindex(y.shape):
        mean = weights["features.norm5.running_mean"][c]
        variance = weights["features.norm5.running_var"][c]
        standard = (stages["denseblock3"][n, c, i, j] - mean) / math.sqrt(variance + 0.25)
        y[n, c, i, j] = (
            weights["features.norm5.weight"][c] * standard + weights["features.norm5.bias"][c]
        )
    np.testing.assert_allclose(stages["norm5"], y, **EXACT)


def test_batch_norm_in_training_uses_the_batch_alone():
    """Standardized over images and pixels, whatever the running statistics were."""
    spec = small("bottleneck", bn_eps=1e-12)
    weights = random_weights(spec)
    y = reference.forward(spec, weights, images(spec, 32), training=True).stages["norm5"]
    shift, scale = weights["features.norm5.bias"], np.abs(weights["features.norm5.weight"])
    np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), shift, rtol=1e-6)
    np.testing.assert_allclose(y.std(axis=(0, 2, 3)), scale, rtol=1e-6)
    other = {n: np.full_like(a, 7.0) if "running" in n else a for n, a in weights.items()}
    again = reference.forward(spec, other, images(spec, 32), training=True).stages["norm5"]
    np.testing.assert_array_equal(again, y)


# --- Running statistics -------------------------------------------------------------------------


def one_step(spec, weights, x, variance="biased"):
    """Weights after a training pass, which changes only the running statistics."""
    passed = reference.forward(spec, weights, x, training=True, variance=variance)
    return weights | passed.statistics


def stem_batch(spec, weights, x):
    """The input of the network's first BatchNorm."""
    bias = weights.get("features.conv0.bias", np.zeros(spec.config.num_init_features))
    y = looped_convolution(x, weights["features.conv0.weight"], 2, 3)
    return y + bias[:, None, None]


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_decay_is_the_fraction_of_the_old_statistics_that_is_kept(decay):
    spec = small("plain with bias", bn_decay=decay)
    weights, x = random_weights(spec), images(spec, 29)
    after = one_step(spec, weights, x)
    batch = stem_batch(spec, weights, x)
    for leaf, batch_value in [
        ("running_mean", batch.mean(axis=(0, 2, 3))),
        ("running_var", batch.var(axis=(0, 2, 3))),
    ]:
        name = f"features.norm0.{leaf}"
        expected = decay * weights[name] + (1 - decay) * batch_value
        np.testing.assert_allclose(after[name], expected, **EXACT)


def test_the_running_variance_is_biased_or_unbiased_as_asked():
    spec = small("plain with bias", bn_decay=0.0)
    weights, x = random_weights(spec), images(spec, 29)
    batch = stem_batch(spec, weights, x)
    for variance, ddof in [("biased", 0), ("unbiased", 1)]:
        after = one_step(spec, weights, x, variance)["features.norm0.running_var"]
        expected = [np.var(batch[:, c], ddof=ddof) for c in range(batch.shape[1])]
        np.testing.assert_allclose(after, expected, **EXACT)


def test_the_two_running_variances_convert_into_each_other_exactly():
    """r_unbiased - d^t r0 = n/(n-1) (r_biased - d^t r0), for every layer, after each of 5 steps."""
    spec = small("bottleneck", bn_decay=0.9)
    start = random_weights(spec)
    runs = {"biased": start, "unbiased": start}
    count, side = 3, 32
    area = {stage: h * w for stage, (_, h, w) in dm.shape_trace(spec, side, side)}
    area["norm0"] = 16 * 16  # before the stem's pooling
    area["transition1"], area["transition2"] = area["denseblock1"], area["denseblock2"]
    names = [name for name in dm.tensors(spec) if name.endswith("running_var")]
    for t in range(1, 6):
        x = images(spec, side, count=count, seed=t)
        for variance, weights in runs.items():
            runs[variance] = one_step(spec, weights, x, variance)
        for name in names:
            n = count * area[name.split(".")[1]]
            old = 0.9**t * start[name]
            biased, unbiased = runs["biased"][name], runs["unbiased"][name]
            expected = n / (n - 1) * (biased - old)
            np.testing.assert_allclose(unbiased - old, expected, rtol=1e-12, atol=1e-14)
            assert not np.allclose(unbiased, biased, rtol=1e-5)


def test_a_training_pass_reports_every_running_statistic_and_an_evaluation_none():
    spec = small("bottleneck")
    weights, x = random_weights(spec), images(spec, 32)
    statistics = {n for n, info in dm.tensors(spec).items() if info.role == "statistic"}
    assert reference.forward(spec, weights, x, training=True).statistics.keys() == statistics
    assert reference.forward(spec, weights, x).statistics == {}


@pytest.mark.parametrize("training", [False, True])
def test_the_weights_and_images_that_were_given_are_left_as_they_were(training):
    spec = small("bottleneck")
    weights, x = random_weights(spec), images(spec, 32)
    reference.forward(spec, weights, x, training=training)
    np.testing.assert_equal(weights, random_weights(spec))
    np.testing.assert_array_equal(x, images(spec, 32))


def test_a_training_pass_over_a_single_value_per_channel_has_no_unbiased_variance():
    spec = small("plain", block_config=(1,))
    x = images(spec, 1, count=1)
    assert np.isfinite(reference.forward(spec, random_weights(spec), x, training=True).logits).all()
    with pytest.raises(ValueError, match="unbiased"):
        one_step(spec, random_weights(spec), x, "unbiased")


# --- The network --------------------------------------------------------------------------------


@given(small_configs(), st.integers(0, 3), st.integers(0, 3), st.booleans())
@settings(deadline=None, max_examples=25)
def test_stages_have_the_shapes_of_the_trace_and_its_order(config, more_h, more_w, training):
    spec = config.resolve()
    height, width = dm.min_image_size(spec) + more_h, dm.min_image_size(spec) + more_w
    x = images(spec, height, width, count=2)
    passed = reference.forward(spec, random_weights(spec), x, training=training)
    shapes = [(stage, y.shape[1:]) for stage, y in passed.stages.items()]
    assert shapes == dm.shape_trace(spec, height, width)
    assert passed.logits.shape == (2, config.num_classes)


@pytest.mark.parametrize("name", SMALL)
def test_a_dense_block_passes_its_input_on_unchanged_in_its_first_channels(name):
    spec = small(name)
    stages = reference.forward(spec, random_weights(spec), images(spec, 32)).stages
    source = "stem"
    for block, transition in spec.stages:
        old = stages[source]
        np.testing.assert_array_equal(stages[block.name][:, : old.shape[1]], old)
        source = transition.name if transition else source


def looped_network(spec, w, x):
    """The logits of the complete bottleneck net in evaluation mode, from the loops above."""

    def norm_relu(name, x):
        def leaf(leaf):
            return w[f"{name}.{leaf}"][:, None, None]

        scale = leaf("weight") / np.sqrt(leaf("running_var") + spec.config.bn_eps)
        return np.where((y := (x - leaf("running_mean")) * scale + leaf("bias")) > 0, y, 0)

    def conv(name, x, stride=1, padding=0):
        return looped_convolution(x, w[f"{name}.weight"], stride, padding)

    def layer(name, x):
        inner = conv(f"{name}.conv1", norm_relu(f"{name}.norm1", x))
        return conv(f"{name}.conv2", norm_relu(f"{name}.norm2", inner), padding=1)

    f = "features"
    x = norm_relu(f"{f}.norm0", conv(f"{f}.conv0", x, stride=2, padding=3))
    x = looped_pool(x, PoolSpec(3, 2, 1), max, border=-math.inf)
    x = np.concatenate([x, layer(f"{f}.denseblock1.denselayer1", x)], axis=1)
    x = conv(f"{f}.transition1.conv", norm_relu(f"{f}.transition1.norm", x))
    x = looped_pool(x, PoolSpec(2, 2), np.mean, border=None)
    x = np.concatenate([x, layer(f"{f}.denseblock2.denselayer1", x)], axis=1)
    x = np.concatenate([x, layer(f"{f}.denseblock2.denselayer2", x)], axis=1)
    pooled = norm_relu(f"{f}.norm5", x).mean(axis=(2, 3))
    return pooled @ w["classifier.weight"].T + w["classifier.bias"]


@pytest.mark.parametrize(("height", "width"), [(24, 24), (27, 30)])
def test_the_network_is_the_papers_written_out(height, width):
    spec = small("bottleneck", block_config=(1, 2))
    weights, x = random_weights(spec), images(spec, height, width, count=1)
    expected = looped_network(spec, weights, x)
    np.testing.assert_allclose(dm.reference.predict(spec, weights, x), expected, rtol=1e-12)


def test_logits_are_float64_whatever_goes_in():
    spec = small("plain")
    for dtype in ("float16", "float32", "float64"):
        weights = {n: a.astype("float32") for n, a in random_weights(spec).items()}
        logits = dm.reference.predict(spec, weights, images(spec, 8).astype(dtype))
        assert logits.dtype == np.float64
        assert logits.shape == (2, 5)


def test_float32_input_is_widened_before_anything_is_calculated():
    spec = small("plain")
    weights = {n: a.astype("float32") for n, a in random_weights(spec).items()}
    x = images(spec, 8).astype("float32")
    wide = {n: a.astype("float64") for n, a in weights.items()}
    expected = dm.reference.predict(spec, wide, x.astype("float64"))
    np.testing.assert_array_equal(dm.reference.predict(spec, weights, x), expected)


def test_images_of_a_batch_do_not_see_each_other_in_evaluation():
    spec = small("bottleneck")
    weights, x = random_weights(spec), images(spec, 32, count=3)
    together = dm.reference.predict(spec, weights, x)
    alone = [dm.reference.predict(spec, weights, x[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(together, alone, **EXACT)


def test_without_a_classifier_the_pooled_features_come_out():
    spec = small("bottleneck")
    headless = replace(spec.config, num_classes=0).resolve()
    weights, x = random_weights(spec), images(spec, 32)
    body = {n: a for n, a in weights.items() if not n.startswith("classifier")}
    pooled = dm.reference.predict(headless, body, x)
    assert pooled.shape == (2, spec.norm5.num_features)
    assert (pooled >= 0).all()
    logits = pooled @ weights["classifier.weight"].T + weights["classifier.bias"]
    np.testing.assert_allclose(dm.reference.predict(spec, weights, x), logits, **EXACT)


# --- What is refused ----------------------------------------------------------------------------


def test_dropout_is_refused_in_training_and_ignored_in_evaluation():
    with_dropout, without = small("plain", drop_rate=0.2), small("plain")
    weights, x = random_weights(without), images(without, 8)
    with pytest.raises(ValueError, match=r"expected drop_rate 0 in training, found 0\.2"):
        reference.forward(with_dropout, weights, x, training=True)
    np.testing.assert_array_equal(
        dm.reference.predict(with_dropout, weights, x), dm.reference.predict(without, weights, x)
    )


def test_an_unknown_variance_is_refused_with_the_two_known():
    spec = small("plain")
    with pytest.raises(ValueError, match="expected 'biased' or 'unbiased'; found 'population'"):
        reference.forward(spec, random_weights(spec), images(spec, 8), variance="population")


def test_images_and_weights_that_do_not_fit_are_refused():
    spec = small("plain")
    weights, x = random_weights(spec), images(spec, 8)
    with pytest.raises(dm.ImageError, match="images: expected shape"):
        dm.reference.predict(spec, weights, x[0])
    with pytest.raises(dm.ImageSizeError, match="1x1 pixels are too few"):
        dm.reference.predict(spec, weights, x[:, :, :1, :1])
    with pytest.raises(dm.WeightsError, match=r"classifier\.bias: missing"):
        dm.reference.predict(spec, {n: a for n, a in weights.items() if n != "classifier.bias"}, x)


# --- Cross entropy ------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_cross_entropy_is_the_mean_of_minus_the_logarithms_of_the_labels_probabilities(n, k, seed):
    logits = pixels(n, k, seed=seed)
    y = np.random.default_rng(seed).integers(0, k, n)
    losses = []
    for row, label in zip(logits, y, strict=True):
        total = sum(math.exp(score) for score in row)
        losses.append(-math.log(math.exp(row[label]) / total))
    mean = sum(losses) / n
    assert reference.cross_entropy(logits, y) == pytest.approx(mean, rel=1e-12, abs=1e-15)


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_the_number_of_classes():
    assert reference.cross_entropy(np.zeros((3, 10)), [0, 4, 9]) == pytest.approx(math.log(10))


def test_cross_entropy_of_huge_logits_is_finite_and_exact():
    logits = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])
    assert reference.cross_entropy(logits, [0, 1]) == 0.0
    assert reference.cross_entropy(logits, [1, 0]) == 2e4


def test_cross_entropy_refuses_labels_and_logits_that_do_not_fit():
    with pytest.raises(dm.ImageError, match="labels: expected values from 0 to 2, found 0 to 3"):
        reference.cross_entropy(np.zeros((2, 3)), [0, 3])
    with pytest.raises(dm.ImageError, match="labels: expected 2 integers"):
        reference.cross_entropy(np.zeros((2, 3)), [0])
    for logits in (np.zeros(3), np.zeros((2, 3, 4))):
        with pytest.raises(ValueError, match="logits"):
            reference.cross_entropy(logits, [0, 1])
    with pytest.raises(dm.ImageError, match=r"logits: expected .* N at least 1, found"):
        reference.cross_entropy(np.zeros((0, 3)), np.zeros(0, int))
