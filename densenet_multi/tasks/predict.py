"""Classify images with the network of a portable file; what ``evaluate`` shares of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import ConfigError, check_names, integer
from .._progress import progress
from ..backends import Backend, backend_names, first_installed, hide_gpus, load_backend, place
from ..checkpoint import Checkpoint
from ..data import Examples, ImageFiles, Preparation
from ..data.images import open_image
from ..formats.portable import load_checkpoint
from ..manifest import shape_trace
from ..variants import default_image_size
from ..weights import WeightsError, widest

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]
Say = Callable[[str], None]


def predict(
    path: str | Path,
    images: Sequence[str | Path],
    *,
    backend_name: str | None = None,
    top: int = 5,
    image_size: int | None = None,
    batch_size: int = 64,
    device: str | None = None,
    say: Say = lambda _: None,
) -> list[dict[str, Any]]:
    """The most probable classes of images, according to the network of a portable file.

    Arguments:
        path: the portable file.
        images: PNG or JPEG files, of any size and mode; each is stretched to a square.
        backend_name: which backend predicts; None is the first that is installed.
        top: how many classes, or all if there are fewer.
        image_size: pixels per side; None is what the file states, else the usual size.
        batch_size: images at a time.
        device: see ``train.train``.
        say: called with sentences for the user.

    Returns:
        For each image, plain values: ``image`` and ``top``, the most probable first: a list of
        {``class``, ``index``, ``probability``}.

    Raises ``DataError`` (which names the image), and as ``evaluate.evaluate``.
    """
    path, paths = Path(path), tuple(Path(image) for image in images)
    top, batch_size = integer("top", top, 1), integer("batch_size", batch_size, 1)
    backend_name = known_or_first_installed(backend_name)
    checkpoint, size = load_classifier(path, image_size)
    classes = checkpoint.spec.config.num_classes
    names = checkpoint.usage.class_names or tuple(f"class {i}" for i in range(classes))
    prepare = Preparation(size, checkpoint.spec.config.in_channels, checkpoint.usage)
    for image in paths:  # a wrong file is found before a framework is imported
        with open_image(image):
            pass
    say_assumed_pixels(path, checkpoint, say)
    files = ImageFiles(paths, np.zeros(len(paths), np.int64), prepare)
    backend, model = build_model(checkpoint, backend_name, device)
    found = []
    for indices, logits in batches_of_logits(path, backend, model, files, batch_size):
        for index, probabilities in zip(indices, softmax(logits), strict=True):
            rows = [
                {"class": names[i], "index": int(i), "probability": float(probabilities[i])}
                for i in highest(probabilities, top)
            ]
            found.append({"image": str(paths[index]), "top": rows})
    return found


def softmax(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Probabilities (N, classes) of logits (N, classes), without overflow."""
    scores = np.asarray(logits, np.float64)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def highest(values: npt.NDArray[Any], count: int) -> Integers:
    """The indices of the highest values, the highest first; of equal ones, the first."""
    return np.argsort(-values, kind="stable")[:count]


# --- Shared with evaluate and train -------------------------------------------------------------


def known_or_first_installed(backend_name: str | None) -> str:
    """The name, if it exists; for None, that of the first installed backend.

    Raises ``ConfigError``, ``BackendNotInstalledError``.
    """
    if backend_name is None:
        return first_installed()
    check_names("backend", [backend_name], backend_names())
    return backend_name


def load_classifier(
    path: Path, image_size: int | None, data: str = "DATA"
) -> tuple[Checkpoint, int]:
    """A network that has a classifier, and pixels per side: the given, the file's or the usual.

    Raises ``ConfigError``, ``ImageSizeError``, and as ``load_checkpoint``.
    """
    checkpoint = load_checkpoint(path)
    if not checkpoint.spec.config.num_classes:
        found = "expected a network with a classifier, found one without (num_classes=0)"
        raise ConfigError(f"{path}: {found}; {train_a_new_classifier(path, data)}")
    usual = checkpoint.usage.image_size or default_image_size(checkpoint.spec)
    size = usual if image_size is None else integer("image_size", image_size, 1)
    shape_trace(checkpoint.spec, size, size)  # its error names the smallest size
    return checkpoint, size


def train_a_new_classifier(path: Path, data: str) -> str:
    """The advice for a network whose classes are not those of the data."""
    call = f"train(weights={str(path)!r}, data={data!r}, output='RUN')"
    return f"train a new classifier with: {call}"


def say_assumed_pixels(path: Path, checkpoint: Checkpoint, say: Say) -> None:
    """Tell the user that the file does not state which pixel values its network expects."""
    if checkpoint.usage.value_range is None:
        say(f"{path}: does not state which pixel values the network expects; assuming 0 to 1")


def build_model(
    checkpoint: Checkpoint, backend_name: str, device: str | None
) -> tuple[Backend, Any]:
    """The backend, and its model with the checkpoint's weights, in their dtype, on the device."""
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
    """Batch by batch: the indices of the examples (n,), and the model's logits (n, num_classes).

    Raises ``WeightsError``, which names ``path``, where a logit is not finite.
    """
    with progress() as bar:
        task = bar.add_task(f"predicting in {backend.FRAMEWORK}", total=len(examples))
        for start in range(0, len(examples), batch_size):
            indices = np.arange(start, min(start + batch_size, len(examples)))
            logits = backend.predict(model, examples.take(indices))
            if not np.isfinite(logits).all():
                raise WeightsError(
                    f"{path}: expected finite logits, found others for images {indices[0]} to "
                    f"{indices[-1]}; look at the weights with: inspect({str(path)!r})"
                )
            yield indices, logits
            bar.update(task, advance=len(indices))
