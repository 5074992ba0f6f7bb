"""What a run began with, and must resume with: its recipe, initial weights and data.

Everything else may change: the backend, the device, the run folder, the location of the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .fields import COUNT, OBJECT, TEXT, or_null
from .recipe import Recipe

BEGAN = {  # the shape of ``Began.to_dict()`` in a run's state: see fields.py
    "recipe": OBJECT,
    "recipe_name": or_null(TEXT),
    "weights": or_null(TEXT),
    "data": {"training images?": TEXT, "test images?": TEXT, "pixels?": OBJECT},
    "recorded_after_step": COUNT,
}
DIGITS = 12  # of a digest, shown in an error


@dataclass(frozen=True)
class Began:
    """What a run began with, to detect changes when it is resumed.

    Attributes:
        recipe: the recipe.
        recipe_name: its name in ``RECIPES``; None if ``fit`` was called directly and only the
            recipe is known.
        weights: the file name, without its folder, of the initial weights, or None.
        data: {part of the data: digest or plain values}, from ``DataSet.digests``; empty if the
            data are not compared.
        recorded_after_step: the number of steps completed before this was recorded; above 0 if an
            older version, or ``fit`` called directly, saved the state.
    """

    recipe: Recipe
    recipe_name: str | None = None
    weights: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    recorded_after_step: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return {
            "recipe": asdict(self.recipe),
            "recipe_name": self.recipe_name,
            "weights": self.weights,
            "data": dict(self.data),
            "recorded_after_step": self.recorded_after_step,
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Began:
        """Rebuild a ``Began`` from its ``to_dict``. Raises ``ConfigError`` for a bad recipe."""
        return cls(Recipe(**given["recipe"]), *(given[name] for name in BEGAN if name != "recipe"))

    def changes(self, now: Began) -> list[str]:
        """Describe each difference: the field, its value then and its value now; [] if none.

        The data are compared only if both objects record them.
        """
        compared: Began = self if now.data else replace(self, data={})
        was, found = compared._facts(), now._facts()
        return [
            f"{name}: expected {_shown(was[name])}, found {_shown(found.get(name))}"
            for name in was
            if was[name] != found.get(name)
        ]

    def _facts(self) -> dict[str, Any]:
        """Return the values to compare, {name in errors: plain value}."""
        digests = dict(self.data)
        pixels: dict[str, Any] = digests.pop("pixels", {})
        is_named = self.recipe_name is not None
        names = {"recipe": self.recipe_name, "weights": self.weights} if is_named else {}
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self.recipe) | names | pixels))
        return plain | {name: Digest(digits) for name, digits in digests.items()}


class Digest(str):
    """A digest in hexadecimal digits; errors show only the first few."""

    __slots__ = ()


def _shown(value: Any) -> str:
    if isinstance(value, Digest):
        return f"SHA256 {value[:DIGITS]}"
    return "none" if value is None else json.dumps(value)
