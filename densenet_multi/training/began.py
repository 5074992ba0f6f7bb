"""What a run began with: its recipe, the weights it started from, its data. A resumed run has them.

Everything else may change: the backend, the device, the run folder, where the data are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .fields import COUNT, OBJECT, TEXT, or_null
from .recipe import Recipe

BEGAN = {  # as JSON, in the state of a run: see fields.py
    "recipe": OBJECT,
    "recipe_name": or_null(TEXT),
    "weights": or_null(TEXT),
    "data": {"training images?": TEXT, "test images?": TEXT, "pixels?": OBJECT},
    "recorded_after_step": COUNT,
}
DIGITS = 12  # of a digest in an error


@dataclass(frozen=True)
class Began:
    """What a run began with.

    Attributes:
        recipe: the recipe.
        recipe_name: its name in ``RECIPES``; None where ``fit`` was called without ``train``, and
            nothing but the recipe is known.
        weights: the name, without a folder, of the file that it started from, or None.
        data: {what: a digest or plain values}, from ``DataSet.digests``; empty where not compared.
        recorded_after_step: 0, or the steps that an older version had taken before it was recorded.
    """

    recipe: Recipe
    recipe_name: str | None = None
    weights: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    recorded_after_step: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "recipe": asdict(self.recipe),
            "recipe_name": self.recipe_name,
            "weights": self.weights,
            "data": dict(self.data),
            "recorded_after_step": self.recorded_after_step,
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Began:
        """What ``to_dict`` returned. Raises ``ConfigError`` for another recipe."""
        return cls(Recipe(**given["recipe"]), *(given[name] for name in BEGAN if name != "recipe"))

    def changes(self, now: Began) -> list[str]:
        """What differs now, in words: what was expected, and what is found; without it, none.

        The data are compared where both have some.
        """
        compared: Began = self if now.data else replace(self, data={})
        was, found = compared._facts(), now._facts()
        return [
            f"{name}: expected {_shown(was[name])}, found {_shown(found.get(name))}"
            for name in was
            if was[name] != found.get(name)
        ]

    def _facts(self) -> dict[str, Any]:
        """{name: plain value}: what is compared, as an error names it."""
        digests = dict(self.data)
        pixels: dict[str, Any] = digests.pop("pixels", {})
        is_named = self.recipe_name is not None
        names = {"recipe": self.recipe_name, "weights": self.weights} if is_named else {}
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self.recipe) | names | pixels))
        return plain | {name: Digest(digits) for name, digits in digests.items()}


class Digest(str):
    """The digits of a digest, which an error shortens."""

    __slots__ = ()


def _shown(value: Any) -> str:
    if isinstance(value, Digest):
        return f"those of SHA256 {value[:DIGITS]}"
    return "none" if value is None else json.dumps(value)
