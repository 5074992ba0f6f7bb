"""The glossary: what each word of the spec is called in Keras. Layout NHWC, kernels HWIO.

Layers are built at once, not at their first call, so that a model has all its variables from the
start. ``tf.keras`` is Keras 3 on its TensorFlow engine.
"""

from typing import Any

from tensorflow import keras

from ..spec import BatchNormSpec, ConvSpec, LinearSpec, PoolSpec
from ._layers import BatchNormalization, Conv2D


def conv(spec: ConvSpec) -> keras.layers.Layer:
    # Keras' own padding="same" pads an even image by 2 and 3 where the spec says 3 and 3
    layer = Conv2D(
        spec.out_channels,
        spec.kernel_size,
        strides=spec.stride,
        explicit_padding=spec.padding,
        data_format="channels_last",  # ~/.keras/keras.json may say otherwise
        use_bias=spec.bias,
    )
    layer.build((None, None, None, spec.in_channels))
    return layer


def batch_norm(spec: BatchNormSpec) -> keras.layers.Layer:
    layer = BatchNormalization(momentum=spec.decay, epsilon=spec.eps)
    layer.build((None, None, None, spec.num_features))
    return layer


def max_pool(spec: PoolSpec) -> keras.layers.Layer:
    # zeros around the map do no harm, because a ReLU comes before the stem's; a transition has none
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
