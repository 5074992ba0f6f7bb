"""Measure a network's accuracy on test images; its weights come from a portable file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import (
    COUNTED,
    ConfigError,
    bad,
    check_names,
    function,
    integer,
    listed,
    text,
    truth,
)
from .._files import as_path
from ..backends import backend_names, check_device, framework_versions
from ..checkpoint import Checkpoint
from ..data import Examples, load_held_out
from ..data.sources import find
from ..reference import cross_entropy
from ..training.statistics import measure_statistics
from ..weights import Weights
from ._trained_by import backend_to_use
from .predict import (
    ONNX_RUNTIME,
    Floats,
    Integers,
    Say,
    batches_of_logits,
    build_model,
    load_classifier,
    runs_in_onnx_runtime,
    say_assumed_pixels,
    train_a_new_classifier,
)

NAMED = 5  # class names in an error


def evaluate(
    path: str | Path,
    *,
    backend_name: str | None = None,
    data: str = "fashion-mnist",
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    batch_size: int = 64,
    seed: int | None = None,
    split: str | None = None,
    recalibrate: int = 0,
    device: str | None = None,
    bfloat16: bool = False,
    say: Say = lambda _: None,
    on_backend: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Measure accuracy, loss and confusion matrix of a trained network on test images.

    Arguments:
        path: the portable file, or an ONNX file, which ONNX Runtime runs without any backend.
        backend_name: the backend to predict in; None uses the one that trained the network, if
            known and installed, else the first installed.
        data: see ``data.load_data``.
        data_dir: see ``data.load_data``.
        image_size: pixels per side; None uses the file's value, else the usual size.
        batch_size: images per batch.
        seed: splits a folder into training and test images; None uses the file's seed, else 0.
        split: which images: "test", "train" or "all"; None selects those that the network was not
            trained on, and ``say`` reports which: see ``data.load_held_out``.
        recalibrate: recompute the running statistics on this many batches of 256 training images:
            see ``recalibrated``.
        device: see ``train.train``.
        bfloat16: predict with ``optimize(model, bfloat16=True)``.
        say: called with sentences for the user.
        on_backend: called with the backend's name, before its framework is imported.

    Returns:
        Plain values: ``accuracy``, ``loss`` (mean cross entropy, in nats), ``per_class`` ({name:
        accuracy, or None without images}), ``confusion`` (see ``confusion_counts``; rows and
        columns in the order of ``class_names``), ``examples``, ``split``, ``backend``,
        ``versions``, and more. A network with one sigmoid output for two classes predicts
        that output's class if its probability is above 0.5.

    Raises ``ConfigError`` if the network's classes are not those of the data, or are not mutually
    exclusive (one sigmoid each); ``WeightsError`` if a logit is not finite; otherwise as
    ``load_checkpoint``, ``load_held_out``, ``load_backend``.
    """
    path = as_path(path)
    batch_size = integer("batch_size", batch_size, 1)
    recalibrate = integer("recalibrate", recalibrate, 0)
    check_device(device)
    truth("bfloat16", bfloat16)
    function("say", say)
    function("on_backend", on_backend)
    text("data", data)
    if backend_name is not None:
        check_names("backend", [backend_name], backend_names())
    if seed is not None and find(data)[0] != "folder":
        raise bad("seed", seed, f"none with data={data!r}, whose test images are fixed")
    impossible: dict[str, Any] = {"backend_name": backend_name, "device": device}
    impossible |= {"recalibrate": recalibrate, "bfloat16": bfloat16}
    with_onnx = runs_in_onnx_runtime(path, **impossible)
    checkpoint, size = load_classifier(path, image_size, data)
    check_exclusive(path, checkpoint)
    backend_name = (
        ONNX_RUNTIME if with_onnx else backend_to_use(backend_name, path, checkpoint, say)
    )
    on_backend(backend_name)
    chosen = load_held_out(
        data,
        image_size=size,
        in_channels=checkpoint.spec.config.in_channels,
        usage=checkpoint.usage,
        data_dir=data_dir,
        seed=seed,
        split=split,
        with_train=recalibrate > 0,
    )
    for note in chosen.notes:
        say(note)
    names, examples = chosen.class_names, chosen.examples
    try:
        scores_of = class_scores(checkpoint, names, say)
    except ConfigError as error:
        advice = train_a_new_classifier(path, data) + _other_names(path, checkpoint, names)
        raise ConfigError(f"{path}: {error}; {advice}") from None
    say_assumed_pixels(path, checkpoint, say)
    labels = np.asarray(examples.labels).astype(np.int64)
    if recalibrate:
        weights = recalibrated(backend_name, checkpoint, chosen.train, recalibrate, device=device)
        checkpoint = replace(checkpoint, weights=weights)
    backend, model = build_model(checkpoint, backend_name, device, path)
    if bfloat16:
        model = backend.optimize(model, bfloat16=True)
    confusion, loss = np.zeros((len(names),) * 2, np.int64), 0.0
    for indices, logits in batches_of_logits(path, backend, model, examples, batch_size):
        scores = scores_of(logits)
        loss += cross_entropy(scores, labels[indices]) * len(indices)
        confusion += confusion_counts(labels[indices], scores.argmax(axis=1), len(names))
    return {
        "weights": str(path),
        "data": data,
        "data_from": chosen.where,
        "split": chosen.split,
        "image_size": size,
        "recalibrate": recalibrate,
        "bfloat16": bfloat16,
        "examples": len(examples),
        "accuracy": int(confusion.trace()) / len(examples),
        "loss": loss / len(examples),
        "class_names": list(names),
        "per_class": dict(zip(names, class_accuracies(confusion), strict=True)),
        "confusion": confusion.tolist(),
        "backend": backend_name,
        "versions": model.versions if with_onnx else framework_versions(backend_name),
    }


def recalibrated(
    backend_name: str,
    checkpoint: Checkpoint,
    examples: Examples,
    batches: int,
    *,
    batch_size: int = 256,
    device: str | None = None,
) -> Weights:
    """Return the weights with BatchNorm running statistics recomputed as means over batches.

    During training, a running statistic is a weighted mean over the last ten or so batches, each
    computed with different weights. At a high learning rate, that mean lags behind. This function
    computes the statistics of the current weights.

    Arguments:
        backend_name: the backend to compute in.
        checkpoint: the network.
        examples: used in the order of the first epoch with seed 0.
        batches: the number of batches; fewer if the examples do not fill that many.
        batch_size: images per batch.
        device: see ``train.train``.

    Source: Y. Wu and J. Johnson, https://arxiv.org/abs/2105.07576, section 3.
    """
    backend, model = build_model(checkpoint, backend_name, device)
    return measure_statistics(backend, model, examples, batches, batch_size)


# --- The numbers --------------------------------------------------------------------------------


def confusion_counts(labels: npt.ArrayLike, predicted: npt.ArrayLike, classes: int) -> Integers:
    """Return the confusion matrix (classes, classes), with a row for each true class.

    Arguments:
        labels: the true classes, integers of shape (N,) from 0 to classes - 1.
        predicted: the predicted classes, in the same form.
        classes: number of classes.
    """
    pairs = np.asarray(labels).astype(np.int64) * classes + np.asarray(predicted)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_accuracies(confusion: Integers) -> list[float | None]:
    """Return each class's accuracy (recall); None for a class without examples."""
    pairs = zip(confusion.diagonal().tolist(), confusion.sum(axis=1).tolist(), strict=True)
    return [right / count if count else None for right, count in pairs]


def check_exclusive(path: Path, checkpoint: Checkpoint) -> None:
    """Raise ``ConfigError`` for a multi-label network, which has a sigmoid for each class."""
    outputs = checkpoint.spec.config.num_classes
    if checkpoint.usage.activation == "sigmoid" and outputs > 1:
        raise ConfigError(
            f"{path}: expected mutually exclusive classes, one per image, found a sigmoid for "
            f"each of the {outputs} outputs (an image may have several classes or none); for "
            "the probability of each class, use: "
            f"predict({str(path)!r}, 'IMAGE')"
        )


def class_scores(
    checkpoint: Checkpoint, class_names: tuple[str, ...], say: Say = lambda _: None
) -> Callable[[Floats], Floats]:
    """Return a function that maps logits to scores of these classes, (N, classes).

    The logit of a single sigmoid output is the score of the class that the checkpoint names, or of
    the second class if it names none. The other class scores 0, so that the softmax over both
    equals the sigmoid. Raises ``ConfigError`` if the network's classes are not ``class_names``.
    """
    usage = checkpoint.usage
    if checkpoint.spec.config.num_classes != 1:
        order = output_order(checkpoint, class_names)
        return lambda logits: logits[:, order]
    if usage.activation not in (None, "sigmoid"):
        raise ConfigError(
            "expected an output per class, or one sigmoid output for two classes, found one output "
            f"with activation {usage.activation!r}"
        )
    if len(class_names) != 2:
        expected = f"expected {len(class_names)} classes as in the data"
        raise ConfigError(f"{expected}, found one output, which distinguishes two classes")
    if usage.class_names is None:
        say(
            f"the file does not state which class the network's single output represents; assuming "
            f"{class_names[1]!r}, the second class"
        )
    positive = usage.class_names[0] if usage.class_names else class_names[1]
    if positive not in class_names:
        raise ConfigError(
            f"expected the classes of the data, {_quoted(list(class_names))}, found {positive!r}"
        )
    index = class_names.index(positive)

    def scores(logits: Floats) -> Floats:
        made = np.zeros((len(logits), 2), logits.dtype)
        made[:, index] = logits[:, 0]
        return made

    return scores


def output_order(checkpoint: Checkpoint, class_names: tuple[str, ...]) -> Integers:
    """Return the index of the network's output for each of these classes, (classes,).

    Classes are matched by name if the network's names are known, else by order. Raises
    ``ConfigError`` if the network has other classes.
    """
    classes, own = checkpoint.spec.config.num_classes, checkpoint.usage.class_names
    if classes != len(class_names):
        raise ConfigError(f"expected {len(class_names)} classes as in the data, found {classes}")
    if own is None or own == class_names:
        return np.arange(classes)
    if set(own) != set(class_names):
        if checkpoint.usage.stated("class_names") is None:  # ImageNet's, spelled differently
            return np.arange(classes)
        missing = [name for name in class_names if name not in own]
        others = [name for name in own if name not in class_names]
        raise ConfigError(
            f"expected the classes of the data, found {_quoted(others) or 'some twice'} in place "
            f"of {_quoted(missing)}"
        )
    return np.array([own.index(name) for name in class_names])


def _other_names(path: Path, checkpoint: Checkpoint, class_names: tuple[str, ...]) -> str:
    """Return further advice in case the class names differ from the data's only in spelling."""
    own = checkpoint.usage.class_names
    if own is None or len(own) not in (1, len(class_names)):
        return ""
    alike = {name.casefold(): name for name in class_names}
    found = [alike.get(name.casefold(), "") for name in own]
    restated = ",".join(found) if all(found) and not any("," in name for name in found) else "NAMES"
    call = f"convert({str(path)!r}, 'NEW.safetensors', class_names={restated!r})"
    return f"; or, if only the names differ, replace them: {call}"


def _quoted(names: list[str]) -> str:
    return listed(map(repr, names), NAMED, COUNTED)
