"""What the chapter, which has no Flax, might print for it: ``bench`` compares with it."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx


def conv_block(input_channels: int, num_channels: int, rngs: nnx.Rngs) -> nnx.Sequential:
    return nnx.Sequential(
        nnx.BatchNorm(input_channels, momentum=0.9, epsilon=1e-5, rngs=rngs),
        nnx.relu,
        nnx.Conv(input_channels, num_channels, (3, 3), padding=1, rngs=rngs),
    )


class DenseBlock(nnx.Module):
    def __init__(
        self, num_convs: int, input_channels: int, num_channels: int, rngs: nnx.Rngs
    ) -> None:
        self.net = nnx.List(
            [
                conv_block(num_channels * i + input_channels, num_channels, rngs)
                for i in range(num_convs)
            ]
        )

    def __call__(self, X: jax.Array) -> jax.Array:
        for blk in self.net:
            Y = blk(X)
            X = jnp.concatenate((X, Y), axis=-1)
        return X


def transition_block(input_channels: int, num_channels: int, rngs: nnx.Rngs) -> nnx.Sequential:
    return nnx.Sequential(
        nnx.BatchNorm(input_channels, momentum=0.9, epsilon=1e-5, rngs=rngs),
        nnx.relu,
        nnx.Conv(input_channels, num_channels, (1, 1), rngs=rngs),
        lambda X: nnx.avg_pool(X, (2, 2), strides=(2, 2)),
    )


def chapter_net() -> nnx.Module:
    rngs = nnx.Rngs(0)
    blks: list[Any] = [
        nnx.Conv(1, 64, (7, 7), strides=2, padding=3, rngs=rngs),
        nnx.BatchNorm(64, momentum=0.9, epsilon=1e-5, rngs=rngs),
        nnx.relu,
        lambda X: nnx.max_pool(X, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1))),
    ]
    num_channels, growth_rate = 64, 32
    for i in range(4):
        blks.append(DenseBlock(4, num_channels, growth_rate, rngs))
        num_channels += 4 * growth_rate
        if i != 3:
            blks.append(transition_block(num_channels, num_channels // 2, rngs))
            num_channels //= 2
    return nnx.Sequential(
        *blks,
        nnx.BatchNorm(num_channels, momentum=0.9, epsilon=1e-5, rngs=rngs),
        nnx.relu,
        lambda X: X.mean(axis=(1, 2)),
        nnx.Linear(num_channels, 10, rngs=rngs),
    )


@nnx.jit
def train_step(net: nnx.Module, optimizer: nnx.Optimizer, X: jax.Array, y: jax.Array) -> Any:
    def loss(net: Any) -> Any:
        y_hat = net(X)
        l = optax.softmax_cross_entropy_with_integer_labels(y_hat, y).mean()
        return l, (y_hat.argmax(axis=1) == y).sum()

    (l, right), gradients = nnx.value_and_grad(loss, has_aux=True)(net)
    optimizer.update(net, gradients)
    return l, right


def train(net: Any, batches: Iterable[Any], lr: float, hear: Callable[[], object]) -> None:
    net.train()
    optimizer = nnx.Optimizer(net, optax.sgd(lr), wrt=nnx.Param)
    for images, labels in batches:
        X, y = jnp.asarray(np.moveaxis(images, 1, -1)), jnp.asarray(labels)
        l, right = train_step(net, optimizer, X, y)
        float(l), float(right)
        hear()
