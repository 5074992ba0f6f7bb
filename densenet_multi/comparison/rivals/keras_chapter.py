"""The code that *Dive into Deep Learning* prints in its chapter 7.7: ``bench`` compares with it.

With ``padding="same"`` it is another function at even sizes. Layers are kept in lists that Keras 3
tracks itself.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from tensorflow import keras


class ConvBlock(keras.layers.Layer):
    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.bn = keras.layers.BatchNormalization()
        self.relu = keras.layers.ReLU()
        self.conv = keras.layers.Conv2D(filters=num_channels, kernel_size=(3, 3), padding="same")

    def call(self, x: Any) -> Any:
        y = x
        for layer in [self.bn, self.relu, self.conv]:
            y = layer(y)
        return keras.layers.concatenate([x, y], axis=-1)


class DenseBlock(keras.layers.Layer):
    def __init__(self, num_convs: int, num_channels: int) -> None:
        super().__init__()
        self.list_layers = [ConvBlock(num_channels) for _ in range(num_convs)]

    def call(self, x: Any) -> Any:
        for layer in self.list_layers:
            x = layer(x)
        return x


class TransitionBlock(keras.layers.Layer):
    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.batch_norm = keras.layers.BatchNormalization()
        self.relu = keras.layers.ReLU()
        self.conv = keras.layers.Conv2D(num_channels, kernel_size=1)
        self.avg_pool = keras.layers.AvgPool2D(pool_size=2, strides=2)

    def call(self, x: Any) -> Any:
        x = self.batch_norm(x)
        x = self.relu(x)
        x = self.conv(x)
        return self.avg_pool(x)


def chapter_net() -> keras.Sequential:
    net = keras.Sequential(
        [
            keras.layers.Conv2D(64, kernel_size=7, strides=2, padding="same"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPool2D(pool_size=3, strides=2, padding="same"),
        ]
    )
    num_channels, growth_rate = 64, 32
    for i in range(4):
        net.add(DenseBlock(4, growth_rate))
        num_channels += 4 * growth_rate
        if i != 3:
            num_channels //= 2
            net.add(TransitionBlock(num_channels))
    net.add(keras.layers.BatchNormalization())
    net.add(keras.layers.ReLU())
    net.add(keras.layers.GlobalAvgPool2D())
    net.add(keras.layers.Flatten())
    net.add(keras.layers.Dense(10))
    return net


def train(net: Any, batches: Iterable[Any], lr: float, hear: Callable[[], object]) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.SGD(learning_rate=lr), loss, metrics=["accuracy"])
    channels_last = ((np.moveaxis(images, 1, -1), labels) for images, labels in batches)
    heard = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_, **__: hear())
    net.fit(channels_last, shuffle=False, callbacks=[heard], verbose=0)
