"""The glossary: what each word of the spec is called in Flax NNX. Layout NHWC, kernels HWIO."""

from collections.abc import Iterator
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ..spec import BatchNormSpec, ConvSpec, FoldedNormSpec, LinearSpec, PoolSpec


def conv(spec: ConvSpec, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(
        spec.in_channels,
        spec.out_channels,
        kernel_size=(spec.kernel_size, spec.kernel_size),
        strides=spec.stride,
        padding=spec.padding,  # "SAME" would pad an even image by 2 and 3 where the spec says 3, 3
        use_bias=spec.bias,
        rngs=rngs,
    )


def batch_norm(spec: BatchNormSpec | FoldedNormSpec, rngs: nnx.Rngs) -> Any:
    if isinstance(spec, FoldedNormSpec):
        return nnx.identity
    return nnx.BatchNorm(
        spec.num_features,
        momentum=spec.decay,
        epsilon=spec.eps,
        use_fast_variance=False,  # the default, E[x^2] - E[x]^2, cancels where the mean is large
        rngs=rngs,
    )


def max_pool(spec: PoolSpec) -> nnx.Module:
    return MaxPool(spec)


def avg_pool(spec: PoolSpec) -> nnx.Module:
    return AvgPool(spec)


def linear(spec: LinearSpec, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(spec.in_features, spec.out_features, rngs=rngs)


def dropout(rate: float, rngs: nnx.Rngs) -> nnx.Dropout:
    # a layer that draws nothing needs no random numbers to carry through every transformation
    return nnx.Dropout(rate, rngs=rngs if rate else None)


def relu(x: jax.Array) -> jax.Array:
    return nnx.relu(x)


def concat(*maps: jax.Array) -> jax.Array:
    return jnp.concatenate(maps, axis=-1)


def global_avg_pool(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=(1, 2))


class AvgPool(nnx.Module):
    """Flax pools with functions; a module with equal attributes lets jit reuse what it compiled."""

    def __init__(self, spec: PoolSpec) -> None:
        self.spec = spec

    def __call__(self, x: jax.Array) -> jax.Array:
        size, stride = (self.spec.kernel_size,) * 2, (self.spec.stride,) * 2
        return nnx.avg_pool(x, size, stride, ((self.spec.padding, self.spec.padding),) * 2)


class MaxPool(AvgPool):
    """Where two numbers are the largest, the first has the gradient, as in ``nnx.max_pool``, whose
    own takes XLA several times as long on a CPU."""

    def __call__(self, x: jax.Array) -> jax.Array:
        for axis in (2, 1):  # the largest of each row of a window, then of those
            x = reduce(lambda a, b: jnp.where(a >= b, a, b), self.taps(x, axis))
        return x

    def taps(self, x: jax.Array, axis: int) -> Iterator[jax.Array]:
        """What each place of a window sees: every ``stride``-th number, from there on."""
        spec, length = self.spec, x.shape[axis]
        outputs = (length + 2 * spec.padding - spec.kernel_size) // spec.stride + 1
        blocks = -(-length // spec.stride)
        x = padded(x, axis, 0, blocks * spec.stride - length)
        x = x.reshape(*x.shape[:axis], blocks, spec.stride, *x.shape[axis + 1 :])
        for place in range(-spec.padding, spec.kernel_size - spec.padding):
            block, within = divmod(place, spec.stride)
            every = jax.lax.index_in_dim(x, within, axis + 1, keepdims=False)
            yield padded(every, axis, -block, outputs + block - blocks)


def padded(x: jax.Array, axis: int, before: int, after: int) -> jax.Array:
    """With so many more of what is never the largest; with fewer numbers, where it is negative."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (before, after, 0)
    return jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), edges)
