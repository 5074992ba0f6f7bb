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

from ..checkpoint import Checkpoint
from ._keras_declared import Declared, affine
from ._keras_graph import MODELS
from .keras_files import opened

STOCK = {  # classes of Keras that a declaration may name
    *MODELS,
    *("InputLayer", "Conv2D", "BatchNormalization", "Dense", "ReLU", "Activation", "Softmax"),
    *("LeakyReLU", "PReLU", "ELU", "ZeroPadding2D", "MaxPooling2D", "AveragePooling2D"),
    *("GlobalAveragePooling2D", "GlobalMaxPooling2D", "Concatenate", "Flatten", "Reshape"),
    *("Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout"),
    *("ActivityRegularization", "LayerNormalization", "Add", "Subtract", "Multiply", "Identity"),
    *("Rescaling", "Normalization", "TrueDivide", "Relu", "Resizing", "CenterCrop"),
    *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast"),
    *("RandomBrightness", "RandomCrop"),
    *("GlorotUniform", "GlorotNormal", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform"),
    *("VarianceScaling", "RandomNormal", "RandomUniform", "TruncatedNormal", "Orthogonal"),
    *("Constant", "Zeros", "Ones", "L1", "L2", "L1L2", "MaxNorm", "NonNeg", "UnitNorm"),
    *("DTypePolicy", "Policy", "__keras_tensor__", "__tensor__"),
}


def declared_models_logits(
    path: Path, declaration: Any, declared: Declared, images: npt.NDArray[np.float32]
) -> npt.NDArray[np.floating]:
    """What the user's own model computes where this package's network ends, (N, classes).

    Raises ``LookupError`` where the declaration names anything but stock layers, or where Keras
    does not rebuild the model.

    Arguments:
        path: the file.
        declaration: what it declares.
        declared: what was found in it.
        images: (N, C, H, W), as the stem reads them.
    """
    from tensorflow import keras

    if unknown := _classes_in(declaration) - STOCK:
        raise LookupError(f"it has layers that are not Keras' own: {', '.join(sorted(unknown))}")
    kind = keras.Sequential if declaration["class_name"] == "Sequential" else keras.Model
    if (end := declared.end) is None:
        raise LookupError("it ends nowhere")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = kind.from_config(declaration["config"])
            (last,) = (each for each in model._flatten_layers() if each.name == end.name)  # noqa: SLF001
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise LookupError(str(error)) from None
    loaded(model, path)
    if hasattr(last, "activation") and end.kind == "Dense":
        last.activation = keras.activations.linear  # logits
    found: list[Any] = []
    compute = last.call

    def call(*args: Any, **given: Any) -> Any:
        found.append(compute(*args, **given))
        return found[-1]

    last.call = call
    nchw_answer(model, _pixels(declared, images))
    answer = found[-1].numpy()
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


def _classes_in(declared: Any) -> set[str]:
    """Every class that a declaration names, at any depth."""
    found, ahead = set(), [declared["config"]]
    while ahead:
        each = ahead.pop()
        if isinstance(each, dict):
            if "class_name" in each:
                own = each.get("registered_name") not in (None, each["class_name"])
                elsewhere = not str(each.get("module") or "keras").startswith("keras")
                named = str(each["class_name"])
                found.add(f"{each.get('registered_name')}" if own or elsewhere else named)
            ahead += each.values()
        elif isinstance(each, list):
            ahead += each
    return found


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
