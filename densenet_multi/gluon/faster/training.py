"""The network for training: concatenations omit the slice of layers.py if oneDNN works without it.

oneDNN stores channels in blocks of up to 16. The backward pass of a concatenation splits the
gradient by channels, which oneDNN can do only at block boundaries.
"""

from typing import Any

from ...backends import Level
from ...spec import DenseBlockSpec
from ..model import DenseBlock, DenseNet
from .exchange import Kinds, exchange
from .recompute import RECOMPUTING, join


def for_training(model: DenseNet, *, memory_efficient: Level = False) -> DenseNet:
    kinds = TRAINING[memory_efficient]
    if memory_efficient:
        return exchange(model, kinds)
    for spec, _ in model.spec.stages:
        if is_aligned(spec):
            exchange(getattr(model.features, spec.name), kinds)
    return model


def is_aligned(spec: DenseBlockSpec) -> bool:
    widths = spec.out_channels, *(layer.norm1.num_features for layer in spec.layers)
    return all(width % 16 == 0 for width in widths)


class JoiningBlock(DenseBlock):
    def hybrid_forward(self, F: Any, x: Any) -> Any:
        for layer in self.spec.layers:
            x = join(x, getattr(self, layer.name)(x))
        return x


TRAINING: dict[Level, Kinds] = {False: {DenseBlock: JoiningBlock}, **RECOMPUTING}
