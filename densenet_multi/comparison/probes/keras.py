"""tf.keras, asked by the functions of ``Framework``."""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers

Array = npt.NDArray[Any]


def _batch(image: Array) -> tf.Tensor:
    return tf.constant(image)[None, :, :, None]


def _map(x: tf.Tensor) -> Array:
    return np.asarray(x)[0, :, :, 0]


def same(image: Array, kernel: Array) -> Array | None:
    conv = layers.Conv2D(1, len(kernel), strides=2, padding="same", use_bias=False)
    conv.build((None, None, None, 1))
    conv.set_weights([kernel[:, :, None, None]])
    return _map(conv(_batch(image)))


def average_pool(image: Array) -> Array:
    return _map(layers.AveragePooling2D(2)(_batch(image)))


def padded_average_pool(image: Array) -> Array:
    return _map(layers.AveragePooling2D(3, padding="same")(_batch(image)))


def padded_max_pool(image: Array) -> Array:
    return _map(layers.MaxPooling2D(3, 2, padding="same")(_batch(image)))


def normalized(x: float, epsilon: float | None) -> float:
    norm = layers.BatchNormalization(**({} if epsilon is None else {"epsilon": epsilon}))
    norm.build((None, 1))
    norm.moving_variance.assign([0.0])
    return float(norm(tf.constant([[x]]), training=False)[0, 0])


def statistics(batch: Array, *, backward: bool) -> tuple[float, float]:
    norm = layers.BatchNormalization()
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(norm(tf.constant(batch)[:, None], training=True))
    if backward:
        tape.gradient(y, norm.trainable_variables)
    return float(norm.moving_mean[0]), float(norm.moving_variance[0])


def kernel_shape(channels: int, filters: int, height: int, width: int) -> Any:
    conv = layers.Conv2D(filters, (height, width))
    conv.build((None, None, None, channels))
    return conv.kernel.shape


def linear_shape(inputs: int, outputs: int) -> Any:
    dense = layers.Dense(outputs)
    dense.build((None, inputs))
    return dense.kernel.shape


def relu(x: Array) -> Array:
    return np.asarray(keras.ops.relu(tf.constant(x)))


def dropout(x: Array) -> Array:
    return np.asarray(layers.Dropout(0.5)(tf.constant(x), training=True))


def resized(image: Array, size: int) -> Array:
    return _map(tf.image.resize(_batch(image), (size, size)))


def product(a: Array, b: Array) -> Array:
    return np.asarray(tf.constant(a) @ tf.constant(b))
