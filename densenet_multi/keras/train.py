"""One training step in Keras' own idiom, on TensorFlow's tape."""

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow import keras

from ..inputs import check_images, check_labels
from .model import DenseNet
from .weights import dtype_of, native_variables, to_canonical


def loss_and_gradients(
    model: DenseNet, images: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[float, dict[str, npt.NDArray[np.floating]]]:
    x = check_images(model.spec, images, dtype_of(model)).transpose(0, 2, 3, 1)
    y = check_labels(labels, len(x), model.spec.config.num_classes)
    variables = {name: v for name, v in native_variables(model).items() if v[0].trainable}
    # without a dtype the loss would be float32 whatever the model is
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, dtype=dtype_of(model)
    )
    with tf.GradientTape() as tape:
        loss = cross_entropy(y, model(x, training=True))
    gradients = tape.gradient(loss, [variable.value for variable, _ in variables.values()])
    return float(loss), {
        name: to_canonical(gradient.numpy(), axes)
        for (name, (_, axes)), gradient in zip(variables.items(), gradients, strict=True)
    }
