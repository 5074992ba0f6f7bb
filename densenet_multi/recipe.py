"""What a training run does, as data with one meaning in all four frameworks.

The rule of each step, for a weight w with gradient g of the mean cross entropy, at the learning
rate of that step (v starts at 0)::

    g = g + weight_decay * w
    v = momentum * v + g
    w = w - learning_rate * (g + momentum * v  if nesterov else  v)

It is that of Torch, in which the paper's nets were trained, and of PyTorch and Optax. Keras and
MXNet put the learning rate into v, which differs as soon as the rate changes; Keras' weight decay
acts apart from the momentum. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from struct import pack, unpack
from types import MappingProxyType
from typing import Any

from ._checks import ConfigError, bad, integer, number, refuse_unknown_fields, truth

NUMBERS = ("learning_rate", "momentum", "weight_decay", "learning_rate_factor")


@refuse_unknown_fields
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The hyper-parameters of a training run; fields are checked, ``ConfigError`` names the wrong.

    Attributes:
        epochs: passes over the training examples, at least 1.
        batch_size: examples per step, at least 2. The last batch of an epoch may be smaller; one
            example left over is skipped, since BatchNorm learns nothing from a single value.
        learning_rate: at the first step, above 0.
        momentum, nesterov, weight_decay: see the rule above. Weight decay acts on every weight, on
            BatchNorm's and on biases too, as in the paper.
        milestones: the fractions of all steps, increasing, at which the learning rate is multiplied
            by ``learning_rate_factor``.
        seed: of the order of the examples; it does not draw the initial weights.
    """

    epochs: int = 10
    batch_size: int = 256
    learning_rate: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    milestones: tuple[float, ...] = ()
    learning_rate_factor: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {name: number(name, getattr(self, name)) for name in NUMBERS}
        for name, least in {"epochs": 1, "batch_size": 2, "seed": 0}.items():
            checked[name] = integer(name, getattr(self, name), least)
        checked["nesterov"] = truth("nesterov", self.nesterov)
        checked["milestones"] = _increasing_fractions(self.milestones)
        if checked["nesterov"] and checked["momentum"] == 0:
            raise bad("momentum", self.momentum, "a number above 0 with nesterov=True")
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def rounded(self) -> Recipe:
        """The same with the numbers of the rule as float32 holds them.

        Keras and MXNet store them so; rounded once, they are the same in every framework and dtype.
        """
        rounded: dict[str, Any] = {name: _float32(getattr(self, name)) for name in NUMBERS}
        return replace(self, **rounded)

    def learning_rates(self, steps: int) -> list[float]:
        """The learning rate of each of ``steps`` steps in all, as float32 holds it."""
        rates = []
        for step in range(steps):
            passed = sum(step >= fraction * steps for fraction in self.milestones)
            rates.append(_float32(self.learning_rate * self.learning_rate_factor**passed))
        return rates


def _increasing_fractions(given: Any) -> tuple[float, ...]:
    allowed = "increasing fractions between 0 and 1, such as (0.5, 0.75)"
    if not isinstance(given, (tuple, list)):
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
        # Dive into Deep Learning, chapter 7.7 (on images resized to 96x96).
        "chapter": Recipe(),
        # Paper, section 4.2, CIFAR and SVHN: "initial learning rate 0.1, divided by 10 at 50% and
        # 75% of the total number of training epochs".
        "paper": Recipe(
            epochs=300,
            batch_size=64,
            momentum=0.9,
            nesterov=True,
            weight_decay=1e-4,
            milestones=(0.5, 0.75),
        ),
    }
)
