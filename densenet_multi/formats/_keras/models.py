"""Keras' own models, asked what they make of a file: what ``convert`` verifies with.

A model is rebuilt from what its file declares, out of stock layers alone, and then loads the
weights. Nothing that the file may hold besides is made: ``load_model`` is never called.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...checkpoint import Checkpoint
from .._hdf5 import opened
from .entries import MODELS, kind_of
from .found import Declared
from .layers import IDLE
from .pixels import SCALING, SIZING, affine

STOCK = {  # classes of Keras that a declaration may name
    *MODELS,
    *IDLE,
    *SCALING,
    *SIZING,
    *("InputLayer", "Conv2D", "BatchNormalization", "Dense", "ReLU", "Activation", "Softmax"),
    *("LeakyReLU", "PReLU", "ELU", "ZeroPadding2D", "MaxPooling2D", "AveragePooling2D"),
    *("GlobalAveragePooling2D", "GlobalMaxPooling2D", "Concatenate", "Flatten", "Reshape"),
    "Cast",
    *("LayerNormalization", "UnitNormalization", "Average", "Maximum", "Relu"),
    *("GlorotUniform", "GlorotNormal", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform"),
    *("VarianceScaling", "RandomNormal", "RandomUniform", "TruncatedNormal", "Orthogonal"),
    *("Constant", "Zeros", "Ones", "L1", "L2", "L1L2", "MaxNorm", "NonNeg", "UnitNorm"),
    *("DTypePolicy", "Policy", "__keras_tensor__", "__tensor__", "__numpy__"),
}


def declared_models_logits(
    path: Path,
    declaration: dict[str, Any],
    declared: Declared,
    images: npt.NDArray[np.float32],
    dtype: str,
) -> npt.NDArray[np.floating]:
    """What the user's own model computes where this package's network ends, (N, classes).

    Raises ``LookupError`` where the declaration names anything but stock layers, or where Keras
    does not rebuild the model.

    Arguments:
        path: the file.
        declaration: what it declares.
        declared: what was found in it.
        images: (N, C, H, W), as the stem reads them.
        dtype: in which all layers compute.
    """
    from tensorflow import keras

    if unknown := classes_in(declaration) - STOCK:
        raise LookupError(f"it has layers that are not Keras' own: {', '.join(sorted(unknown))}")
    if (end := declared.end) is None:
        raise LookupError("it has no layer where this package's network ends")
    if _largest_width(declaration) > path.stat().st_size:
        raise LookupError("its layers are larger than its file")
    kind = keras.Sequential if declaration["class_name"] == "Sequential" else keras.Model
    x = _pixels(declared, images)
    found: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            config = _computing_in(declaration["config"], dtype)
            try:
                model = kind.from_config(_of_any_size(config))
            except Exception:  # noqa: BLE001  # a head that needs its size, such as Flatten's
                model = kind.from_config(config)
            loaded(model, path)
            last = model
            for name in end.path:
                last = last.get_layer(name)
            if end.kind == "Dense":
                last.activation = keras.activations.linear  # logits
            compute = last.call

            def call(*args: Any, **given: Any) -> Any:
                found.append(compute(*args, **given))
                return found[-1]

            last.call = call
            model(x.transpose(0, 2, 3, 1).astype(dtype), training=False)
            answer = found[-1].numpy()
        except Exception as error:  # noqa: BLE001  # whatever a declaration makes Keras do
            raise LookupError(f"Keras does not rebuild its model ({error!r:.200})") from None
    if answer.ndim == 4:
        return np.asarray(answer.mean(axis=(1, 2)))
    return np.asarray(answer.reshape(len(answer), -1))


def _pixels(declared: Declared, images: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
    """What the model reads, so that its stem reads these images."""
    prepared = affine(declared.before, declared.stored)
    if prepared is None:
        return images
    scale, shift = (np.array(values).reshape(-1, 1, 1) for values in prepared)
    return np.asarray((images - shift) / scale)


def classes_in(declared: dict[str, Any]) -> set[str]:
    """Every class that a declaration names, at any depth; not Keras' own with their package."""
    found, ahead = set(), [declared["class_name"], declared["config"]]
    found.add(kind_of(declared))
    while ahead:
        each = ahead.pop()
        if isinstance(each, dict):
            module = str(each.get("module") or "keras")
            if module.partition(".")[0] not in ("keras", "tensorflow"):
                found.add(f"{module}.{each.get('class_name')}")
            if "class_name" in each:
                own = each.get("registered_name") not in (None, each["class_name"])
                found.add(str(each["registered_name" if own else "class_name"]))
            ahead += each.values()
        elif isinstance(each, list):
            ahead += each
    return found


def _largest_width(declared: Any) -> int:
    """The largest number of units or filters of a layer, which Keras would make."""
    largest, ahead = 0, [declared]
    while ahead:
        each = ahead.pop()
        if isinstance(each, dict):
            for name in ("units", "filters"):
                if isinstance(each.get(name), int | float):
                    largest = max(largest, int(each[name]))
            ahead += each.values()
        elif isinstance(each, list):
            ahead += each
    return largest


def _computing_in(config: Any, dtype: str) -> Any:
    """A copy of the declaration with all layers in this dtype, such as those in float16."""
    if isinstance(config, dict):
        return {
            name: dtype if name == "dtype" else _computing_in(value, dtype)
            for name, value in config.items()
        }
    return [_computing_in(each, dtype) for each in config] if isinstance(config, list) else config


def _of_any_size(config: Any) -> Any:
    """A copy of the declaration for images of any size: those to verify with have their own."""
    if isinstance(config, dict):
        return {
            name: [value[0], None, None, value[3]]
            if name in ("batch_shape", "batch_input_shape")
            and isinstance(value, list)
            and len(value) == 4
            else _of_any_size(value)
            for name, value in config.items()
            if name not in ("build_config", "build_input_shape")
        }
    return [_of_any_size(each) for each in config] if isinstance(config, list) else config


@contextmanager
def in_dtype_of(checkpoint: Checkpoint) -> Iterator[None]:
    """Let models that are built in this context compute in the weights' dtype."""
    from tensorflow import keras

    before = keras.config.floatx(), keras.config.dtype_policy()
    dtype = checkpoint.weights["features.conv0.weight"].dtype.name
    try:
        keras.config.set_floatx(dtype)  # of inputs
        keras.config.set_dtype_policy(dtype)  # of layers
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def loaded(model: Any, path: Path) -> Any:
    """Let Keras itself load a file into a model. Raises ``LookupError`` where it cannot."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pages of them before the error
        link = Path(folder, f"weights{_ending(path)}")  # Keras goes by the name
        link.symlink_to(path.resolve())
        try:
            model.load_weights(link)
        except ValueError as error:  # a model inside another one
            raise LookupError(str(error)) from None
    return model


def _ending(path: Path) -> str:
    """The ending by which Keras recognizes a file of this content."""
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            return ".keras"
    with opened(path) as (file, _):
        return ".h5" if "layer_names" in file.attrs or "model_weights" in file else ".weights.h5"


def nchw_answer(model: Any, images: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
    """The outputs of a Keras model for images (N, C, H, W)."""
    x = images.transpose(0, 2, 3, 1).astype(model.compute_dtype)
    answer: npt.NDArray[np.floating] = model(x, training=False).numpy()
    return answer
