"""Training in less memory: a convolution's input is made again when its gradient is wanted.

In PyTorch each layer asks for it. Here, as in Keras and Gluon, a block does, in whose backward pass
a layer reads a slice of what the block returned: XLA compiles as many operations as there are
layers, not as many as there are pairs of them.

It is also where a map has its mean and variance taken once, in all training: each later layer of a
block normalises the map, and XLA would take them anew for each. The fused BatchNorms of the other
frameworks cannot be given them.
"""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ..._checks import ConfigError
from ..layers import BatchNorm, concat, moments, moments_gradient, move, normalized, relu
from ..model import DenseBlock, DenseLayer, DenseNet, Features


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
    def pairs(self) -> list[tuple[nnx.BatchNorm, nnx.Conv]]:
        pairs = [(self.norm1, self.conv1), (self.norm2, self.conv2)]
        return [(norm, conv) for norm, conv in pairs if norm is not None]


class RecomputingBlock(DenseBlock):
    layer_class = RecomputingLayer
    whole = False  # what the first convolution of a layer makes is kept

    def __call__(self, x: Array) -> Array:
        layers = [getattr(self, layer.name) for layer in self.spec.layers]
        if any(norm.use_running_average for layer in layers for norm, _ in layer.pairs()):
            return super().__call__(x)
        plan, weights, masks, end = list[Layer](), [], [], x.shape[-1]
        for layer in layers:
            start, end = end, end + layer.pairs()[-1][1].out_features
            steps, its = zip(*(Step.split(*pair) for pair in layer.pairs()), strict=True)
            plan.append(Layer(start, end, steps))
            weights.append(its)
            ones = jnp.ones((*x.shape[:-1], end - start), x.dtype)
            masks.append(layer.dropout(ones) if layer.spec.drop_rate else None)
        maps, found = _block(self.whole, tuple(plan), weights, masks, x)
        for layer, its in zip(layers, found, strict=True):
            for (norm, _), (mean, variance) in zip(layer.pairs(), its, strict=True):
                move(norm, mean, variance)
        return maps


class RecomputingFeatures(Features):
    block_class = RecomputingBlock


class RecomputingDenseNet(DenseNet):
    features_class = RecomputingFeatures


class WholeBlock(RecomputingBlock):
    whole = True


class WholeFeatures(RecomputingFeatures):
    block_class = WholeBlock


class WholeDenseNet(RecomputingDenseNet):
    features_class = WholeFeatures


class Step(NamedTuple):
    """A BatchNorm, a ReLU and a convolution, but for what they have learned."""

    epsilon: float
    conv: Any

    @classmethod
    def split(cls, norm: nnx.BatchNorm, conv: nnx.Conv) -> tuple["Step", tuple[Any, ...]]:
        usual = type(norm) in (nnx.BatchNorm, BatchNorm) and norm.use_scale and norm.use_bias
        if not usual or norm.axis_name is not None:  # what else it does would be passed by
            raise ConfigError(
                f"a memory-efficient layer: expected BatchNorm of one device, found {norm}; "
                "build the model without memory_efficient"
            )
        graphdef, kernel = nnx.split(conv)
        return cls(norm.epsilon, graphdef), (norm.scale[...], norm.bias[...], kernel)

    def __call__(self, weights: Any, x: Array, found: tuple[Array, Array]) -> Array:
        scale, bias, kernel = weights
        x = relu(normalized(x, found, self.epsilon, scale, bias))
        return nnx.merge(self.conv, kernel, copy=True)(x)


class Layer(NamedTuple):
    """It reads the channels before ``start``, and makes those from there to ``end``."""

    start: int
    end: int
    steps: tuple[Step, ...]


def run(steps: Sequence[Step], weights: Any, x: Array, found: Any) -> tuple[Array, list[Any]]:
    """What the last step makes, and what each one reads: maps and their moments."""
    inputs = []
    for step, its in zip(steps, weights, strict=True):
        inputs.append((x, found or moments(x)))
        x, found = step(its, *inputs[-1]), None
    return x, inputs


def write(maps: Array, new: Array, start: int) -> Array:
    """XLA writes into ``maps`` where they lie; a sum, or a join, each reader would make anew."""
    return jax.lax.dynamic_update_slice_in_dim(maps, new, start, axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _block(whole: Any, plan: Any, weights: Any, masks: Any, x: Any) -> Any:
    """The maps of a block, and for each layer the moments (without gradient) of what it reads."""
    return _forward(whole, plan, weights, masks, x)[0]


def _forward(whole: bool, plan: Sequence[Layer], weights: Any, masks: Any, x: Array) -> Any:
    maps = write(jnp.zeros((*x.shape[:-1], plan[-1].end), x.dtype), x, 0)
    known, found, kept = moments(x), [], []
    for layer, its, mask in zip(plan, weights, masks, strict=True):
        new, inputs = run(layer.steps, its, maps[..., : layer.start], known)
        found.append([of_input for _, of_input in inputs])
        kept.append([] if whole else inputs[1:])
        if mask is not None:
            new *= mask
        maps = write(maps, new, layer.start)
        known = tuple(map(concat, known, moments(new)))
    return (maps, found), (weights, masks, maps, known, kept)


def _backward(whole: bool, plan: Sequence[Layer], inputs: Any, gradients: Any) -> Any:
    weights, masks, maps, (means, variances), kept = inputs
    gradient, of_weights = gradients[0], list[Any]()
    for (start, end, steps), its, mask, inner in reversed(
        [*zip(plan, weights, masks, kept, strict=True)]
    ):
        of_new = gradient[..., start:end]
        if mask is not None:
            of_new *= mask
        of_its = list[Any]()
        first = maps[..., :start], (means[:start], variances[:start])
        size = len(steps) if whole else 1
        for number, (x, found) in reversed([*enumerate([first, *inner])]):
            part = slice(number, number + size)
            of_part, of_new = recomputed_gradients(steps[part], its[part], x, found, of_new)
            of_its = [*of_part, *of_its]
        gradient = write(gradient, gradient[..., :start] + of_new, 0)
        of_weights.insert(0, tuple(of_its))
    return of_weights, jax.tree.map(jnp.zeros_like, masks), gradient[..., : plan[0].start]


def recomputed_gradients(
    steps: Sequence[Step], weights: Any, x: Array, found: Any, gradient: Array
) -> tuple[Any, Array]:
    """The gradients of a step or two, by that of what the last makes."""
    mean, variance = found
    # XLA merges equal calculations, and would keep their result: these wait for the gradient, for
    # all of it, since one number it would calculate apart
    nothing = jnp.minimum(jnp.abs(gradient).max(), 0).astype(mean.dtype)
    _, back, _ = jax.vjp(partial(run, steps), weights, x, (mean + nothing, variance), has_aux=True)
    of_weights, of_x, of_moments = back(gradient)
    return of_weights, of_x + moments_gradient(x, mean, *of_moments)


_block.defvjp(_forward, _backward)


def share_statistics(model: DenseNet) -> None:
    """Change the copy of a model that is traced; a memory-efficient one shares them as it is."""
    for block, _ in model.spec.stages:
        found = getattr(model.features, block.name)
        if type(found) is DenseBlock:
            found.__class__ = SharingBlock
            for layer in block.layers:
                getattr(found, layer.name).__class__ = SharingLayer


def rectified(norm: nnx.BatchNorm, maps: Sequence[Map]) -> Array:
    """``relu(norm(concat(*maps)))``, which moves the running statistics too.

    Maps are normalised one by one, and then joined: a join of what they were is not needed.
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
