"""The chapter's exercises, answered by measurement: one module for each.

A module says what is measured, how the numbers become tables, and how they are drawn. It imports no
framework: backends are loaded by name.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from .._checks import check_names
from ._exercise import DATA, Exercise, Settings, Table

__all__ = ["DATA", "NAMES", "Exercise", "Settings", "Table", "exercise"]

NAMES = ("pooling", "parameters", "memory", "table1", "house-prices")


def exercise(name: str) -> Exercise:
    """Import an exercise, one of ``NAMES``. Raises ``ConfigError`` for another name."""
    check_names("exercise", [name], NAMES)
    module = import_module(f".{name.replace('-', '_')}", __name__)
    return cast("Exercise", module.EXERCISE)
