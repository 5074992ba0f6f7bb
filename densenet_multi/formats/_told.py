"""What the user says about a file, because the file itself does not."""

from __future__ import annotations

from dataclasses import dataclass


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
