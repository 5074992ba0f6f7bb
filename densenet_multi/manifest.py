"""What follows from a spec: every tensor's name and shape, the size of every stage, every count.

Names and layouts are torchvision's (``features.conv0.weight``, convolutions as (out, in, height,
width), linear layers as (out, in)); see docs/conventions.md. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ._checks import LARGEST_COUNT, ConfigError, integer
from .spec import (
    BatchNormSpec,
    ConvSpec,
    DenseBlockSpec,
    DenseLayerSpec,
    DenseNetSpec,
    LinearSpec,
    PoolSpec,
    StemSpec,
    TransitionSpec,
    check_spec,
)

LayerSpec = ConvSpec | BatchNormSpec | LinearSpec
Group = StemSpec | DenseBlockSpec | TransitionSpec | DenseLayerSpec


class ImageSizeError(ConfigError):
    """An image is too small for the network; the message names the stage without pixels."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: its canonical ``shape``; its ``role``, ``"trainable"`` or ``"statistic"``; and
    its ``kind``, the layer it belongs to and what it is there, such as ``"conv.weight"``."""

    shape: tuple[int, ...]
    role: str
    kind: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Numbers of elements: ``trainable`` ones, BatchNorm running ``statistics``, and ``total``.

    In PyTorch, statistics are "buffers"; Keras' ``count_params()`` is ``total``.
    """

    trainable: int
    statistics: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.trainable + self.statistics


@dataclass(frozen=True, slots=True)
class StageProfile:
    """One stage of one image's way through the network, in the paper's order of operations.

    Where a transition averages, the backends pool first, with a quarter of the work counted here:
    see docs/decisions/0004-pooling-first.md.

    Attributes:
        name: ``"stem"``, ``"denseblock1"``, ``"transition1"``, …, ``"norm5"``, ``"classifier"``.
        shape: (channels, height, width) after it.
        parameters: what the stage holds.
        multiply_adds: of its convolutions and linear layer; taps on zero padding are counted, as
            PyTorch's counter and TensorFlow's profiler do (XLA's cost analysis leaves them out).
        activation_elements: numbers that its convolutions, ReLUs, concatenations and poolings
            write, each once: what training keeps for the backward pass without recomputation.
    """

    name: str
    shape: tuple[int, int, int]
    parameters: ParameterCount
    multiply_adds: int
    activation_elements: int

    def activation_bytes(self, itemsize: int = 4) -> int:
        """The same in bytes, for numbers of ``itemsize`` bytes (float32: 4)."""
        return integer("itemsize", itemsize, 1) * self.activation_elements


def layers(spec: DenseNetSpec) -> Iterator[tuple[str, LayerSpec]]:
    """Every layer that holds tensors, as (canonical name, spec), in torchvision's order."""
    check_spec(spec)
    yield from _inside("features", spec.stem)
    for block, transition in spec.stages:
        yield from _inside(f"features.{block.name}", block)
        if transition:
            yield from _inside(f"features.{transition.name}", transition)
    yield "features.norm5", spec.norm5
    if spec.classifier:
        yield "classifier", spec.classifier


def tensors(spec: DenseNetSpec) -> dict[str, TensorInfo]:
    """Every tensor by canonical name, in the order of torchvision's ``state_dict`` (which has one
    ``num_batches_tracked`` per BatchNorm more)."""
    return {f"{name}.{leaf}": info for name, layer in layers(spec) for leaf, info in _leaves(layer)}


def count_parameters(spec: DenseNetSpec) -> ParameterCount:
    """The number of trainable elements and of running statistics."""
    return _count(layer for _, layer in layers(spec))


def profile(spec: DenseNetSpec, height: int, width: int) -> list[StageProfile]:
    """Every stage for one image of ``height`` x ``width`` pixels.

    Raises ``ImageSizeError`` where a stage would be left without pixels, and names the smallest
    square size that works.
    """
    check_spec(spec)
    try:
        return _profile(spec, height, width)
    except ImageSizeError as error:
        raise ImageSizeError(f"{error}; the smallest is {min_image_size(spec)}") from None


def shape_trace(
    spec: DenseNetSpec, height: int, width: int
) -> list[tuple[str, tuple[int, int, int]]]:
    """(stage, (channels, height, width)) after every stage, from the stem to ``norm5``, the last
    BatchNorm (without its ReLU). Raises ``ImageSizeError``."""
    return [(s.name, s.shape) for s in profile(spec, height, width) if s.name != "classifier"]


def min_image_size(spec: DenseNetSpec) -> int:
    """The smallest square image, in pixels per side, that leaves every stage at least one pixel."""
    check_spec(spec)
    shrinking: list[ConvSpec | PoolSpec | None] = [spec.stem.conv0, spec.stem.pool0]
    shrinking += [transition.pool for _, transition in spec.stages if transition]
    size = 1
    for layer in reversed(shrinking):
        if layer:  # the smallest input from which at least `size` pixels come out
            size = (size - 1) * layer.stride + max(1, layer.kernel_size - 2 * layer.padding)
    return size


# --- One walk for names and counts -------------------------------------------------------------


def _inside(name: str, group: Group) -> Iterator[tuple[str, LayerSpec]]:
    if isinstance(group, DenseBlockSpec):
        for layer in group.layers:
            yield from _inside(f"{name}.{layer.name}", layer)
        return
    if isinstance(group, StemSpec):
        leaves: tuple[str, ...] = ("conv0", "norm0")
    elif isinstance(group, DenseLayerSpec):
        leaves = ("norm1", "conv1", "norm2", "conv2")
    else:
        leaves = ("norm", "conv")
    for leaf in leaves:
        spec = getattr(group, leaf)
        if isinstance(spec, LayerSpec):
            yield f"{name}.{leaf}", spec


def _leaves(layer: LayerSpec) -> Iterator[tuple[str, TensorInfo]]:
    if isinstance(layer, BatchNormSpec):
        for leaf in ("weight", "bias"):
            yield leaf, TensorInfo((layer.num_features,), "trainable", f"norm.{leaf}")
        for leaf in ("running_mean", "running_var"):
            yield leaf, TensorInfo((layer.num_features,), "statistic", f"norm.{leaf}")
    elif isinstance(layer, ConvSpec):
        kernel = (layer.out_channels, layer.in_channels, layer.kernel_size, layer.kernel_size)
        yield "weight", TensorInfo(kernel, "trainable", "conv.weight")
        if layer.bias:
            yield "bias", TensorInfo((layer.out_channels,), "trainable", "conv.bias")
    else:
        matrix = (layer.out_features, layer.in_features)
        yield "weight", TensorInfo(matrix, "trainable", "linear.weight")
        yield "bias", TensorInfo((layer.out_features,), "trainable", "linear.bias")


def _count(found: Iterator[LayerSpec]) -> ParameterCount:
    infos = [info for layer in found for _, info in _leaves(layer)]
    trainable = sum(info.size for info in infos if info.role == "trainable")
    return ParameterCount(trainable, sum(info.size for info in infos) - trainable)


# --- One walk for sizes and work ---------------------------------------------------------------


def _profile(spec: DenseNetSpec, height: int, width: int) -> list[StageProfile]:
    size = integer("height", height, 1, LARGEST_COUNT), integer("width", width, 1, LARGEST_COUNT)
    given = size
    stages: list[StageProfile] = []

    def after(layer: ConvSpec | PoolSpec, stage: str) -> tuple[int, int]:
        h, w = ((n + 2 * layer.padding - layer.kernel_size) // layer.stride + 1 for n in size)
        if h < 1 or w < 1:
            what = f"{given[0]}x{given[1]} pixels are too few: {stage} gets {size[0]}x{size[1]}"
            raise ImageSizeError(f"image size: {what} and would leave {h}x{w}")
        return h, w

    def add(name: str, group: Group | LayerSpec, channels: int, work: int, kept: int) -> None:
        found = _inside(name, group) if not isinstance(group, LayerSpec) else [(name, group)]
        count = _count(layer for _, layer in found)
        stages.append(StageProfile(name, (channels, *size), count, work, kept))

    conv0 = spec.stem.conv0
    size = after(conv0, "stem")
    area = math.prod(size)
    work, kept = _multiply_adds(conv0, area), conv0.out_channels * area
    if spec.stem.pool0:
        kept += conv0.out_channels * area  # norm0's ReLU
        size = after(spec.stem.pool0, "stem")
        kept += conv0.out_channels * math.prod(size)
    add("stem", spec.stem, conv0.out_channels, work, kept)

    for block, transition in spec.stages:
        area = math.prod(size)
        work = kept = 0
        for layer in block.layers:
            for conv in (layer.conv1, layer.conv2):
                if conv:
                    work += _multiply_adds(conv, area)
                    kept += (conv.in_channels + conv.out_channels) * area  # ReLU, convolution
            kept += (layer.norm1.num_features + (layer.conv2 or layer.conv1).out_channels) * area
        add(block.name, block, block.out_channels, work, kept)
        if transition:
            conv = transition.conv
            work = _multiply_adds(conv, area)
            kept = (conv.in_channels + conv.out_channels) * area
            size = after(transition.pool, transition.name)
            kept += conv.out_channels * math.prod(size)
            add(transition.name, transition, conv.out_channels, work, kept)

    channels = spec.norm5.num_features
    add("norm5", spec.norm5, channels, 0, channels * math.prod(size) + channels)
    if spec.classifier:
        size = (1, 1)
        classes = spec.classifier.out_features
        add("classifier", spec.classifier, classes, channels * classes, classes)
    return stages


def _multiply_adds(conv: ConvSpec, area: int) -> int:
    return area * conv.out_channels * conv.in_channels * conv.kernel_size**2
