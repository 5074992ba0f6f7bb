"""Your own images: a folder for each class, named after the class."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .images import DataError, Preparation, open_image, read_image
from .order import epoch_order

SUFFIXES = (".png", ".jpg", ".jpeg")
VALIDATION = 5  # one image in this many is set apart


@dataclass(frozen=True)
class ImageFiles:
    """PNG and JPEG files, read and prepared when taken.

    Attributes:
        paths: N files.
        labels: int64 of shape (N,).
        prepare: turns values from 0 to 1 into what the network reads.
    """

    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    prepare: Preparation

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """The images of these examples, float32 of shape (n, C, S, S). Raises as ``read_image``."""
        channels, size = self.prepare.channels, self.prepare.image_size
        images = np.empty((len(indices), channels, size, size), np.float32)
        for image, index in zip(images, indices, strict=True):
            image[:] = self.prepare(read_image(self.paths[index], channels)[np.newaxis])[0]
        return images

    @property
    def black(self) -> NDArray[np.float32]:
        """The value of a black pixel after the preparation."""
        return self.prepare.black


def load_folder(
    path: str | os.PathLike[str], prepare: Preparation, seed: int = 0
) -> tuple[ImageFiles, ImageFiles, tuple[str, ...]]:
    """Find the images ``path/CLASS/NAME.png`` (.jpg, .jpeg), and set a fifth of each class apart.

    The split depends on their sorted names and the seed. Hidden files and folders (their names
    begin with a dot) are ignored, and so are files beside the folders of the classes. The header
    of every image is read now, the rest when the image is taken.

    Raises ``DataError`` where there are fewer than two classes, or fewer than two images of one, or
    where something in the folder of a class is not a PNG or JPEG image; ``ValueError`` where the
    seed is outside its range; ``OSError`` where something cannot be read.

    Arguments:
        path: the folder of the classes' folders.
        prepare: turns values from 0 to 1 into what the network reads.
        seed: of the split, from 0 to 2**32 - 1.

    Returns:
        Examples to train on, examples to validate with, and the names of the classes, sorted.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder that holds a folder for each class, found none")
    classes = [folder for folder in _visible(root) if folder.is_dir()]
    if len(classes) < 2:
        found = ", ".join(folder.name for folder in classes) or "none"
        raise DataError(
            f"{root}: expected at least two folders, one for each class, found {found}; "
            f"put images into {root / 'CLASS' / 'NAME.png'}"
        )
    parts: tuple[list[Path], list[Path]] = ([], [])
    labels: tuple[list[int], list[int]] = ([], [])
    for label, folder in enumerate(classes):
        images = _images(folder)
        apart = max(1, round(len(images) / VALIDATION))
        order = epoch_order(len(images), seed, label)
        for part, chosen in enumerate((order[apart:], order[:apart])):
            parts[part].extend(images[i] for i in np.sort(chosen))
            labels[part].extend([label] * len(chosen))
    train, validation = (
        ImageFiles(tuple(paths), np.array(numbers, np.int64), prepare)
        for paths, numbers in zip(parts, labels, strict=True)
    )
    return train, validation, tuple(folder.name for folder in classes)


def _visible(folder: Path) -> list[Path]:
    paths = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(paths, key=lambda path: path.name)


def _images(folder: Path) -> list[Path]:
    images = _visible(folder)
    for path in images:
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            raise DataError(
                f"{path}: expected files that end in {', '.join(SUFFIXES)} only in the folder of "
                "a class; convert it, or take it away"
            )
        with open_image(path):
            pass
    if len(images) < 2:
        raise DataError(
            f"{folder}: expected at least two images, one to train and one to validate with, "
            f"found {len(images)}; add some, or take the folder away"
        )
    return images
