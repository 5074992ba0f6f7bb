"""The network for training: the mean and variance of each feature map are computed once.

Every later layer of a block normalizes the map, and XLA would recompute its mean and variance for
each layer. The other frameworks' fused BatchNorms accept no precomputed statistics in training.
"""

from collections.abc import Sequence
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ...backends import Level
from ..layers import concat, relu
from ..model import DenseBlock, DenseLayer, DenseNet
from ._training_layers import BatchNorm, PointwiseConv, moments, move, normalized
from .exchange import Kinds, exchange
from .recompute import RECOMPUTING


def for_training(model: DenseNet, *, memory_efficient: Level = False) -> DenseNet:
    return exchange(model, TRAINING[memory_efficient])


class Map:
    """The output of a layer; its moments (mean and variance) are computed on first use."""

    def __init__(self, x: Array) -> None:
        self.x = x

    @classmethod
    def joined(cls, maps: Sequence["Map"]) -> "Map":
        whole = cls(concat(*(each.x for each in maps)))
        means, variances = zip(*(each.moments for each in maps), strict=True)
        whole.moments = concat(*means), concat(*variances)
        return whole

    @cached_property
    def moments(self) -> tuple[Array, Array]:
        return moments(self.x)


class SharingLayer(DenseLayer):
    def __call__(self, maps: Sequence[Map]) -> Array:
        x = self.conv1(rectified(self.norm1, maps))
        if self.norm2 is not None:
            x = self.conv2(relu(self.norm2(x)))
        return self.dropout(x)  # N, H, W, k


class SharingBlock(DenseBlock):
    group = 4  # join this many maps: with single maps, XLA takes 1.5 times as long to compile

    def __call__(self, x: Array) -> Array:
        maps, new = [Map(x)], list[Map]()
        for layer in self.spec.layers:
            if len(new) == self.group:
                maps, new = [*maps, Map.joined(new)], []
            new.append(Map(getattr(self, layer.name)([*maps, *new])))
        return concat(*(each.x for each in [*maps, *new]))


def rectified(norm: nnx.BatchNorm, maps: Sequence[Map]) -> Array:
    """Return ``relu(norm(concat(*maps)))``, and update the running statistics.

    Each map is normalized before the concatenation, so the original maps are not concatenated.
    """
    move(norm, *map(concat, *(each.moments for each in maps)))
    ends = np.cumsum([each.x.shape[-1] for each in maps])[:-1]
    weights = (jnp.split(array[...], ends) for array in (norm.scale, norm.bias))
    return concat(
        *(
            relu(normalized(each.x, each.moments, norm.epsilon, scale, bias))
            for each, scale, bias in zip(maps, *weights, strict=True)
        )
    )


TRAINING: dict[Level, Kinds] = {
    False: {
        DenseLayer: SharingLayer,
        DenseBlock: SharingBlock,
        nnx.BatchNorm: BatchNorm,
        nnx.Conv: PointwiseConv,
    },
    **RECOMPUTING,
}
