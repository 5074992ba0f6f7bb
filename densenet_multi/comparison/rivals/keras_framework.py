"""The DenseNet of Keras' own project, keras.applications: ``bench`` compares with it."""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow import keras

from .keras_chapter import train

__all__ = ["forget_peak_gpu_memory", "logits", "peak_gpu_memory", "peer_net", "train"]


def peer_net(variant: str, image_size: int) -> keras.Model | None:
    make = getattr(keras.applications, variant.replace("densenet", "DenseNet"), None)
    shape = (image_size, image_size, 3)
    return make and make(weights=None, input_shape=shape, classifier_activation=None)


def logits(net: Any, x: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return net.predict_on_batch(x.transpose(0, 2, 3, 1))


def peak_gpu_memory() -> int:
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def forget_peak_gpu_memory() -> None:
    tf.config.experimental.reset_memory_stats("GPU:0")
