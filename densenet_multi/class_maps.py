"""Where a network sees a class: exact class activation maps, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ._checks import ConfigError, integer
from ._inputs import check_map
from .spec import DenseNetSpec, LinearSpec, check_spec
from .weights import check_weights


def class_activation_map(
    spec: DenseNetSpec,
    weights: Mapping[str, npt.NDArray[np.generic]],
    features: Mapping[str, npt.NDArray[np.floating]],
    class_index: int,
) -> npt.NDArray[np.float64]:
    """Return how much each place of the last map adds to the logit of a class, (N, H, W), float64.

    The head averages the last map, rectified, over its pixels; then a linear layer computes the
    logits. Both are linear, so their order does not matter: the map of class c is the sum over the
    channels k of ``classifier.weight[c, k] * relu(norm5)[k]``. It is exact: its mean plus the
    class's bias is the logit.

    Arguments:
        spec: the network's specification, with a classifier and ``global_pool`` ``"avg"``.
        weights: the network's weights, {canonical name: array}.
        features: {stage: map}, what a backend's ``features`` or ``Forward.stages`` contains; only
            ``"norm5"`` is used, which is the last map before its ReLU, (N, C, H, W).
        class_index: the class c, from 0.

    Raises ``ConfigError`` for another network or class, ``ImageError`` or ``WeightsError`` if maps
    or weights do not fit the spec. Source: https://arxiv.org/abs/1512.04150, equation 2.

    >>> spec = dm.get_spec("d2l", block_config=(1, 1))
    >>> weights = dm.init_weights(spec)
    >>> forward = dm.reference.forward(spec, weights, np.ones((2, 1, 64, 64)))
    >>> found = dm.class_activation_map(spec, weights, forward.stages, class_index=3)
    >>> found.shape
    (2, 8, 8)
    >>> bias = weights["classifier.bias"][3]
    >>> np.allclose(found.mean(axis=(1, 2)) + bias, forward.logits[:, 3])
    True
    """
    linear = check_averaging(spec)
    index = integer("class_index", class_index, 0, linear.out_features - 1)
    last = np.asarray(check_map(features, "norm5", linear.in_features), np.float64)
    of_class = check_weights(spec, weights)["classifier.weight"][index]
    places: npt.NDArray[np.float64] = np.tensordot(of_class, np.maximum(last, 0), axes=(0, 1))
    return places


def check_averaging(spec: DenseNetSpec) -> LinearSpec:
    """Return the classifier, whose input is an average. Raises ``ConfigError`` for other heads."""
    linear = check_spec(spec).classifier
    if linear and spec.global_pool == "avg":
        return linear
    found = f"global_pool={spec.global_pool!r}" if linear else "no classifier (num_classes=0)"
    raise ConfigError(
        "spec: expected a classifier of the average of the last map, for an exact class activation "
        f"map; found {found}"
    )
