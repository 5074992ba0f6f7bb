"""Classify images with a trained network; ``evaluate`` and ``train`` share code with it.

The network is in a portable file, which a backend runs, or in an ONNX file, which ONNX Runtime
runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .._checks import ConfigError, check_names, function, integer, items
from .._files import as_path
from .._inputs import check_logits
from .._progress import progress
from ..backends import Backend, backend_names, check_device, hide_gpus, load_backend, place
from ..checkpoint import Checkpoint
from ..data import Examples, ImageFiles, Preparation
from ..data.images import open_image
from ..formats import onnx_file
from ..formats._onnx.content import parse
from ..formats.portable import load_checkpoint
from ..manifest import shape_trace
from ..variants import default_image_size
from ..weights import WeightsError, widest
from ._trained_by import backend_to_use
from .heatmap import check_heatmap, check_network, class_index, draw_heatmap

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]
Say = Callable[[str], None]

TOP = 5  # the number of classes shown for a softmax
ONNX_RUNTIME = "onnxruntime"  # in place of a backend's name
MOST_VALUES = 2**26  # in a batch of images; 400 color images of 224x224 have 0.9 * 2**26


def predict(
    path: str | Path,
    images: Sequence[str | Path] | str | Path,
    *,
    backend_name: str | None = None,
    top: int | None = None,
    image_size: int | None = None,
    batch_size: int = 64,
    device: str | None = None,
    heatmap: str | Path | None = None,
    class_name: str | None = None,
    say: Say = lambda _: None,
) -> list[dict[str, Any]]:
    """Return the most probable classes of each image, according to a trained network.

    Arguments:
        path: the portable file, or an ONNX file, which ONNX Runtime runs without any backend.
        images: one or more files in any format of ``data.read_image``; each is resized to a square
            without keeping its aspect ratio.
        backend_name: the backend to predict in; None uses the one that trained the network, if
            known and installed, else the first installed.
        top: the maximum number of classes; None means all if each class has its own sigmoid,
            else 5.
        image_size: pixels per side; None uses the file's value, else the usual size.
        batch_size: images per batch.
        device: see ``train.train``.
        heatmap: a PNG file to write: the only image, at its own size, colored by the class
            activation map of a class: see ``class_maps.class_activation_map``.
        class_name: the name (or the number) of the class of the heatmap; None is the first class.
        say: called with sentences for the user.

    Returns:
        For each image, plain values: ``image``, ``image_size`` (the side of the square to which it
        was resized), ``activation`` (see ``shown_activation``) and ``top``, a list of {``class``,
        ``index``, ``probability``} with the highest first. With the activation ``"none"``,
        ``output`` (the logit) replaces ``probability``. With ``heatmap``, also ``heatmap``: see
        ``draw_heatmap``, and the ``class``.

    Raises ``DataError`` (which names the image); otherwise as ``evaluate.evaluate``.
    """
    path = as_path(path)
    if isinstance(images, str | os.PathLike):
        images = [images]
    given = items("images", images, "a list of files, or one")
    paths = tuple(as_path(image, "images") for image in given)
    check_device(device)
    function("say", say)
    top = None if top is None else integer("top", top, 1)
    batch_size = integer("batch_size", batch_size, 1)
    if backend_name is not None:
        check_names("backend", [backend_name], backend_names())
    drawn = check_heatmap(heatmap, class_name, path, paths)
    with_onnx = runs_in_onnx_runtime(
        path, backend_name=backend_name, device=device, heatmap=heatmap
    )
    checkpoint, size = load_classifier(path, image_size)
    if drawn:
        check_network(path, checkpoint)
    backend_name = (
        ONNX_RUNTIME if with_onnx else backend_to_use(backend_name, path, checkpoint, say)
    )
    prepare = Preparation(size, checkpoint.spec.config.in_channels, checkpoint.usage)
    for image in paths:  # find an invalid file before importing a framework
        with open_image(image):
            pass
    say_assumed_pixels(path, checkpoint, say)
    activation = shown_activation(path, checkpoint, say)
    names = output_names(checkpoint, activation)
    chosen = class_index(class_name, names)
    if top is None:
        top = len(names) if activation == "sigmoid" else TOP
    key = "output" if activation == "none" else "probability"
    files = ImageFiles(paths, np.zeros(len(paths), np.int64), prepare)
    backend, model = build_model(checkpoint, backend_name, device, path)
    found: list[dict[str, Any]] = []
    for indices, logits in batches_of_logits(path, backend, model, files, batch_size):
        shown = APPLIED[activation](logits)
        for index, values, scores in zip(indices, shown, logits, strict=True):
            rows = [
                {"class": names[i], "index": int(i), key: float(values[i])}
                for i in highest(scores, top)
            ]
            about = {"image": str(paths[index]), "image_size": size, "activation": activation}
            found.append({**about, "top": rows})
    if drawn:
        index = found[0]["top"][0]["index"] if chosen is None else chosen
        stages = backend.features(model, files.take(np.arange(1)))
        made = draw_heatmap(drawn, paths[0], checkpoint, stages, index=index, say=say)
        found[0]["heatmap"] = {"class": names[index], **made}
    return found


# --- What outputs mean --------------------------------------------------------------------------


def shown_activation(path: Path, checkpoint: Checkpoint, say: Say) -> str:
    """Return the activation to apply to logits before showing them: one of ``ACTIVATIONS``.

    If the file does not state it, a sigmoid is assumed for one output and a softmax for several,
    and ``say`` reports this. The softmax of one output would be 1 for every image, so the output
    itself is shown.
    """
    activation, outputs = checkpoint.usage.activation, checkpoint.spec.config.num_classes
    for what in ("what its outputs mean", "its class names"):
        say_assumed(path, checkpoint, what, say)
    if outputs == 1 and activation == "softmax":
        say(f"{path}: the softmax of one output is 1 for every image; showing the output itself")
        return "none"
    return activation or ("sigmoid" if outputs == 1 else "softmax")


def output_names(checkpoint: Checkpoint, activation: str) -> tuple[str, ...]:
    """Return the class names, or else a generic name for each output."""
    outputs = checkpoint.spec.config.num_classes
    if checkpoint.usage.class_names:
        return checkpoint.usage.class_names
    if outputs == 1 and activation == "sigmoid":
        return ("positive class",)
    word = "output" if activation == "none" else "class"
    return tuple(f"{word} {i}" for i in range(outputs))


def softmax(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the probabilities (N, classes) for logits (N, classes), computed without overflow."""
    scores = check_logits(logits)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def sigmoid(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return each output's independent probability, (N, classes), computed without overflow."""
    scores = check_logits(logits)
    power = np.exp(-np.abs(scores))
    shares: npt.NDArray[np.float64] = np.where(scores < 0, power, 1.0) / (1 + power)
    return shares


APPLIED: dict[str, Callable[[npt.ArrayLike], npt.NDArray[np.float64]]] = {
    "none": check_logits,
    "softmax": softmax,
    "sigmoid": sigmoid,
}


def highest(values: npt.NDArray[Any], count: int) -> Integers:
    """Return the indices of the highest values, in descending order; ties keep their order."""
    return np.argsort(-values, kind="stable")[:count]


# --- Shared with evaluate and train -------------------------------------------------------------


def load_classifier(
    path: Path, image_size: int | None, data: str = "DATA"
) -> tuple[Checkpoint, int]:
    """Return a network with a classifier, and the given image size, else the file's or the usual.

    Raises ``ConfigError``, ``ImageSizeError``, and as ``load_checkpoint``.
    """
    checkpoint = onnx_file.describe(path) if _is_onnx(path) else load_checkpoint(path)
    if not checkpoint.spec.config.num_classes:
        found = "expected a network with a classifier, found one without (num_classes=0)"
        raise ConfigError(f"{path}: {found}; {train_a_new_classifier(path, data)}")
    usual = checkpoint.usage.image_size or default_image_size(checkpoint.spec)
    size = usual if image_size is None else integer("image_size", image_size, 1)
    shape_trace(checkpoint.spec, size, size)  # its error names the smallest size
    return checkpoint, size


def runs_in_onnx_runtime(path: Path, **given: Any) -> bool:
    """Return whether this is an ONNX file, which ONNX Runtime runs on the CPU.

    Raises ``ConfigError`` for an argument in ``given`` that is then not possible, if it is set.
    """
    if not _is_onnx(path):
        return False
    for name, value in given.items():
        if value and not (name == "device" and value == "cpu"):
            raise ConfigError(
                f"{name}: expected a portable file, which a backend runs, found an ONNX file; "
                f"convert it: convert({str(path)!r}, 'NEW.safetensors')"
            )
    return True


def _is_onnx(path: Path) -> bool:
    """Return whether a file says that it is one, by its name or its content."""
    return path.suffix == ".onnx" or onnx_file.looks_like(path, b"")


def _most_at_once(examples: Examples) -> int:
    values = examples.take(np.arange(min(1, len(examples)))).size
    return max(1, MOST_VALUES // max(1, values))


def train_a_new_classifier(path: Path, data: str) -> str:
    """Return advice for a network whose classes are not those of the data."""
    source, first = str(path), ""
    if _is_onnx(path):
        source, first = "NEW.safetensors", f"convert({str(path)!r}, 'NEW.safetensors') and then "
    call = f"train(weights={source!r}, data={data!r}, output='RUN')"
    return f"train a new classifier with: {first}{call}"


def say_assumed_pixels(path: Path, checkpoint: Checkpoint, say: Say) -> None:
    """Report which pixel values are assumed if the file does not state what its network expects."""
    say_assumed(path, checkpoint, "which pixel values the network expects", say)


def say_assumed(path: Path, checkpoint: Checkpoint, what: str, say: Say) -> None:
    """Report what is assumed because the file does not state it; see ``unstated``."""
    if assumed := checkpoint.unstated().get(what):
        say(f"{path}: does not state {what}; assuming {assumed}")


def build_model(
    checkpoint: Checkpoint, backend_name: str, device: str | None, path: Path | None = None
) -> tuple[Backend, Any]:
    """Return the backend, and its model on the device, with the checkpoint's weights and dtype.

    For ``ONNX_RUNTIME``, return onnx/predict.py, which has a backend's ``predict``, and its model
    of the ONNX file at ``path``.
    """
    if backend_name == ONNX_RUNTIME and path is not None:
        from ..onnx import predict as runtime

        try:
            return cast("Backend", runtime), runtime.load(parse(path), checkpoint.spec)
        except LookupError as error:
            raise ConfigError(
                f"{path}: {error}; convert it to NEW.safetensors, and that to an ONNX file"
            ) from None
    if device == "cpu":
        hide_gpus()
    backend = load_backend(backend_name)
    model = backend.build(checkpoint.spec, dtype=widest(checkpoint.weights))
    backend.import_weights(model, checkpoint.weights)
    place(backend, model, device)
    return backend, model


def batches_of_logits(
    path: Path | str, backend: Backend, model: Any, examples: Examples, batch_size: int
) -> Iterator[tuple[Integers, Floats]]:
    """Yield the example indices (n,) and the model's logits (n, num_classes) of each batch.

    A batch has ``batch_size`` images, or fewer if they are so large that they might not fit into
    memory. Raises ``WeightsError``, which names ``path``, if a logit is not finite.
    """
    batch_size = min(batch_size, _most_at_once(examples))
    with progress() as bar:
        task = bar.add_task(f"predicting in {backend.FRAMEWORK}", total=len(examples))
        for start in range(0, len(examples), batch_size):
            indices = np.arange(start, min(start + batch_size, len(examples)))
            logits = backend.predict(model, examples.take(indices))
            if not np.isfinite(logits).all():
                raise WeightsError(
                    f"{path}: expected finite logits, found NaN or infinity for images "
                    f"{indices[0]} to {indices[-1]}; check the weights with: inspect({str(path)!r})"
                )
            yield indices, logits
            bar.update(task, advance=len(indices))
