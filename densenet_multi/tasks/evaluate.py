"""``densenet-multi evaluate`` and ``predict``: what trained weights answer, on real images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import ConfigError, check_names, integer
from .._figures import confusion_matrix
from .._progress import progress
from ..backends import (
    Backend,
    backend_names,
    first_installed,
    framework_versions,
    hide_gpus,
    load_backend,
    place,
)
from ..checkpoint import Checkpoint
from ..data import Examples, ImageFiles, Preparation, load_data
from ..data.images import open_image
from ..formats.portable import load_checkpoint
from ..manifest import shape_trace
from ..reference import cross_entropy
from ..training.statistics import measure_statistics
from ..variants import default_image_size
from ..weights import Weights, WeightsError, widest

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]
Say = Callable[[str], None]
NAMED = 5  # class names in an error


def evaluate(
    path: Path,
    *,
    backend: str | None = None,
    data: str = "fashion-mnist",
    data_dir: Path | None = None,
    image_size: int | None = None,
    batch_size: int = 64,
    seed: int | None = None,
    recalibrate: int = 0,
    device: str | None = None,
    bfloat16: bool = False,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """How well the network of a portable file names the test images of some data.

    Arguments:
        path: the portable file.
        backend: which predicts; None is the first that is installed.
        data: see ``data.load_data``.
        data_dir: the same.
        image_size: pixels per side; None is what the file says, else the usual one.
        batch_size: images at a time.
        seed: parts a folder into train and test; None is what the file says, else 0.
        recalibrate: measure the running statistics anew, on that many batches of 256 training
            images: see ``recalibrated``.
        device: see ``train.train``.
        bfloat16: predict with ``optimize(model, bfloat16=True)``.
        say: called with sentences for the user.

    Returns:
        Plain values: ``accuracy``, ``loss`` (mean cross entropy, in nats), ``per_class`` ({name:
        accuracy, or None without images}), ``confusion`` (see ``confusion_counts``; rows and
        columns as in ``class_names``), ``examples``, ``backend``, ``versions``, and more.

    Raises ``ConfigError`` where the network's classes are not those of the data, ``WeightsError``
    where its answers are not finite, and as ``load_checkpoint``, ``load_data``, ``load_backend``.
    """
    batch_size = integer("batch_size", batch_size, 1)
    backend = _backend(backend)
    checkpoint, size = _load(path, image_size, data)
    trained_with = checkpoint.usage.split_seed
    seed = (trained_with or 0) if seed is None else seed
    if data.startswith("folder:") and trained_with not in (None, seed):
        say(
            f"{path}: was trained on a folder that seed {trained_with} had split; with seed {seed} "
            "some of the same folder's test images are those it was trained on"
        )
    examples = load_data(
        data,
        image_size=size,
        in_channels=checkpoint.spec.config.in_channels,
        usage=checkpoint.usage,
        data_dir=data_dir,
        seed=seed,
    )
    names, test = examples.class_names, examples.test
    try:
        order = output_order(checkpoint, names)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}; {_new_classifier(path, data)}") from None
    _say_what_is_assumed(path, checkpoint, say)
    labels = np.asarray(test.labels).astype(np.int64)
    if integer("recalibrate", recalibrate, 0):
        weights = recalibrated(backend, checkpoint, examples.train, recalibrate, device=device)
        checkpoint = replace(checkpoint, weights=weights)
    confusion, loss = np.zeros((len(names),) * 2, np.int64), 0.0
    how: dict[str, Any] = {"device": device, "bfloat16": bfloat16}
    for indices, logits in _answers(path, checkpoint, backend, test, batch_size, **how):
        scores = logits[:, order]
        loss += cross_entropy(scores, labels[indices]) * len(indices)
        confusion += confusion_counts(labels[indices], scores.argmax(axis=1), len(names))
    return {
        "weights": str(path),
        "data": data,
        "data_from": examples.where,
        "image_size": size,
        "recalibrate": recalibrate,
        "bfloat16": bfloat16,
        "examples": len(test),
        "accuracy": int(confusion.trace()) / len(test),
        "loss": loss / len(test),
        "class_names": list(names),
        "per_class": dict(zip(names, class_accuracies(confusion), strict=True)),
        "confusion": confusion.tolist(),
        "backend": backend,
        "versions": framework_versions(backend),
    }


def predict(
    path: Path,
    images: Sequence[Path],
    *,
    backend: str | None = None,
    top: int = 5,
    image_size: int | None = None,
    batch_size: int = 64,
    device: str | None = None,
    say: Say = lambda _: None,
) -> list[dict[str, Any]]:
    """What the network of a portable file takes images for.

    Arguments:
        path: the portable file.
        images: PNG or JPEG files, of any size and mode; each is stretched to a square.
        top: how many classes, or all if there are fewer.
        backend: which predicts; None is the first that is installed.
        image_size: pixels per side.
        batch_size: images at a time.
        device: see ``train.train``.
        say: called with sentences for the user.

    Returns:
        For each image, plain values: ``image`` and ``top``, the most probable first: a list of
        {``class``, ``index``, ``probability``}.

    Raises ``DataError`` (which names the image), and as ``evaluate``.
    """
    top, batch_size = integer("top", top, 1), integer("batch_size", batch_size, 1)
    backend = _backend(backend)
    checkpoint, size = _load(path, image_size)
    classes = checkpoint.spec.config.num_classes
    names = checkpoint.usage.class_names or tuple(f"class {i}" for i in range(classes))
    prepare = Preparation(size, checkpoint.spec.config.in_channels, checkpoint.usage)
    for image in images:  # a wrong file is found before a framework is imported
        with open_image(image):
            pass
    _say_what_is_assumed(path, checkpoint, say)
    files = ImageFiles(tuple(images), np.zeros(len(images), np.int64), prepare)
    found = []
    for indices, logits in _answers(path, checkpoint, backend, files, batch_size, device=device):
        for index, probabilities in zip(indices, softmax(logits), strict=True):
            rows = [
                {"class": names[i], "index": int(i), "probability": float(probabilities[i])}
                for i in highest(probabilities, top)
            ]
            found.append({"image": str(images[index]), "top": rows})
    return found


def recalibrated(
    backend: str,
    checkpoint: Checkpoint,
    examples: Examples,
    batches: int,
    *,
    batch_size: int = 256,
    device: str | None = None,
) -> Weights:
    """The weights with running statistics that are means over batches, drawn anew.

    While training, a running statistic is a weighted mean over the last ten or so batches, each
    with other weights: at a high learning rate it lags behind. This is what the weights deserve.

    Arguments:
        backend: which calculates.
        checkpoint: the network.
        examples: to draw from; in the order of the first epoch with seed 0.
        batches: how many, at most as many as there are.
        batch_size: images in each.
        device: see ``train.train``.

    Source: Y. Wu and J. Johnson, https://arxiv.org/abs/2105.07576, section 3.
    """
    module, model = _model(checkpoint, backend, device)
    return measure_statistics(module, model, examples, batches, batch_size)


# --- The numbers --------------------------------------------------------------------------------


def confusion_counts(labels: npt.ArrayLike, predicted: npt.ArrayLike, classes: int) -> Integers:
    """How often the class of a row was called the class of a column, (classes, classes).

    Arguments:
        labels: integers of shape (N,), from 0 to classes - 1: the true classes.
        predicted: the same for the answers.
        classes: how many there are.
    """
    pairs = np.asarray(labels).astype(np.int64) * classes + np.asarray(predicted)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_accuracies(confusion: Integers) -> list[float | None]:
    """The share of each row that is on the diagonal; None for a row without counts."""
    pairs = zip(confusion.diagonal().tolist(), confusion.sum(axis=1).tolist(), strict=True)
    return [right / count if count else None for right, count in pairs]


def confused_with(confusion: Integers) -> list[tuple[int, int] | None]:
    """For each class, the one it was most often wrongly called and how often; None for never."""
    wrong = confusion - np.diag(confusion.diagonal())
    pairs = zip(wrong.argmax(axis=1).tolist(), wrong.max(axis=1).tolist(), strict=True)
    return [(other, count) if count else None for other, count in pairs]


def softmax(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Probabilities (N, classes) of logits (N, classes), without overflow."""
    scores = np.asarray(logits, np.float64)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def highest(values: npt.NDArray[Any], count: int) -> Integers:
    """The indices of the highest values, the highest first; of equal ones, the first."""
    return np.argsort(-values, kind="stable")[:count]


def output_order(checkpoint: Checkpoint, class_names: tuple[str, ...]) -> Integers:
    """For each of these classes, the output of the network that stands for it, (classes,).

    By name where the network's names are known, else in order. Raises ``ConfigError`` where they
    are not the same classes.
    """
    classes, own = checkpoint.spec.config.num_classes, checkpoint.usage.class_names
    if classes != len(class_names):
        raise ConfigError(f"expected {len(class_names)} classes as in the data, found {classes}")
    if own is None or own == class_names:
        return np.arange(classes)
    if set(own) != set(class_names):
        missing = [name for name in class_names if name not in own]
        others = [name for name in own if name not in class_names]
        raise ConfigError(
            f"expected the classes of the data, found {_listed(others) or 'some twice'} in place "
            f"of {_listed(missing)}"
        )
    return np.array([own.index(name) for name in class_names])


# --- Parts --------------------------------------------------------------------------------------


def _backend(name: str | None) -> str:
    if name is None:
        return first_installed()
    check_names("backend", [name], backend_names())
    return name


def _load(path: Path, image_size: int | None, data: str = "DATA") -> tuple[Checkpoint, int]:
    """A network that has a classifier, and pixels per side."""
    checkpoint = load_checkpoint(path)
    if not checkpoint.spec.config.num_classes:
        found = "expected a network with a classifier, found one without (num_classes=0)"
        raise ConfigError(f"{path}: {found}; {_new_classifier(path, data)}")
    usual = checkpoint.usage.image_size or default_image_size(checkpoint.spec)
    size = usual if image_size is None else integer("image_size", image_size, 1)
    shape_trace(checkpoint.spec, size, size)  # says which size is the smallest
    return checkpoint, size


def _new_classifier(path: Path, data: str) -> str:
    command = f"densenet-multi train --weights {path} --data {data} --output RUN"
    return f"train a new classifier with: {command}"


def _say_what_is_assumed(path: Path, checkpoint: Checkpoint, say: Say) -> None:
    if checkpoint.usage.value_range is None:
        say(f"{path}: does not say which pixel values the network wants; 0 to 1 is assumed")


def _model(checkpoint: Checkpoint, backend: str, device: str | None) -> tuple[Backend, Any]:
    if device == "cpu":
        hide_gpus()
    module = load_backend(backend)
    model = module.build(checkpoint.spec, dtype=widest(checkpoint.weights))
    module.import_weights(model, checkpoint.weights)
    place(module, model, device)
    return module, model


def _answers(
    path: Path,
    checkpoint: Checkpoint,
    backend: str,
    examples: Examples,
    batch_size: int,
    *,
    device: str | None,
    bfloat16: bool = False,
) -> Iterator[tuple[Integers, Floats]]:
    """Batch by batch: the indices of the examples (n,), and their logits (n, num_classes)."""
    module, model = _model(checkpoint, backend, device)
    if bfloat16:
        model = module.optimize(model, bfloat16=True)
    yield from answers(path, module, model, examples, batch_size)


def answers(
    path: Path | str, module: Backend, model: Any, examples: Examples, batch_size: int
) -> Iterator[tuple[Integers, Floats]]:
    """Batch by batch: the indices of the examples (n,), and a model's logits (n, num_classes).

    Raises ``WeightsError``, which names ``path``, where an answer is not finite.
    """
    with progress() as bar:
        task = bar.add_task(f"predicting in {module.FRAMEWORK}", total=len(examples))
        for start in range(0, len(examples), batch_size):
            indices = np.arange(start, min(start + batch_size, len(examples)))
            logits = module.predict(model, examples.take(indices))
            if not np.isfinite(logits).all():
                raise WeightsError(
                    f"{path}: expected finite logits, found others for images {indices[0]} to "
                    f"{indices[-1]}; look at the weights with: densenet-multi inspect {path}"
                )
            yield indices, logits
            bar.update(task, advance=len(indices))


def _listed(names: list[str]) -> str:
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*map(repr, names[:NAMED]), *more])


# --- Output -------------------------------------------------------------------------------------


def picture(result: dict[str, Any]) -> bytes:
    """The confusion matrix of what ``evaluate`` returns, as SVG."""
    return confusion_matrix(np.array(result["confusion"]), tuple(result["class_names"]))


def table(result: dict[str, Any]) -> Any:
    """What ``evaluate`` returns, for a terminal."""
    from rich import box
    from rich.table import Table

    names, confusion = result["class_names"], np.array(result["confusion"])
    size = f"{result['image_size']}x{result['image_size']}"
    where = (
        f"test images of {result['data']}, {size}, in {result['backend']}"
        + ", bfloat16" * result["bfloat16"]
    )
    drawn = Table(
        box=box.SIMPLE_HEAD,
        title=f"{result['weights']}\n{where}",
        title_justify="left",
        caption=f"mean cross entropy {result['loss']:.4f}",
        caption_justify="left",
        show_footer=True,
    )
    drawn.add_column("class", "all")
    drawn.add_column("images", f"{result['examples']:,}", justify="right")
    drawn.add_column("accuracy", f"{result['accuracy']:.4f}", justify="right")
    drawn.add_column("most often taken for")
    rows = zip(confusion, result["per_class"].items(), confused_with(confusion), strict=True)
    for counts, (name, accuracy), worst in rows:
        drawn.add_row(
            name,
            f"{counts.sum():,}",
            "" if accuracy is None else f"{accuracy:.4f}",
            f"{names[worst[0]]} ({worst[1]:,})" if worst else "",
        )
    return drawn


def predictions(found: list[dict[str, Any]]) -> Any:
    """What ``predict`` returns, for a terminal: a block for each image."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table

    blocks: list[Any] = []
    for entry in found:
        drawn = Table.grid(padding=(0, 2))
        drawn.add_column(justify="right")
        for row in entry["top"]:
            drawn.add_row(f"{row['probability']:.4f}", row["class"])
        blocks += [entry["image"], Padding(drawn, (0, 0, 0, 2)), ""]
    return Group(*blocks[:-1])
