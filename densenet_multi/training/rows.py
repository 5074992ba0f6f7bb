"""A training run on the rows of a table: ``Run`` with numbers as targets.

The loop that uses it is in each backend's tabular.py. That of train.py is for images: it knows
memory formats, bfloat16, frozen features and accuracy, none of which rows have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
from rich.progress import Progress

from .._checks import ConfigError, bad
from .._inputs import ImageError
from ..data import Arrays
from ..tabular import check_row_batch
from .recipe import Recipe
from .run import Array, Batch, Callback, Data, Run

FOR_IMAGES = ("recalibrate", "label_smoothing", "flip", "shift", "bfloat16", "train_features")


class RowRun(Run):
    """One training run on rows; its loss is the mean squared error, and it has no accuracy (NaN).

    It shows no progress bar, because it takes seconds. The arguments are those of ``fit``: see
    ``backends.TabularBackend``.
    """

    def __init__(
        self,
        model: Any,
        data: tuple[Any, Any],
        recipe: Recipe,
        *,
        validation: tuple[Any, Any] | None = None,
        callbacks: Iterable[Callback] = (),
    ) -> None:
        super().__init__(model, data, recipe, validation=validation, callbacks=callbacks)

    def batch(self, epoch: int, index: int) -> Batch:
        """Return the rows (n, in_features) and targets (n, 1) of one step of an epoch."""
        size = self.recipe.batch_size
        part = self._order(epoch)[index * size : (index + 1) * size]
        return self._data.take(part), self._data.labels[part]

    def batches(self) -> Iterator[tuple[Array, Array, float]]:
        """Yield as ``Run.batches`` does, but without a thread: a batch takes microseconds."""
        for index in range(self.steps_per_epoch):
            yield *self.batch(self.epoch, index), self.rates[self.steps]

    def record(self, loss: float, accuracy: float = math.nan) -> None:
        """Record a step. Raises ``TrainingError`` if the loss is not finite."""
        super().record(loss, accuracy)

    def _check_recipe(self, recipe: Recipe) -> None:
        for field in fields(recipe):
            value = getattr(recipe, field.name)
            if field.name in FOR_IMAGES and value != field.default:
                raise bad(field.name, value, f"{field.default!r} for a network for tables")

    def _checked(self, what: str, data: Data) -> Arrays:
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise ConfigError(f"{what}: expected (rows, targets), found {type(data).__name__}")
        least = 1 if what == "validation" else 2
        try:
            return Arrays(*check_row_batch(self._spec, *data, self._dtype, least))
        except ImageError as error:
            raise ImageError(f"{what}: {error}") from None

    def _test(self, predict: Callable[[Any], Any]) -> tuple[float | None, None]:
        if self._validation is None:
            return None, None
        data = self._validation
        rows = data.take(np.arange(len(data)))
        return float(np.mean((predict(rows) - data.labels[:, 0]) ** 2)), None

    def _new_bar(self) -> Progress:
        return Progress(disable=True)
