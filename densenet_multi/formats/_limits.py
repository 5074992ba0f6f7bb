"""Limits on the size of a weights file, on disk and decompressed, and of its metadata."""

from __future__ import annotations

import os

from .._files import check_file
from ..weights import WeightsError

LARGEST_FILE = 2**32  # bytes; densenet264 in float64 has 0.3 * 10**9
HARMLESS = 2**26  # bytes; any file may expand to this size
LARGEST_METADATA = 2**23  # bytes of a file that describes an Orbax folder; densenet264: 5 * 10**5
MOST_ARRAYS = 20_000  # in an Orbax folder; densenet264 with Adam's two moments has 4,000


def check_size(path: str | os.PathLike[str]) -> int:
    """Return the size of a file in bytes.

    Raises ``WeightsError`` if it is larger than 4 GiB or not a regular file; ``OSError`` if it does
    not exist.
    """
    return check_file(path, LARGEST_FILE, error=WeightsError)


def is_bomb(unpacked: int, packed: int) -> bool:
    """Return whether a file expands far more than compressed weights can (a decompression bomb)."""
    return unpacked > min(LARGEST_FILE, max(HARMLESS, 20 * packed))
