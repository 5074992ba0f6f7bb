"""The code that *Dive into Deep Learning* prints in its chapter 7.7: ``bench`` compares with it.

It uses MXNet's NumPy interface, which is switched on here for these functions only.
"""

from collections.abc import Callable, Iterable
from typing import Any

from mxnet import autograd, gluon, np, util
from mxnet.gluon import nn


def conv_block(num_channels: int) -> nn.Sequential:
    blk = nn.Sequential()
    blk.add(
        nn.BatchNorm(),
        nn.Activation("relu"),
        nn.Conv2D(num_channels, kernel_size=3, padding=1),
    )
    return blk


class DenseBlock(nn.Block):
    def __init__(self, num_convs: int, num_channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.net = nn.Sequential()
        for _ in range(num_convs):
            self.net.add(conv_block(num_channels))

    def forward(self, X: Any) -> Any:
        for blk in self.net:
            Y = blk(X)
            X = np.concatenate((X, Y), axis=1)
        return X


def transition_block(num_channels: int) -> nn.Sequential:
    blk = nn.Sequential()
    blk.add(
        nn.BatchNorm(),
        nn.Activation("relu"),
        nn.Conv2D(num_channels, kernel_size=1),
        nn.AvgPool2D(pool_size=2, strides=2),
    )
    return blk


@util.use_np
def chapter_net() -> nn.Sequential:
    net = nn.Sequential()
    net.add(
        nn.Conv2D(64, kernel_size=7, strides=2, padding=3),
        nn.BatchNorm(),
        nn.Activation("relu"),
        nn.MaxPool2D(pool_size=3, strides=2, padding=1),
    )
    num_channels, growth_rate = 64, 32
    for i in range(4):
        net.add(DenseBlock(4, growth_rate))
        num_channels += 4 * growth_rate
        if i != 3:
            num_channels //= 2
            net.add(transition_block(num_channels))
    net.add(nn.BatchNorm(), nn.Activation("relu"), nn.GlobalAvgPool2D(), nn.Dense(10))
    return net


@util.use_np
def train(net: Any, batches: Iterable[Any], lr: float, hear: Callable[[], object]) -> None:
    net.initialize()
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": lr})
    for images, labels in batches:
        X, y = np.array(images), np.array(labels)
        with autograd.record():
            y_hat = net(X)
            l = loss(y_hat, y)
        l.backward()
        trainer.step(X.shape[0])
        float(l.sum()), float((y_hat.argmax(axis=1) == y).sum())
        hear()
