"""Examples: labeled images for training or testing, prepared for the network batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .._checks import Checked, instance
from .._inputs import ImageError, as_array, check_indices, check_listed
from .fashion_mnist import IMAGE_SIZE, to_input
from .images import Preparation, check_preparation, check_side, from_bytes


@runtime_checkable
class Examples(Protocol):
    """A protocol for training data: any object with labels, a length and images by index."""

    @property
    def labels(self) -> Any:
        """Integers of shape (N,)."""

    def __len__(self) -> int: ...

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Return the images at these indices, floating point of shape (n, C, H, W)."""


@dataclass(frozen=True)
class Arrays:
    """Examples from your own arrays, which are passed to the network unchanged.

    Attributes:
        images: floating point of shape (N, C, H, W).
        labels: integers of shape (N,).

    >>> from densenet_multi import data
    >>> examples = data.Arrays(np.zeros((3, 1, 32, 32)), labels=[0, 1, 0])
    >>> examples.take(np.array([0, 2])).shape
    (2, 1, 32, 32)
    """

    images: Any
    labels: Any

    def __post_init__(self) -> None:
        for name in ("images", "labels"):
            object.__setattr__(self, name, check_listed(name, getattr(self, name)))

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Return the images at these indices."""
        taken: NDArray[np.floating[Any]] = self.images[check_indices(indices, len(self))]
        return taken


@dataclass(frozen=True)
class FashionMNIST:
    """Examples from ``load_sample`` or ``load_directory``, scaled and resized batch by batch.

    60,000 images of 96x96 in float32 would need 2.2 GB; as bytes of 28x28 they need 47 MB.

    Attributes:
        pixels: uint8 of shape (N, 28, 28).
        labels: uint8 of shape (N,).
        image_size: S; ``take`` returns shape (n, 1, S, S).

    >>> from densenet_multi import data
    >>> examples = data.FashionMNIST(*data.load_sample("test"), image_size=32)
    >>> examples.take(np.array([0, 1])).shape
    (2, 1, 32, 32)
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    image_size: int = 96

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", _bytes(self.pixels, (IMAGE_SIZE, IMAGE_SIZE)))
        object.__setattr__(self, "labels", check_listed("labels", self.labels))
        object.__setattr__(self, "image_size", check_side(self.image_size))

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Return the images at these indices, float32 from 0 to 1."""
        return to_input(self.pixels[check_indices(indices, len(self))], self.image_size)


@dataclass(frozen=True)
class Pixels:
    """Examples from gray or color images in memory, prepared batch by batch.

    Attributes:
        pixels: uint8 of shape (N, 1 or 3, H, W).
        labels: uint8 of shape (N,).
        prepare: converts the pixels, scaled to the range 0 to 1, to the network's input.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    prepare: Preparation

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", _bytes(self.pixels))
        object.__setattr__(self, "labels", check_listed("labels", self.labels))
        check_preparation(self.prepare)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def black(self) -> NDArray[np.float32]:
        """The value of a black pixel after preparation."""
        return self.prepare.black

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Return the images at these indices, float32 of shape (n, C, S, S)."""
        return self.prepare(from_bytes(self.pixels[check_indices(indices, len(self))]))


@dataclass(frozen=True)
class Together(Checked):
    """Several sets of examples, concatenated.

    Attributes:
        parts: the sets in order, all prepared in the same way.
    """

    parts: tuple[Examples, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def labels(self) -> NDArray[np.int64]:
        """Integers of shape (N,)."""
        return np.concatenate([np.asarray(part.labels).astype(np.int64) for part in self.parts])

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Return the images at these indices, floating point of shape (n, C, H, W)."""
        indices = check_indices(indices, len(self))
        ends = np.cumsum([len(part) for part in self.parts])
        whose = np.searchsorted(ends, indices, side="right")
        taken = [
            (np.nonzero(whose == i)[0], part.take(indices[whose == i] - end + len(part)))
            for i, (part, end) in enumerate(zip(self.parts, ends, strict=True))
            if (whose == i).any() or i == 0  # part 0 sets the shape even if no image is taken
        ]
        images = np.empty((len(indices), *taken[0][1].shape[1:]), taken[0][1].dtype)
        for positions, found in taken:
            images[positions] = found
        return images


def check_examples(name: str, given: Any) -> Examples:
    """Return the given ``Examples``. Raises ``ConfigError`` for anything else, such as an array."""
    expected = "an object like data.Arrays(images, labels)"
    return instance(name, given, Examples, expected)  # type: ignore[type-abstract]


def _bytes(given: Any, size: tuple[int, ...] = ()) -> NDArray[np.uint8]:
    """Return uint8 pixels of shape (N, *size); without a size, of any shape (N, C, H, W).

    Raises ``ImageError`` for anything else.
    """
    array = as_array("pixels", given)
    fits = array.shape[1:] == size if size else array.ndim == 4
    if array.dtype != np.uint8 or not fits:
        shape = f"(N, {', '.join(map(str, size))})" if size else "(N, C, H, W)"
        found = f"{array.dtype} of shape {array.shape}"
        raise ImageError(f"pixels: expected uint8 of shape {shape}; found {found}")
    return array
