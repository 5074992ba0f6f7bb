"""Read zip archives. Entry names are returned with "/", even if Windows wrote backslashes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ..weights import WeightsError

HEADER = 30  # bytes before each entry's name; more may follow the name


def entries_of(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return {name: entry} of an archive.

    Raises ``WeightsError`` if entries share bytes, as in a decompression bomb.
    """
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    ends = [e.header_offset + HEADER + len(e.orig_filename) + e.compress_size for e in entries]
    starts = [entry.header_offset for entry in entries]
    for entry, end, following in zip(entries, ends, [*starts[1:], archive.start_dir], strict=False):
        is_stored = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1
        if end > following or (is_stored and entry.compress_size != entry.file_size):
            raise WeightsError(
                f"expected separate zip entries, found {entry.filename!r} overlapping another; "
                "download or copy the file again"
            )
    return {entry.filename.replace("\\", "/"): entry for entry in archive.infolist()}


def names_in_zip(path: Path) -> list[str]:
    """Return the names in a zip archive. Raises ``WeightsError`` if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return list(entries_of(archive))
    except WeightsError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise WeightsError(f"expected a zip archive, found a damaged one ({error})") from None
