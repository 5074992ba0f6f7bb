"""CIFAR-10: 32 x 32 color images, 50,000 for training and 10,000 for testing, in two versions.

A file of the binary version has 10,000 records: one byte for the label, then 1,024 bytes each of
red, green and blue, row by row. A file of the Python version is a pickled dictionary with the same
content under the keys "data" and "labels". It is read without executing any code that it contains:
see ``_pickles``. Either version may be a folder, or the archive as downloaded.
Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from .._checks import one_of
from .._files import as_path, open_file, size_of
from .._pickles import PickleError, Reader, as_array
from .images import DataError, ImagesAndLabels

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
FILES = {  # names in the binary version; in the Python version, they lack ".bin"
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}
FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")
RECORDS = 10_000  # in each file
PIXELS = 3 * 32 * 32
RECORD = 1 + PIXELS
LARGEST = 2**27  # bytes; a text-mode pickle may store each pixel as up to four characters
LARGEST_ARCHIVE = 2**29  # bytes, decompressed; the published archives have about 180 million


def load_cifar10(path: str | os.PathLike[str], split: str) -> ImagesAndLabels:
    """Load one split of CIFAR-10.

    Raises ``ValueError`` for an unknown split; ``DataError`` if a file is missing or not in the
    format described at the top of this module; ``OSError`` if a file cannot be read.

    Arguments:
        path: the folder ``cifar-10-batches-bin`` or ``cifar-10-batches-py``, a ``.tar.gz`` archive
            (read without unpacking it to disk), or a folder that contains one of these.
        split: "train" or "test".

    Returns:
        images: uint8 of shape (N, 3, 32, 32): red, green, blue.
        labels: uint8 of shape (N,), indices into ``CLASSES``.
    """
    one_of("split", split, tuple(FILES))
    return load_splits(path, split)[0]


def load_splits(path: str | os.PathLike[str], *splits: str) -> list[ImagesAndLabels]:
    """Load several splits; an archive is read only once for all of them.

    Raises the same errors as ``load_cifar10``.
    """
    place = _find(as_path(path))
    if not place.is_file():
        of_python = not _is_binary(place)
        wanted = [name for split in splits for name in _names(split, of_python=of_python)]
        read = {name: _read(place / name) for name in wanted}
    else:
        read = _read_archive(place, splits)
        of_python = "data_batch_1" in read or "test_batch" in read
    return [
        tuple(map(np.concatenate, zip(*(read[name] for name in names), strict=True)))  # type: ignore[misc]
        for names in (_names(split, of_python=of_python) for split in splits)
    ]


def is_cifar10(folder: Path) -> bool:
    """Return whether a folder contains CIFAR-10's files, or one of ``FOLDERS``."""
    inside = any((folder / name).is_dir() for name in FOLDERS)
    return inside or any(folder.glob("data_batch_*"))


def is_cifar100(folder: Path) -> bool:
    """Return whether a folder contains the files of CIFAR-100."""
    binary = (folder / "fine_label_names.txt").exists() and (folder / "train.bin").is_file()
    return binary or ((folder / "meta").exists() and (folder / "train").is_file())


def _names(split: str, *, of_python: bool) -> tuple[str, ...]:
    return tuple(name.removesuffix(".bin") for name in FILES[split]) if of_python else FILES[split]


def _is_binary(folder: Path) -> bool:
    """Return whether a folder contains the binary version; True also if it contains neither."""
    names = [name for files in FILES.values() for name in files]
    return any((folder / name).exists() for name in names) or not any(
        (folder / name.removesuffix(".bin")).exists() for name in names
    )


def _find(path: Path) -> Path:
    """Return the folder that directly contains the files, or the archive."""
    if any(path.glob("data_batch_*")):
        return path
    inside = [path / name for name in (*FOLDERS, *ARCHIVES)]
    return next((found for found in inside if found.exists()), path)


# --- A file -------------------------------------------------------------------------------------


def _read(path: Path) -> ImagesAndLabels:
    if not path.exists():
        raise DataError(
            f"{path}: expected a CIFAR-10 file, found {_what_else(path.parent)}; use the "
            f"complete folder {FOLDERS[0]} from {ARCHIVES[0]}, or {FOLDERS[1]} from {ARCHIVES[1]}, "
            "or one of these archives"
        )
    with open_file(path, error=DataError, advice="download it again") as file:
        size = size_of(file)
        _check_file_size(str(path), path.name, size)
        return _parsed(str(path), path.name, file.read(size))


def _what_else(folder: Path) -> str:
    """Describe what a folder contains instead of a missing file, for an error."""
    if (folder / "data_batch_1.mat").exists():
        return "the version for Matlab"
    return "CIFAR-100" if is_cifar100(folder) else "none"


def _check_file_size(where: str, name: str, size: int) -> None:
    """Raise ``DataError`` if no CIFAR-10 file of this name can have this size."""
    if name.endswith(".bin"):
        if size != RECORDS * RECORD:
            raise DataError(
                f"{where}: expected {RECORDS * RECORD:,} bytes ({RECORDS:,} records of {RECORD}), "
                f"found {size:,}; download it again"
            )
    elif not RECORDS * PIXELS < size <= LARGEST:
        raise DataError(
            f"{where}: expected a pickle of {RECORDS:,} images, with {RECORDS * PIXELS:,} to "
            f"{LARGEST:,} bytes, found {size:,}; download it again"
        )


def _parsed(where: str, name: str, content: bytes) -> ImagesAndLabels:
    """Parse a file's content into images (N, 3, 32, 32) and labels (N,)."""
    read = _records if name.endswith(".bin") else _unpickled
    images, labels = read(where, content)
    if labels.max() >= len(CLASSES):
        raise DataError(f"{where}: expected labels from 0 to 9, found {labels.max()}")
    return images.reshape(-1, 3, 32, 32), labels


def _records(_: str, content: bytes) -> ImagesAndLabels:
    records = np.frombuffer(content, np.uint8).reshape(RECORDS, RECORD)
    return records[:, 1:], records[:, 0]


def _unpickled(where: str, content: bytes) -> ImagesAndLabels:
    file = io.BytesIO(content)
    try:
        found = Reader(file).load()
        named = {_text(key): value for key, value in found.items()} if _is_dict(found) else {}
        images, labels = as_array(named.get("data")), named.get("labels")
    except PickleError as error:
        raise DataError(f"{where}: {error}; download it again") from None
    if "fine_labels" in named:
        raise DataError(f"{where}: expected CIFAR-10, found CIFAR-100; download CIFAR-10")
    expected = f"expected uint8 data of shape ({RECORDS}, {PIXELS}) and {RECORDS:,} labels"
    if images is None or images.dtype != np.uint8 or images.shape != (RECORDS, PIXELS):
        described = f"{images.dtype} of shape {images.shape}" if images is not None else "none"
        raise DataError(f"{where}: {expected}, found data: {described}; download it again")
    if not isinstance(labels, list) or len(labels) != RECORDS or set(map(type, labels)) != {int}:
        described = f"{len(labels):,} values" if isinstance(labels, list) else "none"
        raise DataError(f"{where}: {expected}, found labels: {described}; download it again")
    if wrong := [label for label in labels if not 0 <= label < len(CLASSES)]:
        raise DataError(f"{where}: expected labels from 0 to 9, found {wrong[0]}")
    if file.read(1):
        raise DataError(f"{where}: expected nothing after the pickle, found more bytes")
    return images, np.array(labels, np.uint8)


def _is_dict(found: Any) -> bool:
    return isinstance(found, dict)


def _text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


# --- An archive ---------------------------------------------------------------------------------


def _read_archive(path: Path, splits: tuple[str, ...]) -> dict[str, ImagesAndLabels]:
    """Return {file name: images and labels} for these splits; write nothing to disk."""
    wanted = {
        name: of_python
        for of_python in (False, True)
        for split in splits
        for name in _names(split, of_python=of_python)
    }
    found: dict[str, ImagesAndLabels] = {}
    others: list[str] = []
    for name, size, read in _members(path):
        file = PurePosixPath(name).name
        if file not in wanted:
            others.append(name)
            continue
        where = f"{path}: {name}"
        if file in found:
            raise DataError(f"{where}: expected one file of this name, found several")
        _check_file_size(where, file, size)
        found[file] = _parsed(where, file, read())
    versions = {wanted[name] for name in found}
    expected = [name for name, version in wanted.items() if version in (versions or {False})]
    if missing := [name for name in expected if name not in found]:
        listed = ", ".join(others[:3]) or "nothing"
        what = "CIFAR-100" if any("cifar-100" in name for name in others) else listed
        raise DataError(f"{path}: expected {missing[0]} and the other CIFAR-10 files, found {what}")
    return found


def _members(path: Path) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """Stream an archive: yield (name, size, function that reads the content) for each file."""
    with (
        open_file(path, error=DataError, advice="download it again") as file,
        _unpacked(file) as stream,
    ):
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    content = archive.extractfile(member) if member.isreg() else None
                    if content is not None:
                        yield member.name, member.size, content.read
            while stream.read(2**20):  # gzip verifies its checksum at the end
                pass
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{path}: expected the folder or the archive of CIFAR-10, {' or '.join(ARCHIVES)}, "
                f"found another file, or a damaged one ({error}); download it again"
            ) from None


@contextmanager
def _unpacked(file: BinaryIO) -> Iterator[Any]:
    """Yield a size-limited stream of a tar archive's content, decompressed if it is gzip."""
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not compressed:
        yield _Limited(file)
        return
    with gzip.GzipFile(fileobj=file) as stream:
        yield _Limited(stream)


class _Limited:
    """A stream with a size limit, as protection against decompression bombs."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.left = stream, LARGEST_ARCHIVE

    def read(self, count: int) -> bytes:
        """Read at most ``count`` bytes. Raises ``DataError`` if the stream exceeds its limit."""
        content: bytes = self.stream.read(min(count, self.left + 1))
        self.left -= len(content)
        if self.left < 0:
            raise DataError(
                f"{getattr(self.stream, 'name', '')}: expected an archive of at most "
                f"{LARGEST_ARCHIVE:,} bytes, found more"
            )
        return content
