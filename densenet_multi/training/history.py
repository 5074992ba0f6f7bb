"""The record of a training run: its steps, its epochs and the averaged weights."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..weights import Weights
from .fields import AMOUNT, FRACTION, NUMBER, ORDINAL, or_null
from .recipe import Recipe

STEP = {  # the shape of a ``Step`` as JSON: see fields.py
    "number": ORDINAL,
    "epoch": ORDINAL,
    "loss": NUMBER,
    "accuracy": FRACTION,
    "learning_rate": AMOUNT,
}
EPOCH = {
    "number": ORDINAL,
    "steps": ORDINAL,
    "loss": NUMBER,
    "accuracy": FRACTION,
    "validation_loss": or_null(NUMBER),
    "validation_accuracy": or_null(FRACTION),
    "seconds": AMOUNT,
    "images_per_second": AMOUNT,
}


@dataclass(frozen=True)
class Step:
    """One training step. ``number`` and ``epoch`` count from 1. Loss (mean cross entropy in nats)
    and accuracy (a fraction) are those of the step's batch, before the update. For rows of a table,
    the loss is the mean squared error, and the accuracy is NaN."""

    number: int
    epoch: int
    loss: float
    accuracy: float
    learning_rate: float


@dataclass(frozen=True)
class Epoch:
    """One epoch, counted from 1.

    Attributes:
        steps: the steps completed since the beginning of the run.
        loss, accuracy: means over the examples, measured in training mode before each update.
        validation_loss, validation_accuracy: measured after the epoch, in evaluation mode; None
            without validation examples.
        seconds: duration of its training steps, without validation.
        images_per_second: speed of its training steps.
    """

    number: int
    steps: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    images_per_second: float


@dataclass
class History:
    """The record of a training run, which ``fit`` returns.

    Attributes:
        recipe: the recipe of the run.
        steps, epochs: in order. A resumed run lacks the steps of epochs completed earlier.
        mean: the mean of the weights at the ends of ``recipe.averaged_epochs``, {canonical name:
            array}; None without such epochs. Its running statistics, also means, do not match its
            weights: recompute the statistics with ``training.statistics.measure_statistics``.
    """

    recipe: Recipe
    steps: list[Step] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    mean: Weights | None = field(default=None, repr=False, compare=False)
