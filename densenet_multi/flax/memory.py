"""Training in less memory: a convolution's input is made again when its gradient is wanted.

PyTorch's and Keras' memory.py are the same text; Gluon's calculates whole layers again.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from .layers import concat, relu
from .model import DenseBlock, DenseLayer, DenseNet, Features


class RecomputingLayer(DenseLayer):
    def __call__(self, maps: Sequence[Array]) -> Array:
        x = recomputed(self.norm1, self.conv1, maps)
        if self.norm2 is not None:
            x = recomputed(self.norm2, self.conv2, [x])
        return self.dropout(x)  # N, H, W, k


class RecomputingBlock(DenseBlock):
    layer_class = RecomputingLayer

    def __call__(self, x: Array) -> Array:
        maps = [x]
        for layer in self.spec.layers:
            maps.append(getattr(self, layer.name)(maps))
        return concat(*maps)


class RecomputingFeatures(Features):
    block_class = RecomputingBlock


class RecomputingDenseNet(DenseNet):
    features_class = RecomputingFeatures


def recomputed(norm: nnx.BatchNorm, conv: nnx.Conv, maps: Sequence[Array]) -> Array:
    if norm.use_running_average:
        return conv(relu(norm(concat(*maps))))
    graphdef, weights, statistics = nnx.split((norm, conv), nnx.Param, ...)
    y, statistics = _forward(graphdef, weights, statistics, list(maps))
    nnx.update((norm, conv), statistics)
    return y


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _forward(graphdef: Any, weights: Any, statistics: Any, maps: list[Array]) -> Any:
    norm, conv = nnx.merge(graphdef, weights, statistics, copy=True)
    y = conv(relu(norm(concat(*maps))))
    return y, nnx.state((norm, conv), nnx.Not(nnx.Param))


def _keep(graphdef: Any, weights: Any, statistics: Any, maps: list[Array]) -> Any:
    return _forward(graphdef, weights, statistics, maps), (weights, statistics, maps)


def _again(graphdef: Any, kept: Any, gradients: Any) -> Any:
    weights, statistics, maps = kept
    gradient, _ = gradients
    # XLA merges equal calculations, and would keep their result: these wait for the gradient
    nothing = jnp.minimum(jnp.abs(gradient.ravel()[0]), 0)
    maps = [x + nothing.astype(x.dtype) for x in maps]

    def y(weights: Any, maps: list[Array]) -> Array:
        return _forward.fun(graphdef, weights, statistics, maps)[0]

    _, pull = jax.vjp(y, weights, maps)
    weights, maps = pull(gradient)
    return weights, jax.tree.map(jnp.zeros_like, statistics), maps


_forward.defvjp(_keep, _again)
