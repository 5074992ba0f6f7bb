"""The spec's layers and operations in Flax NNX. Images are NHWC, kernels HWIO."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ..spec import BatchNormSpec, ConvSpec, LinearSpec, PoolSpec
from ._layers import AvgPool, MaxPool


def conv(spec: ConvSpec, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(
        spec.in_channels,
        spec.out_channels,
        kernel_size=(spec.kernel_size, spec.kernel_size),
        strides=spec.stride,
        padding=spec.padding,  # "SAME" would pad an even-sized image by 2 and 3, not 3 and 3
        use_bias=spec.bias,
        rngs=rngs,
    )


def batch_norm(spec: BatchNormSpec, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(
        spec.num_features,
        momentum=spec.decay,  # the weight of the old value, like the spec's decay
        epsilon=spec.eps,
        use_fast_variance=False,  # the default, E[x^2] - E[x]^2, loses digits if the mean is large
        rngs=rngs,
    )


def max_pool(spec: PoolSpec) -> nnx.Module:
    return MaxPool(spec)


def avg_pool(spec: PoolSpec) -> nnx.Module:
    return AvgPool(spec)


def linear(spec: LinearSpec, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(spec.in_features, spec.out_features, rngs=rngs)


def dropout(rate: float, rngs: nnx.Rngs) -> nnx.Dropout:
    # without rngs, a layer of rate 0 has no random state to pass through every transformation
    return nnx.Dropout(rate, rngs=rngs if rate else None)


def relu(x: Array) -> Array:
    return nnx.relu(x)


def concat(*maps: Array) -> Array:
    return jnp.concatenate(maps, axis=-1)


def global_avg_pool(x: Array) -> Array:
    return jnp.mean(x, axis=(1, 2))


def global_max_pool(x: Array) -> Array:
    # the gradient of jnp.max compares x with the maximum, which XLA may have rounded differently
    return nnx.max_pool(x, x.shape[1:3])[:, 0, 0]


def batch_norm_1d(spec: BatchNormSpec, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return batch_norm(spec, rngs)  # Flax's layer accepts rows (N, C), too


ACTIVATIONS: dict[str, Any] = {"relu": relu, "silu": nnx.silu, "tanh": jnp.tanh}
