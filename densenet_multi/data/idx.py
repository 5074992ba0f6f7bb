"""IDX files, the format of MNIST and Fashion-MNIST: a strict reader and a reproducible writer.

A file contains, in this order, all big-endian::

    0, 0, type code, number of dimensions     four bytes, the magic number
    size of each dimension                    four bytes each
    the values                                last dimension varies fastest

Only unsigned bytes (type code 0x08) with one dimension (labels) or three (images) are supported.
Source: https://web.archive.org/web/2020/http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .._checks import integer
from .._files import as_path, open_file, replace_file
from .._inputs import as_array

UNSIGNED_BYTE = 0x08
GZIP_MAGIC = b"\x1f\x8b"


class IdxError(ValueError):
    """A file is not IDX, or not a supported kind of it; or an array cannot be written as IDX."""


def read_idx(path: str | os.PathLike[str], *, max_bytes: int = 64 * 2**20) -> NDArray[np.uint8]:
    """Read one IDX file, plain or gzip (detected by content, not by name).

    The header states how many bytes must follow, and at most one byte more is decompressed. A
    decompression bomb therefore cannot fill the memory.

    Raises ``IdxError`` if the content is not exactly one IDX array of bytes, or exceeds
    ``max_bytes``; ``OSError`` if the file cannot be opened (``FileNotFoundError`` if it is
    missing).

    Arguments:
        path: the file.
        max_bytes: the largest accepted decompressed size, including the header. The training images
            of MNIST and of Fashion-MNIST need 47,040,016 bytes.

    Returns:
        A writable array of shape (N,) or (N, H, W).
    """
    path, max_bytes = as_path(path), integer("max_bytes", max_bytes, 0)
    with open_file(path, error=IdxError, advice="download it again") as file:
        compressed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        if not compressed:
            return _parse(file, path, max_bytes)
        try:
            with gzip.GzipFile(fileobj=file) as content:
                return _parse(content, path, max_bytes)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise IdxError(f"{path}: expected a complete gzip stream, found: {error}") from error


def write_idx(path: str | os.PathLike[str], array: NDArray[np.uint8]) -> None:
    """Write one IDX file atomically: a reader sees the old file or the complete new one.

    The same array produces the same bytes. With the suffix ".gz", they are compressed at level 9,
    and the header has no timestamp and no file name; only another build of zlib may compress
    differently.

    Raises ``IdxError`` if the array has the wrong type or number of dimensions; ``OSError``
    if the file cannot be written.

    Arguments:
        path: the file; an existing one is replaced.
        array: uint8, of shape (N,) or (N, H, W).

    >>> from densenet_multi import data
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "labels.gz")
    ...     data.write_idx(path, np.array([3, 1], np.uint8))
    ...     data.read_idx(path)
    array([3, 1], dtype=uint8)
    """
    path, array = as_path(path), as_array("array", array)
    if array.dtype != np.uint8 or array.ndim not in (1, 3):
        raise IdxError(
            f"array: expected uint8 with 1 or 3 dimensions, found {array.dtype} with {array.ndim}; "
            f"{path} was not written"
        )
    content = header(array) + array.tobytes()
    compressed = path.suffix == ".gz"
    replace_file(path, _compress(content) if compressed else content)


def header(array: NDArray[np.uint8]) -> bytes:
    """Return the header of this array's IDX file: the bytes before the values."""
    return struct.pack(f">HBB{array.ndim}I", 0, UNSIGNED_BYTE, array.ndim, *array.shape)


def _parse(file: io.BufferedIOBase, path: Path, max_bytes: int) -> NDArray[np.uint8]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise IdxError(
            f"{path}: expected the IDX magic number (two zero bytes, type, dimensions), "
            f"found {magic.hex(' ') or 'an empty file'}"
        )
    type_code, ndim = magic[2:]
    if type_code != UNSIGNED_BYTE:
        raise IdxError(f"{path}: expected type code 0x08 (unsigned byte), found {type_code:#04x}")
    if ndim not in (1, 3):
        raise IdxError(f"{path}: expected 1 or 3 dimensions, found {ndim}")

    sizes = file.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise IdxError(f"{path}: expected {ndim} sizes of 4 bytes, found {len(sizes)} bytes")
    shape = struct.unpack(f">{ndim}I", sizes)
    size = math.prod(shape)
    total = 4 + 4 * ndim + size
    if total > max_bytes:
        raise IdxError(
            f"{path}: expected at most max_bytes={max_bytes:,} bytes, "
            f"found a header for {total:,} (shape {shape})"
        )

    values = file.read(size + 1)  # one more, to detect extra bytes
    if len(values) != size:
        found = "more" if len(values) > size else f"{len(values):,}"
        raise IdxError(f"{path}: expected {size:,} values for shape {shape}, found {found}")
    return np.frombuffer(values, np.uint8).reshape(shape).copy()  # bytes are read-only


def _compress(content: bytes) -> bytes:
    # gzip.compress() lets zlib write the header, which then depends on the platform
    buffer = io.BytesIO()
    with gzip.GzipFile("", "wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(content)
    return buffer.getvalue()
