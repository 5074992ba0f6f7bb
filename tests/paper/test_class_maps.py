"""A class activation map adds up to the logit; tests/backends has the same for each backend."""

import math

import numpy as np
import pytest

import densenet_multi as dm
from cases import images, random_weights, small


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize("name", ["bottleneck", "cubic", "plain with bias"])
def test_the_mean_of_a_class_activation_map_and_the_bias_are_the_logit(name):
    spec = small(name)
    weights, x = random_weights(spec), images(spec, 47, 66)
    forward = dm.reference.forward(spec, weights, x)
    for c, bias in enumerate(weights["classifier.bias"]):
        places = dm.class_activation_map(spec, weights, forward.stages, c)
        assert places.shape == (2, *forward.stages["norm5"].shape[2:])
        actual = places.mean(axis=(1, 2)) + bias
        np.testing.assert_allclose(actual, forward.logits[:, c], rtol=0, atol=1e-12)


def test_a_class_activation_map_weights_the_rectified_channels_of_each_place():
    spec = small("cubic")
    weights = random_weights(spec)
    last = values(2, spec.classifier.in_features, 3, 5)
    actual = dm.class_activation_map(spec, weights, {"norm5": last.astype(np.float32)}, 1)
    for n, i, j in np.ndindex(2, 3, 5):
        rectified = [max(0.0, np.float32(value)) for value in last[n, :, i, j]]
        terms = zip(weights["classifier.weight"][1], rectified, strict=True)
        assert actual[n, i, j] == pytest.approx(math.fsum(w * f for w, f in terms), abs=1e-13)


def test_a_class_activation_map_is_refused_where_it_would_not_be_exact():
    spec = small("cubic")
    weights = random_weights(spec)
    last = values(1, spec.classifier.in_features, 2, 2)

    def refused(error, message, spec=spec, maps=last, c=0, stage="norm5"):
        with pytest.raises(error, match=message):
            dm.class_activation_map(spec, weights, {stage: maps}, c)

    refused(dm.ConfigError, "class_index: expected an integer from 0 to 2; found 3", c=3)
    maximum = small("cubic", global_pool="max")
    refused(dm.ConfigError, "expected a classifier of the average .*; found global_pool", maximum)
    headless = small("cubic", num_classes=0)
    refused(dm.ConfigError, r"found no classifier \(num_classes=0\)", headless)
    refused(dm.ImageError, r"features: expected \{'norm5': map\}, found \['stem'\]", stage="stem")
    for maps in (last[:, 1:], last[:0]):
        refused(dm.ImageError, r"features\['norm5'\]: expected shape \(N, \d+, H, W\)", maps=maps)
    refused(dm.ImageError, r"features\['norm5'\]: expected floating point", maps=last[0])
    refused(dm.WeightsError, "classifier.weight: expected", small("cubic", num_classes=4), c=3)
