"""The glossary: what each word of the spec is called in Keras. Layout NHWC, kernels HWIO.

Layers are built at once, not at their first call, so that a model has all its variables from the
start. ``tf.keras`` is Keras 3 on its TensorFlow engine.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import tensorflow as tf
from tensorflow import keras

from .._spec_dict import from_dict, to_dict
from ..spec import BatchNormSpec, ConvSpec, FoldedNormSpec, LinearSpec, PoolSpec


def conv(spec: ConvSpec) -> keras.layers.Layer:
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


def batch_norm(spec: BatchNormSpec | FoldedNormSpec) -> keras.layers.Layer:
    if isinstance(spec, FoldedNormSpec):
        return keras.layers.Identity()
    layer = BatchNormalization(momentum=spec.decay, epsilon=spec.eps)
    layer.build((None, None, None, spec.num_features))
    return layer


def max_pool(spec: PoolSpec) -> keras.layers.Layer:
    # zeros around the map do no harm, because a ReLU comes first
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


@keras.utils.register_keras_serializable("densenet_multi")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' own goes over the map once for each of its operations, and makes float32 of bfloat16.
    TensorFlow's fused one does not; there is none in float64."""

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if inputs.dtype == "float64":
            return super().call(inputs, training=training, mask=mask)
        running = self.moving_mean, self.moving_variance
        if not (training and self.trainable):
            return fused_batch_norm(inputs, self.gamma, self.beta, self.epsilon, running)[0]
        y, *found = fused_batch_norm(inputs, self.gamma, self.beta, self.epsilon)
        for variable, value in zip(running, self.moved(running, found, inputs), strict=True):
            variable.assign(value)
        return y

    def moved(self, running: Any, found: Any, x: Any) -> list[Any]:
        """The running mean and variance after a batch; ``found`` is what the fused one returns."""
        new = found[0], biased(found[1], x)
        keep = self.momentum
        return [keep * old + (1 - keep) * value for old, value in zip(running, new, strict=True)]


def fused_batch_norm(x: Any, gamma: Any, beta: Any, epsilon: float, known: Any = None) -> Any:
    """With a ``known`` mean and variance, or the batch's, which it returns with what its gradient
    wants. (``tf.nn`` has one that would raise epsilon to 1.001e-5.)"""
    mean, variance = known or ([], [])
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=known is None,
    )


def biased(variance: Any, x: Any) -> Any:
    """The fused BatchNorm has divided by count - 1."""
    count = tf.cast(tf.size(x) / x.shape[-1], variance.dtype)
    return variance * ((count - 1) / count)


@keras.utils.register_keras_serializable("densenet_multi")
class Conv2D(keras.layers.Conv2D):
    """Keras' padding="same" pads an even image by 2 and 3 where the spec says 3 and 3: with a
    stride that is another function. TensorFlow's own convolution takes explicit numbers."""

    def __init__(
        self, filters: int, kernel_size: Any, *, explicit_padding: int, **kwargs: Any
    ) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        self.explicit_padding = explicit_padding

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        if self.strides == (1, 1) and self.kernel_size == (2 * self.explicit_padding + 1,) * 2:
            return tf.nn.conv2d(inputs, kernel, self.strides, "SAME")  # the same numbers then
        # given to conv2d, the numbers would keep oneDNN from its gradient
        edges = [self.explicit_padding] * 2
        padded = tf.pad(inputs, [[0, 0], edges, edges, [0, 0]])
        return tf.nn.conv2d(padded, kernel, self.strides, "VALID")

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, height, width, channels = input_shape
        pad = 2 * self.explicit_padding
        padded = (batch, height and height + pad, width and width + pad, channels)
        return super().compute_output_shape(padded)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "explicit_padding": self.explicit_padding}


class Block(keras.layers.Layer):
    """A layer that is made from, and saved as, a piece of the spec. Its dtype is that of the layers
    inside too, which would else take the global policy."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        keras.utils.register_keras_serializable("densenet_multi")(cls)
        if "__init__" in cls.__dict__:
            cls.__init__ = _in_its_dtype(cls.__init__)  # type: ignore[method-assign]

    def build(self, input_shape: Any) -> None:
        """Nothing is left to make: the layers inside made their variables when they were made."""

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "spec": to_dict(self.spec)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        policy = keras.dtype_policies.get(config["dtype"])
        return cls(**{**config, "spec": from_dict(config["spec"]), "dtype": policy})


def _in_its_dtype(make: Any) -> Any:
    @wraps(make)
    def init(self: Any, spec: Any, **kwargs: Any) -> None:
        with dtype_policy(kwargs.get("dtype") or keras.config.dtype_policy()):
            make(self, spec, **kwargs)

    return init


class Network(Block, keras.Model):
    """The whole: a keras.Model, saved the same way."""

    def build(self, input_shape: Any) -> None:
        # one symbolic call tells every layer inside its shape, for summary() and saving
        self.compute_output_spec(keras.KerasTensor(input_shape, self.compute_dtype))


@contextmanager
def dtype_policy(policy: Any) -> Iterator[None]:
    """Layers made inside have this dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
