"""What a training run does, as data with one meaning in all four frameworks.

The rule of each step, for a weight w with gradient g of the mean cross entropy, at the learning
rate of that step (v starts at 0)::

    g = g + weight_decay * w
    v = momentum * v + g
    w = w - learning_rate * (g + momentum * v  if nesterov else  v)

It is that of Torch, in which the paper's nets were trained, and of PyTorch and Optax. Keras and
MXNet put the learning rate into v, which differs as soon as the rate changes; Keras' weight decay
acts apart from the momentum. The cross entropy is taken against ``targets`` (see run.py)::

    targets = (1 - label_smoothing) * one_hot(label) + label_smoothing / num_classes

Step i of n, counted from 0, has this learning rate, where w = floor(warmup * n) and
p = max(0, i - w) / (n - w)::

    constant    learning_rate * learning_rate_factor ** (number of milestones m with i >= m * n)
    cosine      learning_rate * (1 + cos(pi * p)) / 2
    linear      learning_rate * (1 - p)

and, during warmup, (i + 1) / (w + 1) of it. Standard library only.
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
RANGES = {  # the least and the most of each count
    "image_size": (1, LARGEST_SIDE),
    "recalibrate": (0, 2**20),
    "epochs": (1, 100_000),
    "batch_size": (2, 2**20),
    "shift": (0, LARGEST_SIDE),
}
MOST_STEPS = 10**7  # in all; each has a learning rate
MOST_MILESTONES = 1_000


@refuse_unknown_fields
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The hyper-parameters of a training run; ``ConfigError`` names the offending field.

    Attributes:
        variant, image_size, initialization: what the command line trains unless told otherwise;
            ``fit`` takes the network, its weights and the images as they are.
        recalibrate: the number of batches on which ``train``, after the last epoch, recomputes the
            running statistics (``training.statistics``) of the mean of the weights, or of the last
            weights; it saves both. This helps where the learning rate stays high.
        average: the last fraction of the epochs (0.5 of 3 is 2: rounded up) whose weights, as each
            ended, are averaged (stochastic weight averaging: Izmailov et al.,
            https://arxiv.org/abs/1803.05407); 0 averages none. ``fit`` leaves the last weights in
            the model, and the mean in ``History.mean``.
        epochs: passes over the training examples, from 1 to 100,000.
        batch_size: examples per step, at least 2. The last batch of an epoch may be smaller; one
            example left over is skipped, since BatchNorm learns nothing from a single value.
        learning_rate: of the first step without warmup, above 0.
        schedule: how it changes, see above; ``milestones`` belong to ``"constant"``.
        milestones: the fractions of all steps, increasing, at which the learning rate is multiplied
            by ``learning_rate_factor``.
        warmup: the fraction of all steps in which the learning rate rises.
        momentum, nesterov, weight_decay: see the rule above. Weight decay acts on every weight, on
            BatchNorm's and on biases too, as in the paper.
        label_smoothing: the share of the target that is spread over all classes.
        flip: mirror each example with probability 1/2.
        shift: move each example by up to that many pixels up or down and left or right.
        bfloat16: multiply in bfloat16, also when testing after an epoch; weights, BatchNorm's
            statistics, the loss and the update stay float32. MXNet 1.9.1 cannot.
        train_features: False trains the classifier alone; everything before it stays as it is, its
            running statistics too.
        seed: of the order, flips and shifts; in ``train`` also of initial weights and the split.
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
            raise bad("recalibrate", self.recalibrate, "0 where the features stay as they are")
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def averaged_epochs(self) -> range:
        """The epochs, from 1, whose weights are averaged."""
        return range(
            self.epochs - ceiling_of_decimal(self.average, self.epochs) + 1, self.epochs + 1
        )

    def rounded(self) -> Recipe:
        """The same with the numbers of the rule as float32 holds them.

        Keras and MXNet store them so; rounded once, they are the same in every framework and dtype.
        """
        rounded: dict[str, Any] = {name: _float32(getattr(self, name)) for name in NUMBERS}
        return replace(self, **rounded)

    def learning_rates(self, steps: int) -> list[float]:
        """The learning rate of each of ``steps`` steps in all, as float32 holds it.

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
        """As JSON, which ``from_json`` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that ``to_json`` wrote. Raises ``ConfigError``."""
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
        # 75% of the total number of training epochs"; C10+ is mirrored and shifted.
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
        # Ours: what ten epochs of fewer than a million parameters reach on two cores.
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
    }
)
