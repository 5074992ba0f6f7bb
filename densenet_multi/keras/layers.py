"""The spec's layers and operations in Keras. Images are NHWC, kernels HWIO.

Each layer is built here rather than on its first call, so that a new model already has all its
variables. ``tf.keras`` is Keras 3 running on TensorFlow.
"""

from typing import Any

from tensorflow import keras

from ..spec import BatchNormSpec, ConvSpec, LinearSpec, PoolSpec
from ._layers import BatchNormalization, Conv2D


def conv(spec: ConvSpec) -> keras.layers.Layer:
    # padding="same" would pad the stem's even-sized image by 2 and 3 pixels, not by 3 and 3
    layer = Conv2D(
        spec.out_channels,
        spec.kernel_size,
        strides=spec.stride,
        explicit_padding=spec.padding,
        data_format="channels_last",  # ~/.keras/keras.json may set another default
        use_bias=spec.bias,
    )
    layer.build((None, None, None, spec.in_channels))
    return layer


def batch_norm(spec: BatchNormSpec) -> keras.layers.Layer:
    # Keras' momentum is the weight of the old value, like the spec's decay
    layer = BatchNormalization(momentum=spec.decay, epsilon=spec.eps)
    layer.build((None, None, None, spec.num_features))
    return layer


def max_pool(spec: PoolSpec) -> keras.layers.Layer:
    # zero padding is safe: a ReLU precedes the stem's pool, and a transition's pool pads nothing
    last = {"data_format": "channels_last"}
    padding = keras.layers.ZeroPadding2D(spec.padding, **last)
    pool = keras.layers.MaxPooling2D(spec.kernel_size, spec.stride, **last)
    return keras.Sequential([padding, pool])


def avg_pool(spec: PoolSpec) -> keras.layers.Layer:
    return keras.layers.AveragePooling2D(spec.kernel_size, spec.stride, data_format="channels_last")


def linear(spec: LinearSpec) -> keras.layers.Layer:
    layer = keras.layers.Dense(spec.out_features)
    layer.build((None, spec.in_features))
    return layer


def dropout(rate: float) -> keras.layers.Layer:
    return keras.layers.Dropout(rate)


def relu(x: Any) -> Any:
    return keras.ops.relu(x)


def concat(*maps: Any) -> Any:
    return keras.ops.concatenate(maps, axis=-1)


def global_avg_pool(x: Any) -> Any:
    return keras.ops.mean(x, axis=(1, 2))


def global_max_pool(x: Any) -> Any:
    return keras.ops.max(x, axis=(1, 2))


def batch_norm_1d(spec: BatchNormSpec) -> keras.layers.Layer:
    # rows (N, C) need Keras' own layer: TensorFlow's fused operation accepts only maps
    layer = keras.layers.BatchNormalization(epsilon=spec.eps, momentum=spec.decay)
    layer.build((None, spec.num_features))
    return layer


ACTIVATIONS: dict[str, Any] = {"relu": relu, "silu": keras.ops.silu, "tanh": keras.ops.tanh}
