"""What a training run is apart from its steps: checks, batches, what is written down, progress.

The steps are each backend's own: see ``train.py`` there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ._checks import ConfigError
from ._progress import progress
from .data import Arrays, Examples, epoch_order
from .history import Epoch, History, Step
from .inputs import ImageError, check_images, check_labels
from .recipe import Recipe
from .reference import cross_entropy
from .spec import DenseNetSpec

Batch = tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.int64]]
Data = Examples | tuple[Any, Any]
Callback = Callable[[Step | Epoch], object]


class TrainingError(ValueError):
    """The run cannot go on; the message says at which step, and what to change."""


class Training:
    """One run of a recipe. A backend's ``fit`` takes batches from it and reports every step::

        with Training(model.spec, "float32", recipe, data) as run:
            for _ in range(run.recipe.epochs):
                for x, y, rate in run.batches():
                    ...
                    run.record(loss, accuracy)
                run.finish_epoch(logits)
        return run.history

    Arguments:
        spec: of the network, which must have a classifier.
        dtype: of the images that ``batches`` gives.
        recipe: its numbers are rounded once (``Recipe.rounded``).
        data: examples to train on, or a pair (images (N, C, H, W), labels (N,)).
        validation: the same to test with after every epoch, or None.
        callbacks: called with every ``Step`` and every ``Epoch``.

    Raises ``ConfigError``, ``ImageError`` or ``ImageSizeError`` where these do not fit together.
    """

    def __init__(
        self,
        spec: DenseNetSpec,
        dtype: str,
        recipe: Recipe,
        data: Data,
        *,
        validation: Data | None = None,
        callbacks: Iterable[Callback] = (),
    ) -> None:
        if not isinstance(recipe, Recipe):
            raise ConfigError(
                f"recipe: expected a Recipe, such as Recipe(epochs=3), found {recipe!r}"
            )
        self.recipe = recipe.rounded()
        self.history = History(recipe)
        self._spec, self._dtype = spec, dtype
        self._data = self._checked("data", data)
        self._validation = None if validation is None else self._checked("validation", validation)
        self._callbacks = list(callbacks)
        count, size = len(self._data), recipe.batch_size
        if size > count:
            raise ConfigError(f"batch_size: expected at most the {count} examples, found {size}")
        self._order = lru_cache(maxsize=2)(partial(epoch_order, count, recipe.seed))
        self.steps_per_epoch = count // size + (count % size > 1)  # a batch of one is skipped
        self.rates = self.recipe.learning_rates(recipe.epochs * self.steps_per_epoch)
        self._progress = _bar()
        self._bar = self._progress.add_task("training", total=len(self.rates), status="")

    def __enter__(self) -> Self:
        self._progress.start()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @property
    def epoch(self) -> int:
        """The epoch that is under way, from 0."""
        return len(self.history.epochs)

    def batch(self, epoch: int, index: int) -> Batch:
        """Images (n, C, H, W) in the run's dtype and labels (n,) of one step of an epoch.

        Both are counted from 0; the same arguments give the same batch.
        """
        size = self.recipe.batch_size
        indices = self._order(epoch)[index * size : (index + 1) * size]
        x = check_images(self._spec, self._data.take(indices), self._dtype)
        return x, np.asarray(self._data.labels)[indices].astype(np.int64)

    def batches(
        self,
    ) -> Iterator[tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.int64], float]]:
        """The batches of the epoch that is under way, each with its learning rate."""
        for index in range(self.steps_per_epoch):
            yield *self.batch(self.epoch, index), self.rates[len(self.history.steps)]

    def record(self, loss: float, accuracy: float) -> None:
        """Write down a step. Raises ``TrainingError`` if the loss is not finite."""
        number = len(self.history.steps) + 1
        rate = self.rates[number - 1]
        if not math.isfinite(loss):
            raise TrainingError(
                f"step {number} (epoch {self.epoch + 1}): expected a finite loss, found {loss}; "
                f"try a learning rate below {rate:g}"
            )
        step = Step(number, self.epoch + 1, loss, accuracy, rate)
        self.history.steps.append(step)
        self._progress.update(self._bar, advance=1, status=f"loss {loss:.3f}")
        self._call_back(step)

    def finish_epoch(self, logits: Callable[[Any], Any]) -> None:
        """Write down an epoch. ``logits`` takes images (n, C, H, W) to NumPy logits (n, classes),
        in evaluation mode."""
        seconds = time.perf_counter() - self._start
        steps = self.history.steps[-self.steps_per_epoch :]
        size, count = self.recipe.batch_size, len(self._data)
        sizes = np.diff([*range(0, count, size), count])[: len(steps)]
        tested = self._test(logits)
        epoch = Epoch(
            self.epoch + 1,
            float(np.average([step.loss for step in steps], weights=sizes)),
            float(np.average([step.accuracy for step in steps], weights=sizes)),
            *tested,
            seconds,
            int(sizes.sum()) / seconds,
        )
        self.history.epochs.append(epoch)
        self._call_back(epoch)
        self._start = time.perf_counter()

    def _test(self, logits: Callable[[Any], Any]) -> tuple[float | None, float | None]:
        data, size = self._validation, self.recipe.batch_size
        if data is None:
            return None, None
        loss = right = 0.0
        for start in range(0, len(data), size):
            indices = np.arange(start, min(start + size, len(data)))
            labels = np.asarray(data.labels)[indices]
            scores = logits(check_images(self._spec, data.take(indices), self._dtype))
            loss += cross_entropy(scores, labels) * len(indices)
            right += int((scores.argmax(axis=1) == labels).sum())
        return loss / len(data), right / len(data)

    def _checked(self, what: str, data: Data) -> Examples:
        pair = isinstance(data, (tuple, list)) and len(data) == 2
        given: Any = data
        examples = Arrays(*map(np.asarray, given)) if pair else given
        if not hasattr(examples, "labels") or not hasattr(examples, "take"):
            expected = "(images, labels), or an object like data.FashionMNIST"
            raise ConfigError(f"{what}: expected {expected}; found {type(data).__name__}")
        try:
            if len(examples) == 0:
                raise ImageError("images: expected at least one, found none")
            check_labels(examples.labels, len(examples), self._spec.config.num_classes)
            check_images(self._spec, examples.take(np.arange(1)))
        except ValueError as error:
            raise type(error)(f"{what}: {error}") from None
        checked: Examples = examples
        return checked

    def _call_back(self, event: Step | Epoch) -> None:
        for callback in self._callbacks:
            callback(event)


def _bar() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    text, status = TextColumn("{task.description}"), TextColumn("{task.fields[status]}")
    return progress(text, BarColumn(), MofNCompleteColumn(), status, TimeRemainingColumn())
