"""Fold each BatchNorm that follows a convolution into that convolution, for inference.

In inference, a BatchNorm multiplies each channel by one constant and adds another. The preceding
convolution can do both, with a scaled kernel and a shifted bias. This applies to ``norm0`` and
every ``norm2``. The other BatchNorms are kept: their input is a concatenation, or other layers read
it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from .manifest import layers
from .spec import BatchNormSpec, DenseLayerSpec, DenseNetSpec
from .weights import Weights, check_weights, widest


def fold(
    spec: DenseNetSpec, weights: Mapping[str, npt.NDArray[np.floating]]
) -> tuple[DenseNetSpec, Weights]:
    """Return the spec and weights of an equivalent network with norm0 and every norm2 folded.

    In place of a folded BatchNorm, the spec has None, and the preceding convolution has a bias.

    Arguments:
        spec: a trainable network; one that is already folded is returned unchanged.
        weights: {canonical name: array} of one dtype; folded in float64, then rounded once.

    Raises ``WeightsError`` if the weights do not fit the spec.
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
    changed = without_pairs(spec)
    return changed, check_weights(changed, folded, dtype)


def fill_folded(model: Any, identity: Callable[[], Any]) -> None:
    """Put an identity layer, made by ``identity()``, in place of each folded BatchNorm.

    Arguments:
        model: a backend's model, built from a folded spec; its attributes are set in place.
        identity: returns a new identity layer; called once for each folded BatchNorm.
    """
    present = {name for name, _ in layers(model.spec)}
    for name, _ in layers(model.spec.config.resolve()):
        if name not in present:
            parent, _, leaf = name.rpartition(".")
            setattr(attrgetter(parent)(model), leaf, identity())


def _pairs(spec: DenseNetSpec) -> list[tuple[str, str, float]]:
    """Return (convolution, the BatchNorm that follows it, its epsilon) for each pair to fold."""
    pairs = [("features", "conv0", "norm0", spec.stem.norm0)]
    for block, _ in spec.stages:
        for layer in block.layers:
            name = f"features.{block.name}.{layer.name}"
            pairs.append((name, "conv1", "norm2", layer.norm2))
    return [
        (f"{name}.{conv}", f"{name}.{norm}", layer.eps)
        for name, conv, norm, layer in pairs
        if isinstance(layer, BatchNormSpec)
    ]


def without_pairs(spec: DenseNetSpec) -> DenseNetSpec:
    """Return the specification of the network that ``fold`` returns."""
    stem = spec.stem
    if stem.norm0:
        stem = replace(stem, conv0=replace(stem.conv0, bias=True), norm0=None)
    stages = tuple(
        (replace(block, layers=tuple(map(_layer_without, block.layers))), transition)
        for block, transition in spec.stages
    )
    return replace(spec, stem=stem, stages=stages)


def _layer_without(layer: DenseLayerSpec) -> DenseLayerSpec:
    if not layer.norm2:
        return layer
    return replace(layer, conv1=replace(layer.conv1, bias=True), norm2=None)
