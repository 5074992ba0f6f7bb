"""Pooling modules for layers.py; Flax itself offers pooling only as functions."""

from collections.abc import Iterator
from functools import reduce

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ..spec import PoolSpec


class AvgPool(nnx.Module):
    """Average pooling as a module: jit reuses compiled code for modules with equal attributes."""

    def __init__(self, spec: PoolSpec) -> None:
        self.spec = spec

    def __call__(self, x: Array) -> Array:
        size, stride = (self.spec.kernel_size,) * 2, (self.spec.stride,) * 2
        return nnx.avg_pool(x, size, stride, ((self.spec.padding, self.spec.padding),) * 2)


class MaxPool(AvgPool):
    """Max pooling by comparisons: on a CPU, several times as fast as ``nnx.max_pool``.

    The gradient is also the same: if several values are the maximum, only the first receives it.
    """

    def __call__(self, x: Array) -> Array:
        for axis in (2, 1):  # the maximum of each row of a window, then of these maxima
            x = reduce(lambda a, b: jnp.where(a >= b, a, b), self.taps(x, axis))
        return x

    def taps(self, x: Array, axis: int) -> Iterator[Array]:
        """Yield, for each position in a window along the axis, the values there in all windows."""
        spec, length = self.spec, x.shape[axis]
        outputs = (length + 2 * spec.padding - spec.kernel_size) // spec.stride + 1
        blocks = -(-length // spec.stride)
        x = padded(x, axis, 0, blocks * spec.stride - length)
        x = x.reshape(*x.shape[:axis], blocks, spec.stride, *x.shape[axis + 1 :])
        for place in range(-spec.padding, spec.kernel_size - spec.padding):
            block, within = divmod(place, spec.stride)
            every = jax.lax.index_in_dim(x, within, axis + 1, keepdims=False)
            yield padded(every, axis, -block, outputs + block - blocks)


def padded(x: Array, axis: int, before: int, after: int) -> Array:
    """Pad one axis with -inf; negative amounts crop."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (before, after, 0)
    return jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), edges)
