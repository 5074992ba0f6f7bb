"""Flax: a beginner's ``nnx.Module`` and jitted step. Flax ships no DenseNet, so
``framework_network`` returns a beginner's, too."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from flax import nnx

BLOCKS = {
    "densenet121": (6, 12, 24, 16),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
}


def batch_norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    # Flax's default momentum is 0.99
    return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)


class DenseLayer(nnx.Module):
    def __init__(self, channels: int, growth_rate: int, rngs: nnx.Rngs) -> None:
        self.norm = batch_norm(channels, rngs)
        self.conv = nnx.Conv(channels, growth_rate, (3, 3), padding=1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        new = self.conv(nnx.relu(self.norm(x)))
        return jnp.concatenate([x, new], axis=-1)


class BottleneckLayer(nnx.Module):
    def __init__(self, channels: int, growth_rate: int, rngs: nnx.Rngs) -> None:
        width = 4 * growth_rate
        self.norm1 = batch_norm(channels, rngs)
        self.conv1 = nnx.Conv(channels, width, (1, 1), use_bias=False, rngs=rngs)
        self.norm2 = batch_norm(width, rngs)
        self.conv2 = nnx.Conv(width, growth_rate, (3, 3), padding=1, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        new = self.conv1(nnx.relu(self.norm1(x)))
        new = self.conv2(nnx.relu(self.norm2(new)))
        return jnp.concatenate([x, new], axis=-1)


class Transition(nnx.Module):
    def __init__(self, channels: int, *, use_bias: bool, rngs: nnx.Rngs) -> None:
        self.norm = batch_norm(channels, rngs)
        self.conv = nnx.Conv(channels, channels // 2, (1, 1), use_bias=use_bias, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.avg_pool(self.conv(nnx.relu(self.norm(x))), (2, 2), strides=(2, 2))


class BeginnersDenseNet(nnx.Module):
    def __init__(
        self,
        rngs: nnx.Rngs,
        layer: Any = DenseLayer,
        blocks: tuple[int, ...] = (4, 4, 4, 4),
        in_channels: int = 1,
        num_classes: int = 10,
        *,
        use_bias: bool = True,
    ) -> None:
        channels, growth_rate = 64, 32
        self.conv = nnx.Conv(
            in_channels, channels, (7, 7), strides=2, padding=3, use_bias=use_bias, rngs=rngs
        )
        self.norm0 = batch_norm(channels, rngs)
        body: list[nnx.Module] = []
        for stage, depth in enumerate(blocks):
            if stage > 0:
                body.append(Transition(channels, use_bias=use_bias, rngs=rngs))
                channels //= 2
            for _ in range(depth):
                body.append(layer(channels, growth_rate, rngs))
                channels += growth_rate
        self.body = nnx.List(body)
        self.norm1 = batch_norm(channels, rngs)
        self.classifier = nnx.Linear(channels, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm0(self.conv(x)))
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for part in self.body:
            x = part(x)
        return self.classifier(nnx.relu(self.norm1(x)).mean(axis=(1, 2)))


def beginners_network(image_size: int) -> nnx.Module:
    return BeginnersDenseNet(nnx.Rngs(0))


def framework_network(variant: str, image_size: int) -> nnx.Module | None:
    if variant not in BLOCKS:
        return None
    return BeginnersDenseNet(nnx.Rngs(0), BottleneckLayer, BLOCKS[variant], 3, 1000, use_bias=False)


@nnx.jit
def train_step(network: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> Any:
    def mean_loss(network: Any) -> Any:
        scores = network(x)
        return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean(), scores

    (loss, scores), gradients = nnx.value_and_grad(mean_loss, has_aux=True)(network)
    optimizer.update(network, gradients)
    return loss, (scores.argmax(axis=1) == y).sum()


def use_gpu(network: Any) -> None:
    pass  # JAX has placed it already


def train(
    network: Any,
    batches: Sequence[Any],
    learning_rate: float,
    after_step: Callable[[], object],
    parts: int = 1,
) -> None:
    rule: Any = optax.sgd(learning_rate)
    if parts > 1:
        # keeps the mean of the gradients; in float32, even for float64 weights, unless told
        dtype = batches[0][0].dtype
        rule = optax.MultiSteps(rule, every_k_schedule=parts, accumulator_dtype=dtype)
    optimizer = nnx.Optimizer(network, rule, wrt=nnx.Param)
    network.train()
    for batch in batches:
        for images, labels in zip(*(np.split(array, parts) for array in batch), strict=True):
            x, y = jnp.asarray(images.transpose(0, 2, 3, 1)), jnp.asarray(labels)
            loss, right = train_step(network, optimizer, x, y)
            loss.item(), right.item()
        after_step()


@nnx.jit
def predicted(network: Any, x: jax.Array) -> jax.Array:
    return network(x)


def free_arrays_early(model: Any) -> None:
    pass  # fit already does


def logits(network: Any, images: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    if not network.norm0.use_running_average:  # eval() visits every module: call it once
        network.eval()
    return np.asarray(predicted(network, images.transpose(0, 2, 3, 1)))


def finish() -> None:
    pass  # reading the loss or the logits already waits


def peak_gpu_memory() -> int:
    return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]


def forget_peak_gpu_memory() -> None:
    pass  # JAX cannot reset its peak, which includes startup and kernel autotuning
