"""The network for evaluation alone: a BatchNorm after a convolution becomes part of it.

In evaluation a BatchNorm multiplies each channel by a number and adds another. A convolution can do
both: its kernel is scaled, its bias shifted. That holds for ``norm0`` and every ``norm2``. The
others come after a concatenation, and a ReLU comes after them: they stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .spec import BatchNormSpec, DenseLayerSpec, DenseNetSpec, FoldedNormSpec
from .weights import Weights, check_weights, widest


def fold(
    spec: DenseNetSpec, weights: Mapping[str, npt.NDArray[np.floating]]
) -> tuple[DenseNetSpec, Weights]:
    """The spec and the weights of the network that evaluates to the same and has fewer BatchNorms.

    Arguments:
        spec: of a network as it is trained; one that is folded already comes back as it is.
        weights: {canonical name: array}, of one dtype; calculated in float64, rounded once.

    Raises ``WeightsError`` where the weights do not fit the spec.
    Source: B. Jacob et al., https://arxiv.org/abs/1712.05877, section 3.2, equation 14.
    """
    dtype = widest(weights)
    folded = dict(check_weights(spec, weights, dtype))
    for conv, norm, eps in _pairs(spec):
        scale, shift, mean, variance = (
            folded.pop(f"{norm}.{leaf}").astype(np.float64)
            for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        scale /= np.sqrt(variance + eps)
        kernel, bias = folded[f"{conv}.weight"], folded.get(f"{conv}.bias", 0.0)
        folded[f"{conv}.weight"] = (kernel * scale[:, None, None, None]).astype(dtype)
        folded[f"{conv}.bias"] = (shift + (bias - mean) * scale).astype(dtype)
    changed = _without(spec)
    return changed, check_weights(changed, folded, dtype)


def _pairs(spec: DenseNetSpec) -> list[tuple[str, str, float]]:
    """(convolution, the BatchNorm after it, that one's epsilon)."""
    pairs = [("features", "conv0", "norm0", spec.stem.norm0)]
    for block, _ in spec.stages:
        for layer in block.layers:
            name = f"features.{block.name}.{layer.name}"
            pairs.append((name, "conv1", "norm2", layer.norm2))
    return [
        (f"{name}.{conv}", f"{name}.{norm}", piece.eps)
        for name, conv, norm, piece in pairs
        if isinstance(piece, BatchNormSpec)
    ]


def _without(spec: DenseNetSpec) -> DenseNetSpec:
    """The spec with ``FoldedNormSpec`` in place of the BatchNorms of ``_pairs``."""
    stem = spec.stem
    if stem.norm0:
        norm0 = FoldedNormSpec(stem.norm0.num_features)
        stem = replace(stem, conv0=replace(stem.conv0, bias=True), norm0=norm0)
    stages = tuple(
        (replace(block, layers=tuple(map(_layer_without, block.layers))), transition)
        for block, transition in spec.stages
    )
    return replace(spec, stem=stem, stages=stages)


def _layer_without(layer: DenseLayerSpec) -> DenseLayerSpec:
    if not layer.norm2:
        return layer
    norm2 = FoldedNormSpec(layer.norm2.num_features)
    return replace(layer, conv1=replace(layer.conv1, bias=True), norm2=norm2)
