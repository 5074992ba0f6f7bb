"""Flax has no DenseNet of its own: ``bench`` compares with what a user of NNX would write first."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from .flax_chapter import train

__all__ = ["forget_peak_gpu_memory", "logits", "peak_gpu_memory", "peer_net", "train"]

BLOCKS = {
    "densenet121": (6, 12, 24, 16),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
}


def batch_norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)


class DenseLayer(nnx.Module):
    def __init__(self, channels: int, growth_rate: int, rngs: nnx.Rngs) -> None:
        width = 4 * growth_rate
        self.norm1 = batch_norm(channels, rngs)
        self.conv1 = nnx.Conv(channels, width, (1, 1), use_bias=False, rngs=rngs)
        self.norm2 = batch_norm(width, rngs)
        self.conv2 = nnx.Conv(width, growth_rate, (3, 3), padding=1, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv1(nnx.relu(self.norm1(x)))
        y = self.conv2(nnx.relu(self.norm2(y)))
        return jnp.concatenate([x, y], axis=-1)


class Transition(nnx.Module):
    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.norm = batch_norm(channels, rngs)
        self.conv = nnx.Conv(channels, channels // 2, (1, 1), use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.avg_pool(self.conv(nnx.relu(self.norm(x))), (2, 2), strides=(2, 2))


class PlainDenseNet(nnx.Module):
    def __init__(self, blocks: tuple[int, ...], growth_rate: int, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 64, (7, 7), strides=2, padding=3, use_bias=False, rngs=rngs)
        self.norm0 = batch_norm(64, rngs)
        parts: list[nnx.Module] = []
        channels = 64
        for number, layers in enumerate(blocks, 1):
            for _ in range(layers):
                parts.append(DenseLayer(channels, growth_rate, rngs))
                channels += growth_rate
            if number < len(blocks):
                parts.append(Transition(channels, rngs))
                channels //= 2
        self.parts = nnx.List(parts)
        self.norm1 = batch_norm(channels, rngs)
        self.classifier = nnx.Linear(channels, 1000, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm0(self.conv(x)))
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for part in self.parts:
            x = part(x)
        return self.classifier(nnx.relu(self.norm1(x)).mean(axis=(1, 2)))


def peer_net(variant: str, image_size: int) -> PlainDenseNet | None:
    return PlainDenseNet(BLOCKS[variant], 32, nnx.Rngs(0)) if variant in BLOCKS else None


@nnx.jit
def predicted(net: Any, x: jax.Array) -> jax.Array:
    return net(x)


def logits(net: Any, x: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    if not net.norm0.use_running_average:
        net.eval()
    return np.asarray(predicted(net, np.moveaxis(x, 1, -1)))


def peak_gpu_memory() -> int:
    return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]


def forget_peak_gpu_memory() -> None:
    pass  # JAX cannot: the peak is since the start, and what tries out kernels is in it
