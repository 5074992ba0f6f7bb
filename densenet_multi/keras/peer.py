"""The DenseNet of Keras' own project, keras.applications: ``bench`` compares with it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow import keras


def peer(variant: str, image_size: int) -> Callable[[Any], npt.NDArray[np.floating]] | None:
    make = getattr(keras.applications, variant.replace("densenet", "DenseNet"), None)
    if make is None:
        return None
    model = make(weights=None, input_shape=(image_size, image_size, 3), classifier_activation=None)

    def logits(x: Any) -> npt.NDArray[np.floating]:
        return model.predict_on_batch(x.transpose(0, 2, 3, 1))

    return logits
