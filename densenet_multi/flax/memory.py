"""Training in less memory: a convolution's input is made again when its gradient is wanted.

PyTorch's and Keras' memory.py are the same text; Gluon's calculates whole layers again. Here it is
also where a map has its mean and variance taken once, in all training: each later layer of a block
normalises the map, and XLA would take them anew for each. The fused BatchNorms of the other
frameworks cannot be given them.
"""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from .layers import concat, moments, move, normalized, relu
from .model import DenseBlock, DenseLayer, DenseNet, Features


class Map:
    """What a layer makes; its statistics are taken when they are first asked for."""

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
    layer_class = SharingLayer
    group = 4  # so many maps are read as one: XLA would compile half as long again for one by one

    def __call__(self, x: Array) -> Array:
        maps, new = [Map(x)], list[Map]()
        for layer in self.spec.layers:
            if len(new) == self.group:
                maps, new = [*maps, Map.joined(new)], []
            new.append(Map(getattr(self, layer.name)([*maps, *new])))
        return concat(*(each.x for each in [*maps, *new]))


class RecomputingLayer(DenseLayer):
    whole = False  # what the first convolution makes is kept

    def __call__(self, maps: Sequence[Map]) -> Array:
        steps = [(self.norm1, self.conv1), (self.norm2, self.conv2)]
        steps = [(norm, conv) for norm, conv in steps if norm is not None]
        for together in [steps] if self.whole else [[step] for step in steps]:
            maps = [Map(recomputed(together, maps))]
        return self.dropout(maps[0].x)  # N, H, W, k


class RecomputingBlock(SharingBlock):
    layer_class = RecomputingLayer
    group = -1  # none: both would be kept, the maps and what joins them


class RecomputingFeatures(Features):
    block_class = RecomputingBlock


class RecomputingDenseNet(DenseNet):
    features_class = RecomputingFeatures


class WholeLayer(RecomputingLayer):
    whole = True


class WholeBlock(RecomputingBlock):
    layer_class = WholeLayer


class WholeFeatures(RecomputingFeatures):
    block_class = WholeBlock


class WholeDenseNet(RecomputingDenseNet):
    features_class = WholeFeatures


def share_statistics(model: DenseNet) -> None:
    """Change the copy of a model that is traced; a memory-efficient one shares them as it is."""
    for block, _ in model.spec.stages:
        found = getattr(model.features, block.name)
        if type(found) is DenseBlock:
            found.__class__ = SharingBlock
            for layer in block.layers:
                getattr(found, layer.name).__class__ = SharingLayer


def rectified(norm: nnx.BatchNorm, maps: Sequence[Map]) -> Array:
    """``relu(norm(concat(*maps)))``, which moves the running statistics too."""
    move_by(norm, maps)
    arrays, found = [each.x for each in maps], [each.moments for each in maps]
    return scaled(norm.epsilon, norm.scale[...], norm.bias[...], arrays, found)


def move_by(norm: nnx.BatchNorm, maps: Sequence[Map]) -> None:
    means, variances = zip(*(each.moments for each in maps), strict=True)
    move(norm, concat(*means), concat(*variances))


def scaled(
    epsilon: float,
    scale: Array,
    bias: Array,
    maps: Sequence[Array],
    moments: Sequence[tuple[Array, Array]],
) -> Array:
    """The maps normalised one by one, and then joined: a join of what they were is not needed."""
    ends = np.cumsum([x.shape[-1] for x in maps])[:-1]
    pieces = zip(maps, moments, jnp.split(scale, ends), jnp.split(bias, ends), strict=True)
    return concat(
        *(
            relu(normalized(x, mean, jax.lax.rsqrt(variance + epsilon) * scale, bias))
            for x, (mean, variance), scale, bias in pieces
        )
    )


def recomputed(steps: Sequence[tuple[nnx.BatchNorm, nnx.Conv]], maps: Sequence[Map]) -> Array:
    arrays = [each.x for each in maps]
    if steps[0][0].use_running_average:
        x = concat(*arrays)
        for norm, conv in steps:
            x = conv(relu(norm(x)))
        return x
    move_by(steps[0][0], maps)
    epsilons, graphdefs, weights = [], [], []
    for norm, conv in steps:
        graphdef, kernel = nnx.split(conv)
        epsilons.append(norm.epsilon)
        graphdefs.append(graphdef)
        weights.append((norm.scale[...], norm.bias[...], kernel))
    moments = [each.moments for each in maps]
    x, later = _forward(tuple(epsilons), tuple(graphdefs), weights, arrays, moments)
    for (norm, _), found in zip(steps[1:], later, strict=True):
        move(norm, *found)
    return x


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _forward(epsilons: Any, convs: Any, weights: Any, maps: Any, moments: Any) -> Any:
    """What the last convolution makes, and the moments of what the earlier ones make."""
    later = []
    for number, (epsilon, conv, (scale, bias, kernel)) in enumerate(
        zip(epsilons, convs, weights, strict=True)
    ):
        if number:
            moments = [Map(maps[0]).moments]
            later += moments
        x = scaled(epsilon, scale, bias, maps, moments)
        maps = [nnx.merge(conv, kernel, copy=True)(x)]
    return maps[0], later


def _keep(epsilons: Any, convs: Any, *inputs: Any) -> Any:
    return _forward(epsilons, convs, *inputs), inputs


def _again(epsilons: Any, convs: Any, inputs: Any, gradients: Any) -> Any:
    *inputs, moments = inputs
    # XLA merges equal calculations, and would keep their result: these wait for the gradient, for
    # all of it, since one number it would calculate apart
    nothing = jnp.minimum(jnp.abs(gradients[0]).max(), 0)
    moments = [(mean + nothing.astype(mean.dtype), variance) for mean, variance in moments]
    return jax.vjp(partial(_forward.fun, epsilons, convs), *inputs, moments)[1](gradients)


_forward.defvjp(_keep, _again)
