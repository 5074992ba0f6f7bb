"""Validate JSON from a run folder; errors name the field, what was expected and what was found.

The shape of a value is a ``Kind``, ``[shape]`` for a list, ``[shape, ...]`` for a list that is not
empty, or ``{"field": shape}`` for an object. A field whose name ends in "?" may be missing. Fields
that a shape does not name are not checked. Standard library only.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._checks import is_finite

LARGEST_EXACT = 2**53  # many JSON readers parse numbers as float64, which is exact up to here
SHOWN_OF_VALUE = 40  # characters of a value, shown in an error


class FieldError(ValueError):
    """JSON is invalid or has the wrong shape; the message names the field, but not the file."""


@dataclass(frozen=True)
class Kind:
    """A kind of plain value: its name in errors, and a test for it."""

    words: str
    fits: Callable[[Any], bool]


def _is_count(value: Any, least: int) -> bool:
    return type(value) is int and least <= value <= LARGEST_EXACT  # True is not a count


def _is_number(value: Any, least: float = -math.inf) -> bool:
    return type(value) in {int, float} and is_finite(value) and value >= least


def _is_text(value: Any) -> bool:
    """Return whether this is a string that could be a path."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


COUNT = Kind("an integer from 0 to 2**53", lambda value: _is_count(value, 0))
ORDINAL = Kind("an integer from 1 to 2**53", lambda value: _is_count(value, 1))
NUMBER = Kind("a finite number", _is_number)
AMOUNT = Kind("a finite number of at least 0", lambda value: _is_number(value, 0))
FRACTION = Kind("a number from 0 to 1", lambda value: _is_number(value, 0) and value <= 1)
TEXT = Kind("a string", _is_text)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))


def exactly(expected: int) -> Kind:
    """Return the kind that accepts only this integer."""
    return Kind(str(expected), lambda value: type(value) is int and value == expected)


def or_null(kind: Kind) -> Kind:
    """Return the kind that accepts null, and the values that ``kind`` accepts."""
    return Kind(f"{kind.words} or null", lambda value: value is None or kind.fits(value))


def parsed(text: bytes | str, shape: Any = OBJECT) -> Any:
    """Parse JSON (UTF-8 if bytes) and check its shape. Raises ``FieldError``."""
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise FieldError("expected JSON, found values nested too deeply") from None
    except ValueError as error:
        raise FieldError(f"expected JSON, found something else ({error})") from None
    check(value, shape)
    return value


def check(value: Any, shape: Any, name: str = "") -> None:
    """Raise ``FieldError`` if a value does not have this shape; ``name`` is that of its field."""
    fits = shape.fits(value) if isinstance(shape, Kind) else isinstance(value, type(shape))
    if not fits:
        raise _unlike(name, shape, _described(value))
    if isinstance(shape, list):
        if not value and ... in shape:
            raise _unlike(name, shape, "an empty list")
        for index, item in enumerate(value):
            check(item, shape[0], f"{name}[{index}]")
    elif isinstance(shape, dict):
        for key, inside in shape.items():
            field = key.removesuffix("?")
            full = f"{name}.{field}" if name else field
            if field in value:
                check(value[field], inside, full)
            elif field == key:
                raise _unlike(full, inside, "none")


def _unlike(name: str, shape: Any, found: str) -> FieldError:
    is_list = isinstance(shape, list)
    words = shape.words if isinstance(shape, Kind) else "a list" if is_list else "an object"
    where = f"{name}: " if name else ""
    return FieldError(f"{where}expected {words}, found {found}")


def _described(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value)
    return text if len(text) <= SHOWN_OF_VALUE else f"{text[:SHOWN_OF_VALUE]}…"


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:SHOWN_OF_VALUE]} is not a finite number")
    return value
