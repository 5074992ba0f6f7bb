"""Compute a digest of examples. A resumed run compares digests, so its data may have moved."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from .._checks import bad
from .._files import open_file
from .._progress import progress
from .examples import Examples, Pixels, check_examples
from .folder import ImageFiles


def digest(examples: Examples) -> str:
    """Return the SHA256 of all labels and images, in order, in hexadecimal digits.

    For image files, the digest covers the labels and each file's name, parent folder name, size
    and content, so every file is read once. Raises ``OSError`` if a file cannot be read,
    ``ConfigError`` for examples of another type.

    Arguments:
        examples: ``Pixels`` or ``ImageFiles``.
    """
    labels = np.asarray(check_examples("examples", examples).labels).astype("<i8")
    found = hashlib.sha256(f"{len(labels)} labels\n".encode())
    found.update(labels.tobytes())
    if isinstance(examples, ImageFiles):
        with progress() as bar:
            for path in bar.track(examples.paths, description="hashing images"):
                found.update(_of_file(path))
    elif isinstance(examples, Pixels):
        pixels = np.ascontiguousarray(examples.pixels)
        found.update(f"{pixels.dtype.str} {pixels.shape}\n".encode())
        found.update(pixels.data)
    else:
        raise bad("examples", examples, "Pixels or ImageFiles")
    return found.hexdigest()


def _of_file(path: Path) -> bytes:
    name = os.fsencode(f"{path.parent.name}/{path.name}")
    with open_file(path) as file:
        content = hashlib.file_digest(file, "sha256").digest()
        return b"%s\0%d\0%s" % (name, file.tell(), content)
