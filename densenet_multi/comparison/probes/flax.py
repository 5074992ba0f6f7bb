"""Flax NNX and JAX, asked by the functions of ``Framework``."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

Array = npt.NDArray[Any]


def _batch(image: Array) -> jax.Array:
    return jnp.asarray(image)[None, :, :, None]


def _map(x: jax.Array) -> Array:
    return np.asarray(x)[0, :, :, 0]


def same(image: Array, kernel: Array) -> Array | None:
    size = kernel.shape
    conv = nnx.Conv(1, 1, size, strides=2, padding="SAME", use_bias=False, rngs=nnx.Rngs(0))
    conv.kernel[...] = jnp.asarray(kernel)[:, :, None, None]
    return _map(conv(_batch(image)))


def average_pool(image: Array) -> Array:
    return _map(nnx.avg_pool(_batch(image), (2, 2), (2, 2)))


def padded_average_pool(image: Array) -> Array:
    return _map(nnx.avg_pool(_batch(image), (3, 3), (3, 3), ((1, 1), (1, 1))))


def padded_max_pool(image: Array) -> Array:
    return _map(nnx.max_pool(_batch(image), (3, 3), (2, 2), ((1, 1), (1, 1))))


def normalized(x: float, epsilon: float | None) -> float:
    given = {} if epsilon is None else {"epsilon": epsilon}
    norm = nnx.BatchNorm(1, use_running_average=True, **given, rngs=nnx.Rngs(0))
    norm.var[...] = jnp.zeros(1)
    return float(norm(jnp.array([[x]]))[0, 0])


def statistics(batch: Array, *, backward: bool) -> tuple[float, float]:
    norm = nnx.BatchNorm(1, rngs=nnx.Rngs(0))
    x = jnp.asarray(batch)[:, None]
    if backward:
        nnx.grad(lambda layer: layer(x).sum())(norm)
    else:
        norm(x)
    return float(norm.mean[0]), float(norm.var[0])


def kernel_shape(channels: int, filters: int, height: int, width: int) -> Any:
    return nnx.Conv(channels, filters, (height, width), rngs=nnx.Rngs(0)).kernel.shape


def linear_shape(inputs: int, outputs: int) -> Any:
    return nnx.Linear(inputs, outputs, rngs=nnx.Rngs(0)).kernel.shape


def relu(x: Array) -> Array:
    return np.asarray(nnx.relu(jnp.asarray(x)))


def dropout(x: Array) -> Array:
    layer = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    return np.asarray(layer(jnp.asarray(x)))


def resized(image: Array, size: int) -> Array:
    return np.asarray(jax.image.resize(jnp.asarray(image), (size, size), "bilinear"))


def product(a: Array, b: Array) -> Array:
    return np.asarray(jnp.asarray(a) @ jnp.asarray(b))
