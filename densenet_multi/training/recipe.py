"""The hyper-parameters of a training run, which mean the same in all four frameworks.

A step updates every weight w by stochastic gradient descent with momentum. Here g is the gradient
of the batch's mean loss with respect to w, and v is the velocity of w, which starts at 0::

    g = g + weight_decay * w
    v = momentum * v + g
    w = w - learning_rate * (g + momentum * v  if nesterov else  v)

PyTorch, Optax and Torch (which the paper used) follow this rule. Keras' and MXNet's own optimizers
include the learning rate in v, so results differ once the rate changes. Keras also applies weight
decay outside v. The loss is the cross entropy of the predictions and ``targets`` (see run.py)::

    targets = (1 - label_smoothing) * one_hot(label) + label_smoothing / num_classes

The schedule sets the learning rate of step i, counted from 0. Here n is the number of steps in the
run, k = floor(warmup * n) of them are warmup steps, and p = max(0, i - k) / (n - k) is the
completed fraction of the other steps::

    constant    learning_rate * learning_rate_factor ** (number of milestones m with m * n <= i)
    cosine      learning_rate * (1 + cos(pi * p)) / 2
    linear      learning_rate * (1 - p)

During warmup (i < k), that rate is multiplied by (i + 1) / (k + 1). Standard library only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from struct import pack, unpack
from types import MappingProxyType
from typing import Any

from .._checks import (
    INITIALIZATIONS,
    LARGEST_SIDE,
    ConfigError,
    bad,
    ceiling_of_decimal,
    check_names,
    check_seed,
    integer,
    number,
    refuse_unknown_fields,
    shown,
    truth,
)

NUMBERS = ("learning_rate", "momentum", "weight_decay", "learning_rate_factor")
FRACTIONS = ("average", "warmup", "label_smoothing")
SCHEDULES = ("constant", "cosine", "linear")
RANGES = {  # the lowest and the highest value of each count
    "image_size": (1, LARGEST_SIDE),
    "recalibrate": (0, 2**20),
    "epochs": (1, 100_000),
    "batch_size": (2, 2**20),
    "shift": (0, LARGEST_SIDE),
}
MOST_STEPS = 10**7  # in a run; the learning rate of each is kept in memory
MOST_MILESTONES = 1_000


@refuse_unknown_fields
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The hyper-parameters of a training run; ``ConfigError`` names the offending field.

    Attributes:
        variant, image_size, initialization: the defaults of the ``train`` command; ``fit`` uses the
            model, its weights and the images as they are.
        recalibrate: the number of batches for recomputing the running statistics after the last
            epoch (see ``training.statistics``). ``train`` recomputes those of the averaged weights,
            or of the last weights if none are averaged; it also saves the last weights unchanged.
            Recomputing helps where the learning rate stays high.
        average: average the weights at the end of each epoch in this last fraction of the run
            (stochastic weight averaging: Izmailov et al., https://arxiv.org/abs/1803.05407). The
            number of epochs is rounded up: 0.5 of 3 is 2; 0 averages none. ``fit`` leaves the last
            weights in the model and returns the mean as ``History.mean``.
        epochs: passes over the training examples, from 1 to 100,000.
        batch_size: examples per step, at least 2. The last batch of an epoch may be smaller, but a
            single leftover example is skipped: BatchNorm learns nothing from a single value.
        learning_rate: the initial rate, before warmup scales it; above 0.
        schedule: "constant", "cosine" or "linear": see above.
        milestones: only with "constant": increasing fractions of the steps in the run, at which the
            learning rate is multiplied by ``learning_rate_factor``.
        warmup: the fraction of steps, at the start of the run, in which the learning rate rises.
        momentum, nesterov, weight_decay: see the rule above. As in the paper, weight decay applies
            to every weight, including BatchNorm's parameters and biases.
        label_smoothing: the share of each target that is spread evenly over all classes.
        flip: mirror each example left to right with probability 1/2.
        shift: move each example by up to this many pixels, vertically and horizontally.
        bfloat16: compute convolutions and matrix products in bfloat16, also when validating.
            Weights, BatchNorm's statistics, the loss and the update stay float32. MXNet 1.9.1 does
            not support it.
        train_features: False trains only the classifier; all other weights stay unchanged, and so
            do the running statistics.
        seed: seeds the order, flips and shifts; in ``train``, also initial weights and data split.
    """

    variant: str = "d2l"
    image_size: int = 96
    initialization: str = "he_fan_out"
    recalibrate: int = 0
    average: float = 0.0
    epochs: int = 10
    batch_size: int = 256
    learning_rate: float = 0.1
    schedule: str = "constant"
    milestones: tuple[float, ...] = ()
    learning_rate_factor: float = 0.1
    warmup: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    flip: bool = False
    shift: int = 0
    bfloat16: bool = False
    train_features: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            name: number(name, getattr(self, name)) for name in NUMBERS + FRACTIONS
        }
        for name, (least, most) in RANGES.items():
            checked[name] = integer(name, getattr(self, name), least, most)
        checked["seed"] = check_seed(self.seed)
        for name in ("nesterov", "flip", "bfloat16", "train_features"):
            checked[name] = truth(name, getattr(self, name))
        checked["milestones"] = _increasing_fractions(self.milestones)
        if not isinstance(self.variant, str):
            raise bad("variant", self.variant, "the name of a network, such as 'densenet121'")
        check_names("schedule", [self.schedule], SCHEDULES)
        check_names("initialization", [self.initialization], INITIALIZATIONS)
        if self.schedule != "constant" and checked["milestones"]:
            raise bad("milestones", self.milestones, f"none with schedule={self.schedule!r}")
        if checked["nesterov"] and checked["momentum"] == 0:
            raise bad("momentum", self.momentum, "a number above 0 with nesterov=True")
        if checked["recalibrate"] and not checked["train_features"]:
            raise bad("recalibrate", self.recalibrate, "0 with train_features=False")
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def averaged_epochs(self) -> range:
        """The epochs, counted from 1, after which the weights are averaged."""
        return range(
            self.epochs - ceiling_of_decimal(self.average, self.epochs) + 1, self.epochs + 1
        )

    def rounded(self) -> Recipe:
        """Return the same recipe with the numbers of the update rule rounded to float32.

        Keras and MXNet store them in float32. Rounding them once, here, makes them equal in every
        framework and dtype.
        """
        rounded: dict[str, Any] = {name: _float32(getattr(self, name)) for name in NUMBERS}
        return replace(self, **rounded)

    def learning_rates(self, steps: int) -> list[float]:
        """Return the learning rate of each step of a run of ``steps`` steps, rounded to float32.

        Raises ``ConfigError`` for more than 10**7 steps.
        """
        steps = integer("steps", steps, 0)
        if steps > MOST_STEPS:
            raise ConfigError(
                f"epochs: expected at most {MOST_STEPS:,} steps in all, found {steps:,}; choose "
                "fewer epochs or larger batches"
            )
        warm = math.floor(self.warmup * steps)
        rates = []
        for step in range(steps):
            passed = sum(step >= fraction * steps for fraction in self.milestones)
            done = max(0, step - warm) / (steps - warm)
            factor = {
                "constant": self.learning_rate_factor**passed,
                "cosine": (1 + math.cos(math.pi * done)) / 2,
                "linear": 1 - done,
            }[self.schedule]
            warmth = min(1.0, (step + 1) / (warm + 1))
            rates.append(_float32(self.learning_rate * factor * warmth))
        return rates

    def to_json(self) -> str:
        """Return the recipe as JSON, for ``from_json``."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Rebuild a recipe from the result of ``to_json``. Raises ``ConfigError``."""
        try:
            given = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            found = f"found {shown(text)[:40]} ({error})"
            raise ConfigError(f"recipe: expected JSON, {found}") from None
        if not isinstance(given, dict):
            raise bad("recipe", given, "a JSON object with the fields of Recipe")
        return cls(**given)


def _increasing_fractions(given: Any) -> tuple[float, ...]:
    allowed = "increasing fractions between 0 and 1, such as (0.5, 0.75)"
    if not isinstance(given, (tuple, list)) or len(given) > MOST_MILESTONES:
        raise bad("milestones", given, allowed)
    try:
        fractions = tuple(number("milestones", fraction) for fraction in given)
    except ConfigError:
        raise bad("milestones", given, allowed) from None
    if list(fractions) != sorted(set(fractions)):
        raise bad("milestones", given, allowed)
    return fractions


def _float32(value: float) -> float:
    rounded: float = unpack("f", pack("f", value))[0]
    return rounded


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        # Dive into Deep Learning, chapter 7.7.
        "chapter": Recipe(initialization="xavier", recalibrate=24, average=0.5),
        # Paper, section 4.2, CIFAR and SVHN: "initial learning rate 0.1, divided by 10 at 50% and
        # 75% of the total number of training epochs"; C10+ is CIFAR-10 with flips and shifts.
        "paper": Recipe(
            variant="densenet_bc100_k12",
            image_size=32,
            epochs=300,
            batch_size=64,
            milestones=(0.5, 0.75),
            momentum=0.9,
            nesterov=True,
            weight_decay=1e-4,
            flip=True,
            shift=4,
        ),
        # Our own: a network of fewer than a million parameters, for ten epochs on two cores.
        "modern": Recipe(
            variant="densenet_bc32_k32",
            image_size=28,
            epochs=10,
            batch_size=128,
            learning_rate=0.2,
            schedule="linear",
            warmup=0.15,
            momentum=0.9,
            nesterov=True,
            weight_decay=5e-4,
            label_smoothing=0.1,
            flip=True,
            shift=2,
        ),
        # Our own too: Fashion-MNIST at twice its size, in a coffee break on two cores.
        "quick": Recipe(
            variant="densenet10_k32",
            image_size=56,
            epochs=6,
            batch_size=128,
            learning_rate=0.2,
            schedule="linear",
            warmup=0.15,
            momentum=0.9,
            nesterov=True,
            weight_decay=5e-4,
            label_smoothing=0.1,
            flip=True,
            shift=2,
        ),
    }
)
