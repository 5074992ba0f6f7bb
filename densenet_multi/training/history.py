"""What happened in a training run."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..weights import Weights
from .fields import AMOUNT, FRACTION, NUMBER, ORDINAL, or_null
from .recipe import Recipe

STEP = {  # as JSON: see fields.py
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
    """One step: its number and epoch (from 1), mean cross entropy in nats and fraction of right
    answers of its batch before the update, and the learning rate."""

    number: int
    epoch: int
    loss: float
    accuracy: float
    learning_rate: float


@dataclass(frozen=True)
class Epoch:
    """One epoch, counted from 1.

    Attributes:
        steps: taken since the beginning of the run.
        loss, accuracy: means over the examples as they were trained on, in training mode.
        validation_loss, validation_accuracy: after the epoch, in evaluation mode; None without
            validation examples.
        seconds: of its training steps, without the validation.
        images_per_second: of the same.
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
    """What ``fit`` returns.

    Attributes:
        recipe: that was followed.
        steps, epochs: every one, in order.
        mean: of the weights as each of ``recipe.averaged_epochs`` ended, {canonical name: array};
            None where there are no such epochs. Its running statistics are means too, and fit no
            network: recompute them with ``statistics.measure_statistics``.
    """

    recipe: Recipe
    steps: list[Step] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    mean: Weights | None = field(default=None, repr=False, compare=False)
