"""A stem for another number of channels: gray images, once prepared, keep their logits."""

from dataclasses import replace

import numpy as np
import pytest

import densenet_multi as dm
from cases import as_float32, random_weights, small
from densenet_multi import formats
from densenet_multi.checkpoint import IMAGENET
from densenet_multi.data import Preparation
from densenet_multi.reference import forward

STEMS = ("bottleneck", "plain", "plain with bias", "cubic")  # conv0 with and without bias and norm0
EQUAL_MEANS = dm.Usage(value_range=(0, 255), mean=(120, 120, 120), std=(50, 60, 70))


def checkpoint(kind="bottleneck", usage=None, channels=3):
    spec = small(kind, in_channels=channels)
    return dm.Checkpoint(spec, random_weights(spec), usage or dm.Usage())


def pixels(channels, size=48):
    shape = (2, channels, size, size)
    return np.random.default_rng(5).random(shape, np.float32)


def answers(found, images, size=48):
    """Run the network on images (1 or 3 channels, from 0 to 1), prepared by its usage."""
    prepare = Preparation(size, found.spec.config.in_channels, found.usage)
    return forward(found.spec, found.weights, prepare(images))


def deviation(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("usage", [dm.Usage(), EQUAL_MEANS], ids=["unprepared", "equal means"])
@pytest.mark.parametrize("kind", STEMS)
@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_a_gray_image_gets_the_answer_that_its_three_equal_channels_had(kind, usage, channels):
    gray, before = pixels(1), checkpoint(kind, usage)
    after = formats.with_channels(before, channels)
    assert after.spec == small(kind, in_channels=channels)
    expected = answers(before, gray).logits
    assert deviation(answers(after, gray).logits, expected) < 1e-6
    assert "a gray image keeps its logits" in after.notes[-1]
    assert "border" not in after.notes[-1]


def test_kernels_of_images_without_preparation_are_summed():
    before = checkpoint()
    after = formats.with_channels(before, 1)
    kernels = before.weights["features.conv0.weight"].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after.weights["features.conv0.weight"], kernels, rtol=1e-12)
    for name, array in before.weights.items():
        if name != "features.conv0.weight":
            np.testing.assert_array_equal(after.weights[name], array)


@pytest.mark.parametrize("kind", STEMS)
def test_means_that_differ_change_the_answer_at_the_border_only(kind):
    gray, before = pixels(1, 64), checkpoint(kind, IMAGENET)
    after = formats.with_channels(before, 1)
    assert after.usage.mean == pytest.approx((np.mean(IMAGENET.mean),))
    assert after.usage.std == pytest.approx((np.mean(IMAGENET.std),))
    assert "border" in after.notes[-1]
    old, new = answers(before, gray, 64), answers(after, gray, 64)
    first = next(name for name in old.stages if name != "stem")
    a = before.spec.stages[0][0].in_channels  # the first maps in the block are the stem's
    b = slice(6, -6)  # away from the border
    expected, actual = old.stages[first], new.stages[first]
    if before.spec.stem.norm0:  # without norm0, the norms that read the stem's maps compensate
        expected_stem, actual_stem = (found.stages["stem"][..., b, b] for found in (old, new))
        assert deviation(actual_stem, expected_stem) < 1e-6
    assert deviation(actual[:, a:, b, b], expected[:, a:, b, b]) < 1e-6
    assert deviation(actual[:, a:], expected[:, a:]) > 1e-6
    assert deviation(new.logits, old.logits) < 0.02


def test_a_new_color_stem_gives_a_color_image_the_answer_of_its_gray_version():
    usage = dm.Usage(value_range=(-1, 1), mean=(0.2,), std=(0.4,))
    before, color = checkpoint(usage=usage, channels=1), pixels(3)
    after = formats.with_channels(before, 3)
    assert (after.usage.mean, after.usage.std) == ((0.2,) * 3, (0.4,) * 3)
    assert deviation(answers(after, color).logits, answers(before, color).logits) < 1e-6


def test_more_channels_are_prepared_as_those_that_they_repeat():
    usage = dm.Usage(mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    after = formats.with_channels(checkpoint(usage=usage), 5)
    assert after.usage.mean == (0.1, 0.2, 0.3, 0.1, 0.2)
    kernels, old = (c.weights["features.conv0.weight"] for c in (after, checkpoint()))
    for channel, share in enumerate([1 / 2, 1 / 2, 1, 1 / 2, 1 / 2]):
        np.testing.assert_allclose(kernels[:, channel], share * old[:, channel % 3])


def test_the_same_number_of_channels_changes_nothing():
    before = checkpoint()
    assert formats.with_channels(before, 3) is before


def test_the_dtype_stays_and_so_does_what_is_assumed():
    before = checkpoint(usage=replace(IMAGENET, assumed=("mean", "std", "image_size")))
    before = replace(before, weights=as_float32(before.weights))
    after = formats.with_channels(before, 1)
    assert {array.dtype for array in after.weights.values()} == {np.dtype("float32")}
    assert after.usage.assumed == ("mean", "std", "image_size")


@pytest.mark.parametrize("channels", [0, -1, 1.5, "1"])
def test_what_is_no_count_is_refused(channels):
    with pytest.raises(dm.ConfigError, match="in_channels: expected an integer from 1 to 4,096"):
        formats.with_channels(checkpoint(), channels)
