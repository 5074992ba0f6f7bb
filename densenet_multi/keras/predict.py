"""Use a network in Keras: build it, place it on a device, predict with it."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow import keras

from .._checks import check_bfloat16
from .._inputs import check_complete, check_images
from ..backends import check_dtype, check_memory_efficient
from ..spec import DenseNetSpec
from ..weights import init_weights
from .faster import for_inference, for_training
from .model import DenseNet
from .weights import dtype_of, import_weights


def build(
    spec: DenseNetSpec,
    *,
    seed: int = 0,
    dtype: str = "float32",
    memory_efficient: bool | Literal["some", "max"] = False,
) -> DenseNet:
    check_complete(spec)
    level = check_memory_efficient(memory_efficient)
    model = DenseNet(spec, dtype=check_dtype(dtype))
    model.build((None, None, None, spec.config.in_channels))
    import_weights(model, init_weights(spec, seed))
    return for_training(model, memory_efficient=level) if level else model


def optimize(model: DenseNet, *, bfloat16: bool = False) -> DenseNet:
    check_bfloat16(bfloat16, dtype_of(model))
    return for_inference(model, bfloat16=bfloat16)


def use_gpu(model: DenseNet) -> bool:  # noqa: ARG001  # TensorFlow has already placed it
    return bool(tf.config.list_physical_devices("GPU"))


def predict(model: DenseNet, images: npt.ArrayLike) -> npt.NDArray[np.floating]:
    return _evaluate(model, model, images).numpy()


def features(model: DenseNet, images: npt.ArrayLike) -> dict[str, npt.NDArray[np.floating]]:
    maps = _evaluate(model, model.features.stages, images)
    dtype = dtype_of(model)
    return {stage: x.numpy().transpose(0, 3, 1, 2).astype(dtype) for stage, x in maps.items()}


def _evaluate(model: DenseNet, function: Callable[[Any], Any], images: npt.ArrayLike) -> Any:
    x = check_images(model.spec, images, dtype_of(model))
    return function(keras.ops.convert_to_tensor(x.transpose(0, 2, 3, 1)))
