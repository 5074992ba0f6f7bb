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

from .layers import concat, relu
from .model import DenseBlock, DenseLayer, DenseNet, Features


class Map:
    """What a layer makes; its statistics are taken when they are first asked for."""

    def __init__(self, x: Array) -> None:
        self.x = x

    @cached_property
    def moments(self) -> tuple[Array, Array]:
        x = self.x.astype(jnp.promote_types(self.x.dtype, jnp.float32))
        mean = x.mean(axis=(0, 1, 2))
        return mean, jnp.square(x - mean).mean(axis=(0, 1, 2))


class SharingLayer(DenseLayer):
    def __call__(self, maps: Sequence[Map]) -> Array:  # type: ignore[override]
        x = self.conv1(normalized(self.norm1, maps))
        if self.norm2 is not None:
            x = self.conv2(relu(self.norm2(x)))
        return self.dropout(x)  # N, H, W, k


class SharingBlock(DenseBlock):
    layer_class = SharingLayer

    def __call__(self, x: Array) -> Array:
        maps = [Map(x)]
        for layer in self.spec.layers:
            maps.append(Map(getattr(self, layer.name)(maps)))
        return concat(*(each.x for each in maps))


class RecomputingLayer(DenseLayer):
    def __call__(self, maps: Sequence[Map]) -> Array:  # type: ignore[override]
        x = recomputed(self.norm1, self.conv1, maps)
        if self.norm2 is not None:
            x = recomputed(self.norm2, self.conv2, [Map(x)])
        return self.dropout(x)  # N, H, W, k


class RecomputingBlock(SharingBlock):
    layer_class = RecomputingLayer


class RecomputingFeatures(Features):
    block_class = RecomputingBlock


class RecomputingDenseNet(DenseNet):
    features_class = RecomputingFeatures


def share_statistics(model: DenseNet) -> None:
    """Change the copy of a model that is traced; a memory-efficient one shares them as it is."""
    for block, _ in model.spec.stages:
        found = getattr(model.features, block.name)
        if type(found) is DenseBlock:
            found.__class__ = SharingBlock
            for layer in block.layers:
                getattr(found, layer.name).__class__ = SharingLayer


def normalized(norm: nnx.BatchNorm, maps: Sequence[Map]) -> Array:
    """``relu(norm(concat(*maps)))``, which moves the running statistics too."""
    move(norm, maps)
    arrays, moments = [each.x for each in maps], [each.moments for each in maps]
    return scaled(norm.epsilon, norm.scale[...], norm.bias[...], arrays, moments)


def move(norm: nnx.BatchNorm, maps: Sequence[Map]) -> None:
    means, variances = zip(*(each.moments for each in maps), strict=True)
    for running, new in ((norm.mean, concat(*means)), (norm.var, concat(*variances))):
        running[...] = norm.momentum * running[...] + (1 - norm.momentum) * new


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
            relu((x - mean) * (jax.lax.rsqrt(variance + epsilon) * scale) + bias).astype(x.dtype)
            for x, (mean, variance), scale, bias in pieces
        )
    )


def recomputed(norm: nnx.BatchNorm, conv: nnx.Conv, maps: Sequence[Map]) -> Array:
    arrays = [each.x for each in maps]
    if norm.use_running_average:
        return conv(relu(norm(concat(*arrays))))
    move(norm, maps)
    graphdef, kernel = nnx.split(conv)
    moments = [each.moments for each in maps]
    scale, bias = norm.scale[...], norm.bias[...]
    return _forward(norm.epsilon, graphdef, kernel, scale, bias, arrays, moments)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _forward(epsilon: float, conv: Any, kernel: Any, *inputs: Any) -> Array:
    return nnx.merge(conv, kernel, copy=True)(scaled(epsilon, *inputs))


def _keep(epsilon: float, conv: Any, *inputs: Any) -> Any:
    return _forward(epsilon, conv, *inputs), inputs


def _again(epsilon: float, conv: Any, inputs: Any, gradient: Array) -> Any:
    *inputs, moments = inputs
    # XLA merges equal calculations, and would keep their result: these wait for the gradient
    nothing = jnp.minimum(jnp.abs(gradient.ravel()[0]), 0)
    moments = [(mean + nothing.astype(mean.dtype), variance) for mean, variance in moments]
    return jax.vjp(partial(_forward.fun, epsilon, conv), *inputs, moments)[1](gradient)


_forward.defvjp(_keep, _again)
