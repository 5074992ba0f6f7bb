"""Train in less memory: recompute each convolution's input in the backward pass.

In PyTorch, each layer does this itself. Here, as in Keras and Gluon, a block does it for its
layers: in the backward pass a layer's input is a slice of the block's output. XLA then compiles one
set of operations per layer, not per pair of layers.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ..._checks import ConfigError
from ...backends import Level
from ..layers import concat, relu
from ..model import DenseBlock, DenseLayer
from ._training_layers import BatchNorm, moments, moments_gradient, move, normalized
from .exchange import Kinds


class RecomputingLayer(DenseLayer):
    def pairs(self) -> list[tuple[nnx.BatchNorm, nnx.Conv]]:
        pairs = [(self.norm1, self.conv1), (self.norm2, self.conv2)]
        return [(norm, conv) for norm, conv in pairs if norm is not None]


class RecomputingBlock(DenseBlock):
    keeps_convolutions = True  # keeps the output of a bottleneck's 1x1 convolution

    def __call__(self, x: Array) -> Array:
        layers = [getattr(self, layer.name) for layer in self.spec.layers]
        if any(norm.use_running_average for layer in layers for norm, _ in layer.pairs()):
            return super().__call__(x)
        plan, weights, masks, end = list[Layer](), [], [], x.shape[-1]
        for layer in layers:
            start, end = end, end + layer.pairs()[-1][1].out_features
            pairs, its = zip(*(Pair.split(*pair) for pair in layer.pairs()), strict=True)
            plan.append(Layer(start, end, pairs))
            weights.append(its)
            ones = jnp.ones((*x.shape[:-1], end - start), x.dtype)
            masks.append(layer.dropout(ones) if layer.spec.drop_rate else None)
        maps, found = _block(self.keeps_convolutions, tuple(plan), weights, masks, x)
        for layer, its in zip(layers, found, strict=True):
            for (norm, _), (mean, variance) in zip(layer.pairs(), its, strict=True):
                move(norm, mean, variance)
        return maps


class FullyRecomputingBlock(RecomputingBlock):
    keeps_convolutions = False


RECOMPUTING: dict[Level, Kinds] = {
    "some": {DenseLayer: RecomputingLayer, DenseBlock: RecomputingBlock},
    "max": {DenseLayer: RecomputingLayer, DenseBlock: FullyRecomputingBlock},
}


class Pair(NamedTuple):
    """A BatchNorm, a ReLU and a convolution, without their parameters."""

    epsilon: float
    conv: Any

    @classmethod
    def split(cls, norm: nnx.BatchNorm, conv: nnx.Conv) -> tuple["Pair", tuple[Any, ...]]:
        usual = type(norm) in (nnx.BatchNorm, BatchNorm) and norm.use_scale and norm.use_bias
        if not usual or norm.axis_name is not None:  # Pair supports no more than this
            raise ConfigError(
                "a memory-efficient layer: expected a single-device BatchNorm with scale and bias, "
                f"found {norm}; build the model without memory_efficient"
            )
        graphdef, kernel = nnx.split(conv)
        return cls(norm.epsilon, graphdef), (norm.scale[...], norm.bias[...], kernel)

    def __call__(self, weights: Any, x: Array, found: tuple[Array, Array]) -> Array:
        scale, bias, kernel = weights
        x = relu(normalized(x, found, self.epsilon, scale, bias))
        return nnx.merge(self.conv, kernel, copy=True)(x)


class Layer(NamedTuple):
    """A dense layer that reads the channels [0, ``start``) and computes [``start``, ``end``)."""

    start: int
    end: int
    pairs: tuple[Pair, ...]


def run(pairs: Sequence[Pair], weights: Any, x: Array, found: Any) -> tuple[Array, list[Any]]:
    """Return the last pair's output, and each pair's input: (maps, their moments)."""
    inputs = []
    for pair, its in zip(pairs, weights, strict=True):
        inputs.append((x, found or moments(x)))
        x, found = pair(its, *inputs[-1]), None
    return x, inputs


def write(maps: Array, new: Array, start: int) -> Array:
    """Write in place; XLA would recompute a sum or a concatenation wherever it is read."""
    return jax.lax.dynamic_update_slice_in_dim(maps, new, start, axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _block(keeps: Any, plan: Any, weights: Any, masks: Any, x: Any) -> Any:
    """Return a block's maps and the moments of each pair's input. The moments have no gradient."""
    return _forward(keeps, plan, weights, masks, x)[0]


def _forward(keeps: bool, plan: Sequence[Layer], weights: Any, masks: Any, x: Array) -> Any:
    maps = write(jnp.zeros((*x.shape[:-1], plan[-1].end), x.dtype), x, 0)
    known, found, kept = moments(x), [], []
    for layer, its, mask in zip(plan, weights, masks, strict=True):
        new, inputs = run(layer.pairs, its, maps[..., : layer.start], known)
        found.append([of_input for _, of_input in inputs])
        kept.append(inputs[1:] if keeps else [])
        if mask is not None:
            new *= mask
        maps = write(maps, new, layer.start)
        known = tuple(map(concat, known, moments(new)))
    return (maps, found), (weights, masks, maps, known, kept)


def _backward(keeps: bool, plan: Sequence[Layer], inputs: Any, gradients: Any) -> Any:
    weights, masks, maps, (means, variances), kept = inputs
    gradient, of_weights = gradients[0], list[Any]()
    for (start, end, pairs), its, mask, inner in reversed(
        [*zip(plan, weights, masks, kept, strict=True)]
    ):
        of_new = gradient[..., start:end]
        if mask is not None:
            of_new *= mask
        of_its = list[Any]()
        first = maps[..., :start], (means[:start], variances[:start])
        size = 1 if keeps else len(pairs)
        for number, (x, found) in reversed([*enumerate([first, *inner])]):
            part = slice(number, number + size)
            of_part, of_new = recomputed_gradients(pairs[part], its[part], x, found, of_new)
            of_its = [*of_part, *of_its]
        gradient = write(gradient, gradient[..., :start] + of_new, 0)
        of_weights.insert(0, tuple(of_its))
    return of_weights, jax.tree.map(jnp.zeros_like, masks), gradient[..., : plan[0].start]


def recomputed_gradients(
    pairs: Sequence[Pair], weights: Any, x: Array, found: Any, gradient: Array
) -> tuple[Any, Array]:
    """Return the gradients of one or two pairs, given the gradient of their output."""
    mean, variance = found
    # XLA merges equal computations, so it would keep the forward pass's results. Prevent this: let
    # an input depend on all of the gradient. XLA would compute a single value of it separately
    nothing = jnp.minimum(jnp.abs(gradient).max(), 0).astype(mean.dtype)
    _, back, _ = jax.vjp(partial(run, pairs), weights, x, (mean + nothing, variance), has_aux=True)
    of_weights, of_x, of_moments = back(gradient)
    return of_weights, of_x + moments_gradient(x, mean, *of_moments)


_block.defvjp(_forward, _backward)
