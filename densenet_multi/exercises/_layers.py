"""Layers with weights, one by one: what each has in parameters and costs in multiply-adds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..manifest import LayerSpec, profile, size_after
from ..manifest import layers as with_names
from ..spec import BatchNormSpec, ConvSpec, DenseNetSpec

KINDS = ("1x1", "3x3", "7x7", "BatchNorm", "linear")
STAGES = ("stem", "stage 1", "stage 2", "stage 3", "stage 4", "classifier")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a network for one image.

    Attributes:
        name: its canonical name, or torchvision's for a ResNet.
        stage: one of ``STAGES``. A transition belongs to the stage that it ends.
        kind: one of ``KINDS``.
        parameters: trainable ones.
        multiply_adds: of a convolution or a linear layer, taps on zero padding included.
    """

    name: str
    stage: str
    kind: str
    parameters: int
    multiply_adds: int


def layer(name: str, stage: str, spec: LayerSpec, area: int) -> Layer:
    """Count one layer; ``area`` is the number of pixels that it writes."""
    if isinstance(spec, ConvSpec):
        weights = spec.out_channels * spec.in_channels * spec.kernel_size**2
        biases = spec.out_channels if spec.bias else 0
        kind = f"{spec.kernel_size}x{spec.kernel_size}"
        return Layer(name, stage, kind, weights + biases, weights * area)
    if isinstance(spec, BatchNormSpec):
        return Layer(name, stage, "BatchNorm", 2 * spec.num_features, 0)
    weights = spec.out_features * spec.in_features
    return Layer(name, stage, "linear", weights + spec.out_features, weights)


def with_growth_rate(rate: int) -> dict[str, int]:
    """Return what a growth rate k changes in a configuration: the paper's stem has 2k channels."""
    return {"growth_rate": rate, "num_init_features": 2 * rate}


def layers_of(spec: DenseNetSpec, image_size: int) -> Iterator[Layer]:
    """Yield every layer of a DenseNet, in the paper's order of operations.

    Raises ``ImageSizeError`` for an image that is too small.
    """
    areas = {each.name: math.prod(each.shape[1:]) for each in profile(spec, image_size, image_size)}
    areas["stem"] = size_after(spec.stem.conv0, image_size) ** 2
    for name, each in with_names(spec):
        stage, area = _place(name, areas)
        yield layer(name, stage, each, area)


def _place(name: str, areas: dict[str, int]) -> tuple[str, int]:
    """The stage of a canonical name, and the area of a convolution there."""
    part = name.split(".")[1] if "." in name else name
    for word in ("denseblock", "transition"):
        if part.startswith(word):  # a transition convolves before it pools
            number = part.removeprefix(word)
            return f"stage {number}", areas[f"denseblock{number}"]
    if part == "norm5":
        blocks = sum(each.startswith("denseblock") for each in areas)
        return f"stage {blocks}", 0
    return ("classifier", 1) if part == "classifier" else ("stem", areas["stem"])


def summed(layers: Iterable[Layer], by: str) -> dict[str, dict[str, int]]:
    """Return {group: {"parameters": …, "multiply_adds": …}} for the field ``by`` of the layers."""
    parameters: Counter[str] = Counter()
    work: Counter[str] = Counter()
    for each in layers:
        group = getattr(each, by)
        parameters[group] += each.parameters
        work[group] += each.multiply_adds
    return {
        group: {"parameters": parameters[group], "multiply_adds": work[group]}
        for group in parameters
    }
