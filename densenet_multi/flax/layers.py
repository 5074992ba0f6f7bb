"""The glossary: what each word of the spec is called in Flax NNX. Layout NHWC, kernels HWIO."""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

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


def relu(x: Array) -> Array:
    return nnx.relu(x)


def concat(*maps: Array) -> Array:
    return jnp.concatenate(maps, axis=-1)


def global_avg_pool(x: Array) -> Array:
    return jnp.mean(x, axis=(1, 2))


class AvgPool(nnx.Module):
    """Flax pools with functions; a module with equal attributes lets jit reuse what it compiled."""

    def __init__(self, spec: PoolSpec) -> None:
        self.spec = spec

    def __call__(self, x: Array) -> Array:
        size, stride = (self.spec.kernel_size,) * 2, (self.spec.stride,) * 2
        return nnx.avg_pool(x, size, stride, ((self.spec.padding, self.spec.padding),) * 2)


class MaxPool(AvgPool):
    """Where two numbers are the largest, the first has the gradient, as in ``nnx.max_pool``, whose
    own takes XLA several times as long on a CPU."""

    def __call__(self, x: Array) -> Array:
        for axis in (2, 1):  # the largest of each row of a window, then of those
            x = reduce(lambda a, b: jnp.where(a >= b, a, b), self.taps(x, axis))
        return x

    def taps(self, x: Array, axis: int) -> Iterator[Array]:
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


def padded(x: Array, axis: int, before: int, after: int) -> Array:
    """With so many more of what is never the largest; with fewer numbers, where it is negative."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (before, after, 0)
    return jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), edges)


# --- What training puts in the place of NNX's layers: the same functions, faster on a CPU ---------
#
# - XLA turns a sum over several axes, one of 32 or more, into sums over windows, for precision; one
#   axis after the other is as precise and several times faster.
# - It does not know that a variance has no slope along the mean, nor that two gradients of a
#   BatchNorm are the same sum.
# - The gradient of a 1x1 convolution's kernel exchanges batch and channels, number by number. The
#   product of two matrices has no need to.


def exchange(model: nnx.Module) -> None:
    """Change the copy of a model that is traced."""
    for _, node in nnx.iter_graph(model):
        if type(node) is nnx.BatchNorm:
            node.__class__ = BatchNorm
        elif type(node) is nnx.Conv and node.kernel_size == (1, 1) and not node.use_bias:
            node.__class__ = PointwiseConv


class PointwiseConv(nnx.Conv):
    """A 1x1 convolution without bias."""

    def __call__(self, x: Array) -> Array:
        kernel = self.kernel[...]
        dtype = self.dtype or jnp.result_type(x, kernel)
        rows = x.astype(dtype).reshape(-1, x.shape[-1]) @ kernel[0, 0].astype(dtype)
        return rows.reshape(*x.shape[:-1], -1)


class BatchNorm(nnx.BatchNorm):
    """NNX's own in evaluation."""

    def __call__(self, x: Array) -> Array:
        if self.use_running_average:
            return super().__call__(x)
        mean, variance = moments(x)
        move(self, mean, variance)
        return normalized(x, (mean, variance), self.epsilon, self.scale[...], self.bias[...])


def move(norm: nnx.BatchNorm, mean: Array, variance: Array) -> None:
    """The running statistics."""
    for running, new in ((norm.mean, mean), (norm.var, variance)):
        running[...] = norm.momentum * running[...] + (1 - norm.momentum) * new


@jax.custom_vjp
def moments(x: Array) -> tuple[Array, Array]:
    """Mean and variance of each channel, in float32 at least."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = _mean(x)
    return mean, _mean(jnp.square(x - mean))


def moments_gradient(x: Array, mean: Array, of_mean: Array, of_variance: Array) -> Array:
    """The gradient of ``x``, of which ``moments`` are taken, by the gradients of the two."""
    count = x.size // x.shape[-1]
    gradient = of_mean / count + (x - mean) * (2 / count * of_variance)
    return gradient.astype(x.dtype)


def normalized(
    x: Array, found: tuple[Array, Array], epsilon: float, scale: Array, bias: Array
) -> Array:
    """What BatchNorm makes of x, by the mean and variance that were found."""
    mean, variance = found
    return _scaled(x, mean, jax.lax.rsqrt(variance + epsilon) * scale, bias)


@jax.custom_vjp
def _scaled(x: Array, mean: Array, factor: Array, bias: Array) -> Array:
    return ((x - mean) * factor + bias).astype(x.dtype)


def _scaled_gradients(kept: Sequence[Array], gradient: Array) -> tuple[Array, Array, Array, Array]:
    x, mean, factor = kept
    count = x.size // x.shape[-1]
    gradient = gradient.astype(mean.dtype)
    of_bias = count * _mean(gradient)
    of_factor = count * _mean(gradient * (x - mean))
    return (gradient * factor).astype(x.dtype), -factor * of_bias, of_factor, of_bias


def _mean(x: Array) -> Array:
    return x.mean(2).mean(1).mean(0)


def _keep_moments(x: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    found = moments(x)
    return found, (x, found[0])


def _moments_gradient(kept: tuple[Array, Array], gradients: tuple[Array, Array]) -> tuple[Array]:
    return (moments_gradient(*kept, *gradients),)


def _keep_scaled(*given: Array) -> tuple[Array, Sequence[Array]]:
    return _scaled(*given), given[:3]


moments.defvjp(_keep_moments, _moments_gradient)
_scaled.defvjp(_keep_scaled, _scaled_gradients)
