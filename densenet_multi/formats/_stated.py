"""What the user states about a file, because the file itself does not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from .._checks import ConfigError
from ..weights import WeightsError


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What the user states about a weights file.

    Attributes:
        file_format: whether the user named the format, so that it was not detected.
        variant: the variant that the weights belong to.
        prefix: the prefix of the network's tensor names, in a file with several networks.
    """

    file_format: bool = False
    variant: str | None = None
    prefix: str | None = None


NOTHING = Stated()


def only(prefixes: Sequence[str], asked: str | None) -> str:
    """Return the prefix of a file's only network, or of the requested one.

    Raises ``WeightsError`` if there are several and none was requested; ``ConfigError`` if no
    network has the requested prefix.
    """
    if asked is not None:
        for prefix in prefixes:
            if prefix.rstrip(".") == asked.rstrip("."):
                return prefix
        raise unknown_prefix(asked, prefixes)
    if len(prefixes) > 1:
        raise several(prefixes)
    return prefixes[0]


def several(prefixes: Collection[str]) -> WeightsError:
    """Return the error for a file of several networks, none of which was requested."""
    each = "\n  ".join(f"prefix={prefix!r}" for prefix in prefixes)
    return WeightsError(f"expected one network, found {len(prefixes)}; choose one with\n  {each}")


def unknown_prefix(prefix: str, known: Iterable[str]) -> ConfigError:
    """Return the error for a requested prefix that none of a file's networks has."""
    given = list(known)
    names = " or ".join(map(repr, given)) if any(given) else "no prefix (no name has one)"
    return ConfigError(f"expected {names}, found prefix={prefix!r}")
