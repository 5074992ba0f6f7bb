"""CIFAR-10 in its binary version: 32 x 32 color images, 50,000 to train and 10,000 to test.

A file is 10,000 records: a byte for the label, then 1,024 bytes of red, of green, of blue, row by
row. Reading it needs no pickle, which could execute any code, as the Python version does.
Source: https://www.cs.toronto.edu/~kriz/cifar.html (cifar-10-binary.tar.gz)
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
FILES = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}
RECORDS = 10_000  # in each file
RECORD = 1 + 3 * 32 * 32


def load_cifar10(path: str | os.PathLike[str], split: str) -> ImagesAndLabels:
    """Load a split of CIFAR-10 from the folder of its binary files, ``cifar-10-batches-bin``.

    Raises ``ValueError`` where there is no such split; ``DataError`` where a file is missing or is
    not as described above; ``OSError`` where it cannot be read.

    Arguments:
        path: the folder.
        split: "train" or "test".

    Returns:
        images: uint8 of shape (N, 3, 32, 32): red, green, blue.
        labels: uint8 of shape (N,), indices into ``CLASSES``.
    """
    if split not in FILES:
        raise ValueError(f"split: expected one of {', '.join(map(repr, FILES))}, found {split!r}")
    records = np.concatenate([_read(Path(path, name)) for name in FILES[split]])
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].copy()


def _read(path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        raise DataError(
            f"{path}: there is no such file; expected the folder of {path.name} and the others, "
            "which is called cifar-10-batches-bin in cifar-10-binary.tar.gz"
        )
    size = path.stat().st_size
    if size != RECORDS * RECORD:
        raise DataError(
            f"{path}: expected {RECORDS * RECORD:,} bytes ({RECORDS:,} records of {RECORD}), "
            f"found {size:,}; fetch it again"
        )
    records = np.fromfile(path, np.uint8).reshape(RECORDS, RECORD)
    if records[:, 0].max() >= len(CLASSES):
        raise DataError(f"{path}: expected labels from 0 to 9, found {records[:, 0].max()}")
    return records
