"""Keras: a beginner's functional model with ``compile`` and ``fit``, and keras.applications."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers


def norm_relu(x: Any) -> Any:
    # Keras' defaults are 0.99 and 1e-3
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)


def dense_layer(x: Any, growth_rate: int) -> Any:
    new = layers.Conv2D(growth_rate, 3, padding="same")(norm_relu(x))
    return layers.Concatenate()([x, new])


def transition(x: Any) -> Any:
    x = layers.Conv2D(x.shape[-1] // 2, 1)(norm_relu(x))
    return layers.AveragePooling2D(2)(x)


def beginners_network(image_size: int) -> keras.Model:
    images = keras.Input((image_size, image_size, 1))
    x = layers.ZeroPadding2D(3)(images)  # "same" would pad by 2 and 3
    x = norm_relu(layers.Conv2D(64, 7, strides=2)(x))
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    for stage in range(4):
        if stage > 0:
            x = transition(x)
        for _ in range(4):
            x = dense_layer(x, growth_rate=32)
    x = layers.GlobalAveragePooling2D()(norm_relu(x))
    return keras.Model(images, layers.Dense(10)(x))


def framework_network(variant: str, image_size: int) -> keras.Model | None:
    make = getattr(keras.applications, variant.replace("densenet", "DenseNet"), None)
    shape = (image_size, image_size, 3)
    return make and make(weights=None, input_shape=shape, classifier_activation=None)


def use_gpu(network: Any) -> None:
    pass  # TensorFlow has placed it already


def train(
    network: Any,
    batches: Sequence[Any],
    learning_rate: float,
    after_step: Callable[[], object],
    parts: int = 1,
) -> None:
    network.compile(
        optimizer=keras.optimizers.SGD(
            learning_rate, gradient_accumulation_steps=parts if parts > 1 else None
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

    def on_train_batch_end(part: int, logs: dict[str, Any]) -> None:
        float(logs["loss"]), float(logs["accuracy"])
        if (part + 1) % parts == 0:
            after_step()

    network.fit(
        (
            (images.transpose(0, 2, 3, 1), labels)
            for batch in batches
            for images, labels in zip(*(np.split(array, parts) for array in batch), strict=True)
        ),
        steps_per_epoch=len(batches) * parts,
        shuffle=False,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=on_train_batch_end)],
        verbose=0,
    )


def free_arrays_early(model: Any) -> None:
    pass  # fit already does


def logits(network: Any, images: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return network.predict_on_batch(images.transpose(0, 2, 3, 1))


def finish() -> None:
    pass  # reading the loss or the logits already waits


def peak_gpu_memory() -> int:
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def forget_peak_gpu_memory() -> None:
    tf.config.experimental.reset_memory_stats("GPU:0")
