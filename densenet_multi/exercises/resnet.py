"""ResNets as lists of layers, to count against: He et al., https://arxiv.org/abs/1512.03385.

Counts, names and the place of the stride are torchvision's (``torchvision.models.resnet``): the
3x3 convolution of a bottleneck has the stride, and a 1x1 convolution with a BatchNorm is the
shortcut wherever the shape changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .._checks import Checked
from ..manifest import LayerSpec, size_after
from ..spec import BatchNormSpec, ConvSpec, LinearSpec
from ._layers import Layer, layer

EXPANSION = 4  # output channels of a bottleneck, in units of its inner width


@dataclass(frozen=True, slots=True)
class ResNetConfig(Checked):
    """What a person chooses in a ResNet.

    Attributes:
        blocks: residual blocks in each stage.
        bottleneck: 1x1, 3x3 and 1x1 convolutions in a block, instead of two 3x3 ones.
        width: channels of the first stage, before a bottleneck's expansion; doubled by each stage.
        in_channels: channels of the images.
        num_classes: outputs of the classifier.
        stem: ``"imagenet"`` (7x7 convolution and max pooling, both with stride 2) or ``"cifar"``
            (3x3 convolution).
    """

    blocks: tuple[int, ...]
    bottleneck: bool = False
    width: int = 64
    in_channels: int = 3
    num_classes: int = 1000
    stem: str = "imagenet"


RESNETS: Mapping[str, ResNetConfig] = MappingProxyType(
    {  # He et al., Table 1
        "resnet18": ResNetConfig((2, 2, 2, 2)),
        "resnet34": ResNetConfig((3, 4, 6, 3)),
        "resnet50": ResNetConfig((3, 4, 6, 3), bottleneck=True),
        "resnet101": ResNetConfig((3, 4, 23, 3), bottleneck=True),
        "resnet152": ResNetConfig((3, 8, 36, 3), bottleneck=True),
    }
)

Placed = tuple[str, str, LayerSpec, int]  # name, stage, layer, pixels per side of its output


def layers_of_resnet(config: ResNetConfig, image_size: int) -> Iterator[Layer]:
    """Yield every layer of a ResNet for a square image of this many pixels per side."""
    for name, stage, spec, size in _walk(config, image_size):
        yield layer(name, stage, spec, size * size)


def resnet_depth(config: ResNetConfig) -> int:
    """Count the layers as ResNets' names do: without the convolutions of shortcuts."""
    weighted = (ConvSpec, LinearSpec)
    found = [name for name, _, spec, _ in _walk(config, 224) if isinstance(spec, weighted)]
    return sum("downsample" not in name for name in found)


def _walk(config: ResNetConfig, size: int) -> Iterator[Placed]:
    width = config.width
    if config.stem == "imagenet":
        conv1 = ConvSpec(config.in_channels, width, 7, stride=2, padding=3)
        pool = ConvSpec(width, width, 3, stride=2, padding=1)  # max pooling has the same window
    else:
        conv1, pool = ConvSpec(config.in_channels, width, 3, padding=1), None
    size = size_after(conv1, size)
    yield "conv1", "stem", conv1, size
    yield "bn1", "stem", BatchNormSpec(width), size
    size = size_after(pool, size) if pool else size
    channels = width
    for number, blocks in enumerate(config.blocks, 1):
        inner = width * 2 ** (number - 1)
        for i in range(blocks):
            stride = 2 if number > 1 and i == 0 else 1
            for leaf, spec, side in _block(config, channels, inner, stride, size):
                yield f"layer{number}.{i}.{leaf}", f"stage {number}", spec, side
            size = side
            channels = inner * (EXPANSION if config.bottleneck else 1)
    yield "fc", "classifier", LinearSpec(channels, config.num_classes), 1


def _block(
    config: ResNetConfig, channels: int, inner: int, stride: int, size: int
) -> Iterator[tuple[str, LayerSpec, int]]:
    """Yield (name, layer, pixels per side) in a block; a BatchNorm follows each convolution."""
    outer = inner * (EXPANSION if config.bottleneck else 1)
    strided = ConvSpec(inner if config.bottleneck else channels, inner, 3, stride, padding=1)
    after = size_after(strided, size)
    if config.bottleneck:
        convs = [
            (ConvSpec(channels, inner, 1), size),
            (strided, after),
            (ConvSpec(inner, outer, 1), after),
        ]
    else:
        convs = [(strided, after), (ConvSpec(inner, outer, 3, padding=1), after)]
    for i, (conv, side) in enumerate(convs, 1):
        yield f"conv{i}", conv, side
        yield f"bn{i}", BatchNormSpec(conv.out_channels), side
    if stride > 1 or channels != outer:
        yield "downsample.0", ConvSpec(channels, outer, 1, stride), after
        yield "downsample.1", BatchNormSpec(outer), after
