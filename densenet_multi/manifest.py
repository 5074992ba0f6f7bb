"""What a spec implies: tensor names and shapes, the size of every stage, parameter counts.

Names and layouts are torchvision's: ``features.conv0.weight``, kernels (out, in, height, width),
linear weights (out, in); see docs/conventions.md. This module uses only the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ._checks import LARGEST_COUNT, Checked, ConfigError, integer
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


class ListedSpec(Checked):
    """Base of other kinds of specs, which list their own layers (``tabular.TabularSpec``)."""

    __slots__ = ()
    config: Any
    named_layers: Callable[..., Iterator[tuple[str, LayerSpec]]]


AnySpec = DenseNetSpec | ListedSpec


class ImageSizeError(ConfigError):
    """An image is too small; the message names the stage that would be left without pixels."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a network.

    Attributes:
        shape: in canonical layout.
        role: ``"trainable"`` or ``"statistic"`` (of a BatchNorm).
        kind: the type of its layer and its own name in that layer, such as ``"conv.weight"``.
    """

    shape: tuple[int, ...]
    role: str
    kind: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Element counts: trainable parameters, running statistics of BatchNorms, and their total.

    PyTorch stores the statistics as "buffers"; Keras' ``count_params()`` returns ``total``.
    """

    trainable: int
    statistics: int

    @property
    def total(self) -> int:
        """``trainable + statistics``."""
        return self.trainable + self.statistics


@dataclass(frozen=True, slots=True)
class StageProfile:
    """The size and cost of one stage for one image, in the paper's order of operations.

    In a transition with average pooling, the backends pool first. That takes a quarter of the
    multiply-adds counted here: see docs/decisions/0004-pooling-first.md.

    Attributes:
        name: ``"stem"``, ``"denseblock1"``, ``"transition1"``, …, ``"norm5"``, ``"classifier"``.
        shape: (channels, height, width) of its output.
        parameters: the counts of its parameters and statistics.
        multiply_adds: those of its convolutions and linear layer. Taps on zero padding are counted,
            as by PyTorch's counter and TensorFlow's profiler (XLA's cost analysis omits them).
        activation_elements: number of values that its convolutions, ReLUs, concatenations and
            pooling layers write. Without recomputation, the backward pass needs all of them.
    """

    name: str
    shape: tuple[int, int, int]
    parameters: ParameterCount
    multiply_adds: int
    activation_elements: int

    def activation_bytes(self, itemsize: int = 4) -> int:
        """Return ``activation_elements`` in bytes, with ``itemsize`` bytes each (float32: 4)."""
        return integer("itemsize", itemsize, 1) * self.activation_elements


def layers(spec: AnySpec) -> Iterator[tuple[str, LayerSpec]]:
    """Yield (canonical name, spec) of every layer with tensors, in torchvision's order."""
    if isinstance(spec, ListedSpec):
        yield from spec.named_layers()
        return
    check_spec(spec)
    yield from _inside("features", spec.stem)
    for block, transition in spec.stages:
        yield from _inside(f"features.{block.name}", block)
        if transition:
            yield from _inside(f"features.{transition.name}", transition)
    yield "features.norm5", spec.norm5
    if spec.classifier:
        yield "classifier", spec.classifier


def tensors(spec: AnySpec) -> dict[str, TensorInfo]:
    """Return {canonical name: ``TensorInfo``} of every tensor of a network.

    Names and order are those of torchvision's ``state_dict``, which has one more entry per
    BatchNorm, ``num_batches_tracked``.

    >>> dm.tensors(dm.get_spec("densenet121"))["features.conv0.weight"].shape
    (64, 3, 7, 7)
    """
    return {f"{name}.{leaf}": info for name, layer in layers(spec) for leaf, info in _leaves(layer)}


def count_parameters(spec: AnySpec) -> ParameterCount:
    """Count the parameters of a network, and the running statistics of its BatchNorms.

    >>> dm.count_parameters(dm.get_spec("densenet121")).trainable
    7978856
    """
    return _count(layer for _, layer in layers(spec))


def profile(spec: DenseNetSpec, height: int, width: int) -> list[StageProfile]:
    """Compute the size, parameters and multiply-adds of every stage for one image.

    ``height`` and ``width`` are in pixels. Raises ``ImageSizeError`` where a stage would be left
    without pixels; the message states the smallest square size that works.

    >>> stages = dm.profile(dm.get_spec("d2l"), 96, 96)
    >>> f"{sum(stage.multiply_adds for stage in stages):,} multiply-adds"
    '129,077,168 multiply-adds'
    """
    check_spec(spec)
    try:
        return _profile(spec, height, width)
    except ImageSizeError as error:
        raise ImageSizeError(f"{error}; the smallest is {min_image_size(spec)}") from None


def shape_trace(
    spec: DenseNetSpec, height: int, width: int
) -> list[tuple[str, tuple[int, int, int]]]:
    """Return (stage, (channels, height, width)) after each stage for an image of this size.

    The stages are those from the stem to ``norm5``, the last BatchNorm, before its ReLU. Raises
    ``ImageSizeError``.

    >>> dm.shape_trace(dm.get_spec("d2l"), 96, 96)[:3]
    [('stem', (64, 24, 24)), ('denseblock1', (192, 24, 24)), ('transition1', (96, 12, 12))]
    """
    return [(s.name, s.shape) for s in profile(spec, height, width) if s.name != "classifier"]


def min_image_size(spec: DenseNetSpec) -> int:
    """Return the smallest square image, in pixels per side, that no stage shrinks to nothing.

    >>> dm.min_image_size(dm.get_spec("d2l"))
    29
    """
    check_spec(spec)
    shrinking: list[ConvSpec | PoolSpec | None] = [spec.stem.conv0, spec.stem.pool0]
    shrinking += [transition.pool for _, transition in spec.stages if transition]
    size = 1
    for layer in reversed(shrinking):
        if layer:  # the smallest input that leaves `size` pixels
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


def size_after(layer: ConvSpec | PoolSpec, size: int) -> int:
    """Return the pixels per side after a convolution or a pooling of ``size`` pixels."""
    return (size + 2 * layer.padding - layer.kernel_size) // layer.stride + 1


def _profile(spec: DenseNetSpec, height: int, width: int) -> list[StageProfile]:
    size = integer("height", height, 1, LARGEST_COUNT), integer("width", width, 1, LARGEST_COUNT)
    given = size
    stages: list[StageProfile] = []

    def after(layer: ConvSpec | PoolSpec, stage: str) -> tuple[int, int]:
        h, w = (size_after(layer, n) for n in size)
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
                    kept += (conv.in_channels + conv.out_channels) * area  # ReLU and convolution
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
