"""Fashion-MNIST: 28 x 28 gray images of ten kinds of clothing, 60,000 to train and 10,000 to test.

This package includes a balanced sample (1,000 training and 1,000 test images) for offline use.
Source and license (MIT): https://github.com/zalandoresearch/fashion-mnist
"""

from __future__ import annotations

import os
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._checks import one_of
from .._files import as_path
from .._inputs import ImageError, as_array
from .idx import read_idx
from .images import DataError, ImagesAndLabels, from_bytes
from .resize import resize

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FILES = {  # split -> the official names of (images, labels), without ".gz"
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
IMAGE_SIZE = 28


def load_sample(split: str) -> ImagesAndLabels:
    """Load a split of the included sample: 100 examples of each class, shuffled.

    ``densenet_multi.data.make_sample`` chose them from the same split of Fashion-MNIST.

    Raises ``ValueError`` for an unknown split.

    Arguments:
        split: "train" or "test".

    Returns:
        images: uint8 of shape (1000, 28, 28); 0 is the background.
        labels: uint8 of shape (1000,), indices into ``CLASSES``.

    >>> from densenet_multi import data
    >>> images, labels = data.load_sample("train")
    >>> images.shape
    (1000, 28, 28)
    >>> data.CLASSES[labels[0]]
    'Sandal'
    """
    sample = files(__package__) / "sample"
    images, labels = (sample / f"{name}.gz" for name in _names(split))
    with as_file(images) as images_path, as_file(labels) as labels_path:
        return read_pair(images_path, labels_path)


def load_directory(path: str | os.PathLike[str], split: str) -> ImagesAndLabels:
    """Load a complete split from a folder with the official files.

    Raises ``ValueError`` for an unknown split; ``IdxError`` if a file is not IDX;
    ``FileNotFoundError`` if a file exists neither with nor without ".gz"; ``DataError`` if images
    and labels do not match, or are from another data set.

    Arguments:
        path: the folder, for instance /usr/share/datasets/fashion-mnist on Debian.
        split: "train" or "test".

    Returns:
        images: uint8 of shape (N, 28, 28); 0 is the background.
        labels: uint8 of shape (N,), indices into ``CLASSES``.
    """
    folder = as_path(path)
    images, labels = (_find(folder, name) for name in _names(split))
    return read_pair(images, labels)


def to_input(images: NDArray[Any], image_size: int | None = None) -> NDArray[np.float32]:
    """Convert 8-bit images to network input: values from 0 to 1, one channel, the requested size.

    Images are scaled before they are resized, since resizing bytes would round every pixel to
    a multiple of 1/255.

    Raises ``ImageError`` for images of the wrong type or shape, ``ConfigError`` for an invalid
    ``image_size``.

    Arguments:
        images: uint8 of shape (N, 28, 28).
        image_size: S, the height and width of the result in pixels; None keeps 28.

    Returns:
        float32 of shape (N, 1, S, S).

    >>> from densenet_multi import data
    >>> data.to_input(np.zeros((2, 28, 28), np.uint8), image_size=96).shape
    (2, 1, 96, 96)
    """
    images = as_array("images", images)
    if images.dtype != np.uint8 or images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE):
        raise ImageError(
            f"images: expected uint8 of shape (N, {IMAGE_SIZE}, {IMAGE_SIZE}), "
            f"found {images.dtype} of shape {images.shape}"
        )
    scaled = from_bytes(images[:, np.newaxis])
    return scaled if image_size is None else resize(scaled, image_size, image_size)


def _names(split: str) -> tuple[str, str]:
    return FILES[one_of("split", split, tuple(FILES))]


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{folder}: expected {name} or {name}.gz, found neither. On Debian and Ubuntu, type "
        "'apt-get install dataset-fashion-mnist' and use /usr/share/datasets/fashion-mnist"
    )


def read_pair(images_path: Path, labels_path: Path) -> ImagesAndLabels:
    """Read an image file and its label file. Raises the same errors as ``load_directory``."""
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE):
        raise DataError(
            f"{images_path}: expected images of shape (N, {IMAGE_SIZE}, {IMAGE_SIZE}), "
            f"found {images.shape}"
        )
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"{labels_path}: expected one label for each of the {len(images):,} images in "
            f"{images_path.name}, found shape {labels.shape}"
        )
    if np.any(labels >= len(CLASSES)):
        raise DataError(f"{labels_path}: expected labels from 0 to 9, found {labels.max()}")
    return images, labels
