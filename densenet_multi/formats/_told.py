"""What the user says about a file, because the file itself does not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .._checks import ConfigError


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the user says about a file of weights.

    Attributes:
        file_format: whether the user named the format, rather than the content.
        variant: the variant that these weights are said to be.
        prefix: what stands before the names of the network's tensors, in a file of several.
    """

    file_format: bool = False
    variant: str | None = None
    prefix: str | None = None


NOTHING = Told()


def unknown_prefix(prefix: str, known: Iterable[str]) -> ConfigError:
    """The error for a prefix that none of a file's networks has."""
    given = list(known)
    names = " or ".join(map(repr, given)) if any(given) else "no prefix, because no name has one"
    return ConfigError(f"expected {names}, found prefix={prefix!r}")
