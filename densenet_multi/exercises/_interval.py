"""The mean of a few numbers, and the interval that its true value is in with 95% confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from .._checks import integer

CONFIDENCE = 0.95


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return ``mean`` and ``std`` (sample standard deviation; None for a single value)."""
    return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else None}


def interval(differences: Sequence[float]) -> dict[str, Any]:
    """Return the mean of paired differences, and ``low`` and ``high`` of its interval.

    Student's t: mean +- t * std / sqrt(n), with n - 1 degrees of freedom. It assumes that the
    differences are independent and normally distributed, and covers only what varies between the
    runs: their seeds, but not the images that they are tested on. Of a single difference, ``low``
    and ``high`` are None, since it says nothing about spread.
    """
    found = spread(differences)
    half = None
    if found["std"] is not None:
        n = len(differences)
        half = t_quantile(n - 1) * found["std"] / math.sqrt(n)
    return {
        "each": list(differences),
        **found,
        "low": None if half is None else found["mean"] - half,
        "high": None if half is None else found["mean"] + half,
        "confidence": CONFIDENCE,
    }


def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Return the t that bounds ``confidence`` of Student's distribution from both sides.

    Raises ``ConfigError`` for less than one degree of freedom.

    >>> round(t_quantile(2), 3)
    4.303
    """
    degrees, low, high = integer("degrees", degrees, 1), 0.0, 1.0
    while _within(high, degrees) < confidence:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < confidence else (low, middle)
    return high


def _within(t: float, degrees: int) -> float:
    """Return the probability of [-t, t].

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(2 + odd, degrees - 1, 2):
        term *= math.cos(angle) ** 2 * (k - 1) / k
        total += term
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
