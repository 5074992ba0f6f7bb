"""Tables of text: read strictly from a CSV file, or fetched from OpenML."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import Counter
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path

from .._checks import listed
from .._files import as_path, quoted, read_file
from .._installed import BackendNotInstalledError, framework
from .images import DataError

LARGEST = 2**25  # bytes of a table, also after decompression


@dataclass(frozen=True)
class Table:
    """A table of text: its name, and {column: its cells}."""

    name: str
    columns: dict[str, list[str]]


def read_csv(path: str | Path) -> Table:
    """Read a CSV file in UTF-8 with a header; it may be compressed (``.csv.gz``).

    Raises ``DataError`` for anything else or more than 32 MiB; ``OSError`` if it cannot be read.
    """
    path = as_path(path)
    content = read_file(path, LARGEST, DataError, "use fewer rows")
    try:
        if content.startswith(b"\x1f\x8b"):
            with gzip.open(BytesIO(content)) as file:
                content = file.read(LARGEST + 1)
        text = "\0" if b"\0" in content else content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: expected a gzip file, found {error}; copy it again") from None
    if len(content) > LARGEST:
        size = f"at most {LARGEST:,} bytes after decompression"
        raise DataError(f"{path}: expected {size}, found more; use fewer rows")
    if content.startswith(b"PK\x03\x04"):
        raise DataError(f"{path}: expected a CSV file, found a zip archive; unpack it")
    if text == "\0":
        other = "UTF-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "LATIN1"
        raise DataError(
            f"{path}: expected CSV text in UTF-8, found another encoding or binary data; for text, "
            f"type: iconv -f {other} -t UTF-8 {quoted(path)} > NEW.csv"
        )
    lines = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        rows = [(lines.line_num, [*map(str.strip, row)]) for row in lines if row]
    except csv.Error as error:
        where = f"{path}, line {lines.line_num}"
        raise DataError(f"{where}: expected a CSV file, found: {error}; export it again") from None
    names = rows[0][1] if rows else []
    twice = [repr(name) for name, count in Counter(names).items() if count > 1]
    if len(names) < 2 or twice or "" in names:
        found = f"{listed(twice)} more than once" if twice else repr(text[:60])
        raise DataError(
            f"{path}: expected a CSV file, which starts with two or more different column names, "
            f"separated by commas; found {found}; correct the first line"
        )
    for line, row in rows:
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {line}: expected {len(names)} cells, as in the header, found "
                f"{len(row)}; quote cells that contain commas"
            )
    columns = zip(*(row for _, row in rows), strict=True)
    return Table(path.name, {name: cells for name, *cells in columns})


def fetch_openml(name: str) -> Table:
    """Fetch a data set of OpenML by name with scikit-learn, which keeps a copy.

    Raises ``BackendNotInstalledError`` without scikit-learn or pandas, ``DataError`` if there is
    no such data set or no connection.
    """
    with framework("tabular", "sklearn", user="openml"):
        from sklearn import datasets
    try:
        frame = datasets.fetch_openml(name=name, as_frame=True).frame
    except ImportError:
        how = "which is not installed; install it with: pip install pandas"
        raise BackendNotInstalledError(f"openml needs 'pandas', {how}", name="pandas") from None
    except (OSError, ValueError) as error:
        expected = (
            "expected the name of a data set, such as house_prices, and an internet connection"
        )
        raise DataError(f"openml: {expected}; found {error}; or use a CSV file") from None
    columns = {}
    for column in frame.columns:
        cells = zip(frame[column], frame[column].isna(), strict=True)
        columns[str(column)] = ["" if missing else str(cell) for cell, missing in cells]
    return Table(f"OpenML's {name}", columns)
