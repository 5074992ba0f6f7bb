"""Two layers for layers.py: a faster BatchNorm, and a convolution with explicit padding."""

from typing import Any

import tensorflow as tf
from tensorflow import keras


@keras.utils.register_keras_serializable("densenet_multi")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' own layer, computed by TensorFlow's fused operation, except in float64 (unsupported).

    Keras' own ``call`` passes over the map once per operation and converts bfloat16 to float32.
    """

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
        """Return the running mean and variance after a batch with the statistics ``found``."""
        new = found[0], biased(found[1], x)
        keep = self.momentum
        return [keep * old + (1 - keep) * value for old, value in zip(running, new, strict=True)]


def fused_batch_norm(x: Any, gamma: Any, beta: Any, epsilon: float, known: Any = None) -> Any:
    """Normalize with a ``known`` mean and variance, or else the batch's. Return the output, the
    statistics and what the gradient needs. (``tf.compat.v1.nn`` raises epsilon to 1.001e-5.)"""
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
    """Convert the fused operation's unbiased variance (over count - 1) to biased (over count)."""
    count = tf.cast(tf.size(x) / x.shape[-1], variance.dtype)
    return variance * ((count - 1) / count)


@keras.utils.register_keras_serializable("densenet_multi")
class Conv2D(keras.layers.Conv2D):
    """A convolution with an explicit amount of padding, which Keras' own does not support.

    In a 7x7 convolution with stride 2, padding="same" pads an image of even size by 2 pixels on one
    side and 3 on the other. The spec pads both by 3, which is a different function.
    """

    def __init__(
        self, filters: int, kernel_size: Any, *, explicit_padding: int, **kwargs: Any
    ) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        self.explicit_padding = explicit_padding

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        if self.strides == (1, 1) and self.kernel_size == (2 * self.explicit_padding + 1,) * 2:
            return tf.nn.conv2d(inputs, kernel, self.strides, "SAME")  # pads both sides alike
        # oneDNN does not compute the gradient of a conv2d that is given explicit padding
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
