"""Run Keras' own models with a file's weights, so that ``convert`` can verify what was read.

A model is rebuilt from its declaration, using stock layers only, and then loads the weights.
Nothing else in the file is built: ``load_model`` is never called.
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

STOCK = {  # Keras classes that a declaration may name
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
    """Return the output (N, classes) of the user's model where this package's network ends.

    Raises ``LookupError`` if the declaration names anything but stock layers, or if Keras cannot
    rebuild the model.

    Arguments:
        path: the file.
        declaration: its declaration.
        declared: what was read from the declaration.
        images: (N, C, H, W), as the stem reads them.
        dtype: the dtype of all layers.
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
            except Exception:  # noqa: BLE001  # a head that needs a fixed size, such as Flatten
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
        except Exception as error:  # noqa: BLE001  # a declaration may make Keras raise anything
            raise LookupError(f"Keras cannot rebuild its model ({error!r:.200})") from None
    if answer.ndim == 4:
        return np.asarray(answer.mean(axis=(1, 2)))
    return np.asarray(answer.reshape(len(answer), -1))


def _pixels(declared: Declared, images: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
    """Return the pixels that the model's preprocessing turns into these images."""
    prepared = affine(declared.before, declared.stored)
    if prepared is None:
        return images
    scale, shift = (np.array(values).reshape(-1, 1, 1) for values in prepared)
    return np.asarray((images - shift) / scale)


def classes_in(declared: dict[str, Any]) -> set[str]:
    """Return every class that a declaration names, at any depth; custom ones with their package."""
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
    """Return the largest number of units or filters that Keras would allocate for a layer."""
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
    """Return a copy of the declaration with all layers in this dtype, even those in float16."""
    if isinstance(config, dict):
        return {
            name: dtype if name == "dtype" else _computing_in(value, dtype)
            for name, value in config.items()
        }
    return [_computing_in(each, dtype) for each in config] if isinstance(config, list) else config


def _of_any_size(config: Any) -> Any:
    """Return a copy of the declaration for images of any size, as verification needs it."""
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
    """Make models built in this context compute in the weights' dtype."""
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
    """Load a file into a model with Keras itself. Raises ``LookupError`` if Keras cannot."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras prints pages of them before it fails
        link = Path(folder, f"weights{_suffix(path)}")  # Keras recognizes formats by name
        link.symlink_to(path.resolve())
        try:
            model.load_weights(link)
        except ValueError as error:  # a nested model
            raise LookupError(str(error)) from None
    return model


def _suffix(path: Path) -> str:
    """Return the suffix by which Keras recognizes a file with this content."""
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            return ".keras"
    with opened(path) as (file, _):
        return ".h5" if "layer_names" in file.attrs or "model_weights" in file else ".weights.h5"


def nchw_answer(model: Any, images: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
    """Return a Keras model's outputs for images (N, C, H, W)."""
    x = images.transpose(0, 2, 3, 1).astype(model.compute_dtype)
    answer: npt.NDArray[np.floating] = model(x, training=False).numpy()
    return answer
