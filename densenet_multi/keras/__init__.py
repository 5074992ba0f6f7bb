"""DenseNet in tf.keras (Keras 3 on TensorFlow): ``import densenet_multi.keras as dk``."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .._fold import fold
from .._inputs import check_images
from ..backends import BackendError, check_bfloat16, check_dtype, check_memory_efficient, framework
from ..spec import DenseNetSpec
from ..weights import Weights, init_weights

with framework("keras", "tensorflow"):
    engine = os.environ.get("KERAS_BACKEND", "tensorflow")
    if engine == "tensorflow":
        if "tensorflow" not in sys.modules:
            # by itself, TensorFlow takes oneDNN's operations only on some processors; on one that
            # has AVX2 alone, training is much slower without them
            os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
            # PyTorch for CUDA loads triton when it first trains: after TensorFlow, that would crash
            with suppress(ImportError):
                import triton  # noqa: F401
        import tensorflow as tf
        from tensorflow import keras

        engine = keras.config.backend()  # ~/.keras/keras.json can choose one too
    if engine != "tensorflow":
        raise BackendError(
            f"backend 'keras': expected Keras on 'tensorflow', found {engine!r}; unset "
            "KERAS_BACKEND, or set it (or ~/.keras/keras.json) to tensorflow, and start again"
        )

    from .faster.inference import OptimizedDenseNet
    from .faster.recompute import RecomputingDenseNet, WholeDenseNet
    from .model import DenseBlock, DenseLayer, DenseNet, Features, Stem, Transition
    from .train import fit, loss_and_gradients
    from .weights import count_parameters, dtype_of, export_weights, import_weights

NAME = "keras"
FRAMEWORK = "tf.keras"
RUNNING_VARIANCE = "biased"

__all__ = [
    "FRAMEWORK",
    "NAME",
    "RUNNING_VARIANCE",
    "DenseBlock",
    "DenseLayer",
    "DenseNet",
    "Features",
    "Stem",
    "Transition",
    "build",
    "count_parameters",
    "export_weights",
    "features",
    "fit",
    "import_weights",
    "loss_and_gradients",
    "optimize",
    "predict",
    "use_gpu",
]


def build(
    spec: DenseNetSpec,
    *,
    seed: int = 0,
    dtype: str = "float32",
    memory_efficient: bool | str = False,
) -> DenseNet:
    kinds = {False: DenseNet, True: RecomputingDenseNet, "max": WholeDenseNet}
    kind = kinds[check_memory_efficient(memory_efficient)]
    return _made(kind, spec, init_weights(spec, seed), check_dtype(dtype))


def optimize(model: DenseNet, *, bfloat16: bool = False) -> DenseNet:
    dtype = check_bfloat16(bfloat16, dtype_of(model))
    kind = partial(OptimizedDenseNet, bfloat16=bfloat16)
    return _made(kind, *fold(model.spec, export_weights(model)), dtype)


def _made(
    kind: Callable[..., DenseNet], spec: DenseNetSpec, weights: Weights, dtype: str
) -> DenseNet:
    model = kind(spec, dtype=dtype)
    model.build((None, None, None, spec.config.in_channels))
    import_weights(model, weights)
    return model


def use_gpu(model: DenseNet) -> bool:
    return bool(tf.config.list_physical_devices("GPU"))  # variables are made there


def predict(model: DenseNet, images: npt.ArrayLike) -> npt.NDArray[np.floating]:
    # Keras' __call__ would first clear the losses of every layer
    function = model.call if isinstance(model, OptimizedDenseNet) else model
    return _evaluate(model, function, images).numpy()


def features(model: DenseNet, images: npt.ArrayLike) -> dict[str, npt.NDArray[np.floating]]:
    maps = _evaluate(model, model.features.stages, images)
    dtype = dtype_of(model)
    return {stage: x.numpy().transpose(0, 3, 1, 2).astype(dtype) for stage, x in maps.items()}


def _evaluate(model: DenseNet, function: Callable[[Any], Any], images: npt.ArrayLike) -> Any:
    x = check_images(model.spec, images, dtype_of(model))
    return function(keras.ops.convert_to_tensor(x.transpose(0, 2, 3, 1)))
