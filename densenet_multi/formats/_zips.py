"""Zip archives, whose names have "/" here, also where Windows wrote them otherwise."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ..weights import WeightsError


def entries_of(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """{name: entry} of what is in an archive."""
    return {entry.filename.replace("\\", "/"): entry for entry in archive.infolist()}


def names_in_zip(path: Path) -> list[str]:
    """The names in a zip archive. Raises ``WeightsError`` where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return list(entries_of(archive))
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise WeightsError(f"expected a zip archive, found a damaged one ({error})") from None
