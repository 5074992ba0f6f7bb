"""Read images, and convert them to the channels, the size and the range of a network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._checks import bad, integer
from ..checkpoint import Usage
from .resize import resize

if TYPE_CHECKING:
    from PIL.Image import Image

ImagesAndLabels: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8]]

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601


class DataError(OSError):
    """Data are missing, damaged or another set; the message tells where and what to do."""


def read_image(path: str | os.PathLike[str], channels: int) -> NDArray[np.float32]:
    """Read a PNG or JPEG file of any size and mode, in its upright orientation.

    EXIF gives the orientation of a photograph. Transparency is dropped and the color below it
    kept, as in torchvision's ImageFolder. Of 16 bits, gray images keep all, color images the upper
    eight.

    Raises ``DataError`` where the file is not a PNG or JPEG image, is damaged, or has more pixels
    than Pillow's ``Image.MAX_IMAGE_PIXELS``; ``OSError`` where it cannot be opened; ``ConfigError``
    where a color image cannot be converted to this number of channels.

    Arguments:
        path: the file; its content, not its name, tells the format.
        channels: of the result: see ``to_channels``.

    Returns:
        float32 of shape (channels, H, W), from 0 to 1.
    """
    from PIL import ImageOps

    with open_image(path) as image:
        values = _values(ImageOps.exif_transpose(image))
    converted: NDArray[np.float32] = to_channels(values[np.newaxis], channels)[0]
    return converted


def to_channels(images: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """Convert the channels: gray is repeated; color is kept, or becomes luminance.

    Raises ``ConfigError`` where these images cannot be converted to this number of channels.

    Arguments:
        images: float32 of shape (N, 1, H, W), or of red, green, blue: (N, 3, H, W).
        channels: of the result; for color 1 or 3.

    Returns:
        float32 of shape (N, channels, H, W); ``images`` itself if they have that shape.
    """
    found = images.shape[1]
    if found == channels:
        return images
    if found == 1:
        return images.repeat(channels, axis=1)
    if channels != 1 or found != 3:
        raise bad("in_channels", channels, f"1 or {found} for images of {found} channels")
    red, green, blue = (np.float32(w) * images[:, i] for i, w in enumerate(LUMINANCE))
    gray: NDArray[np.float32] = (red + green + blue)[:, np.newaxis]
    return gray


def normalise(images: NDArray[np.float32], usage: Usage | None) -> NDArray[np.float32]:
    """Scale pixels to the range that a network expects, then compute ``(pixels - mean) / std``.

    Raises ``ConfigError`` where the usage is for another number of channels.

    Arguments:
        images: float32 of shape (N, C, H, W), from 0 to 1.
        usage: of the network; a step whose values are None is omitted, and mean needs std.

    Returns:
        float32 of shape (N, C, H, W).
    """
    if usage is None:
        return images
    check_usage(usage, images.shape[1])
    if usage.value_range:
        low, high = usage.value_range
        images = images * np.float32(high - low) + np.float32(low)
    if usage.mean and usage.std:
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (usage.mean, usage.std))
        images = (images - mean) / std
    return images


def check_usage(usage: Usage, channels: int) -> None:
    """Raise ``ConfigError`` if the usage is for another number of channels."""
    for name in ("mean", "std"):
        values = getattr(usage, name)
        if values is not None and len(values) != channels:
            raise bad(name, values, f"{channels} numbers, one for each channel (in_channels)")


@dataclass(frozen=True)
class Preparation:
    """Convert pixels to what a network reads: its channels, its size, its range.

    Attributes:
        image_size: S, pixels per side of the result; another shape is stretched.
        channels: C of the result.
        usage: the range, mean and std for ``normalise``; None keeps 0 to 1.
    """

    image_size: int
    channels: int
    usage: Usage | None = None

    def __post_init__(self) -> None:
        integer("image_size", self.image_size, 1)
        integer("in_channels", self.channels, 1)
        if self.usage is not None:
            check_usage(self.usage, self.channels)

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 of shape (N, 1 or 3, H, W), from 0 to 1 -> float32 of shape (N, C, S, S)."""
        fewer = to_channels(images, min(images.shape[1], self.channels))  # resized before repeated
        resized = resize(fewer, self.image_size, self.image_size)
        return normalise(to_channels(resized, self.channels), self.usage)

    @property
    def black(self) -> NDArray[np.float32]:
        """The value of a black pixel after the preparation, of shape (C,)."""
        return normalise(np.zeros((1, self.channels, 1, 1), np.float32), self.usage).ravel()


def from_bytes(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale 0 … 255 to 0 … 1."""
    scaled: NDArray[np.float32] = pixels.astype(np.float32) / np.float32(255)
    return scaled


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image]:
    """Open an image with Pillow, reading no more than its header. Raises as ``read_image``."""
    from PIL import Image, JpegImagePlugin, PngImagePlugin

    with Path(path).open("rb") as file:
        start = file.read(4)
        file.seek(0)
        kind: Any = {
            b"\x89PN": PngImagePlugin.PngImageFile,
            b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
        }.get(start[:3])
        if kind is None:
            found = start.hex(" ") or "an empty file"
            raise DataError(
                f"{path}: expected a PNG or JPEG image, found {found}; convert it, or take it away"
            )
        try:
            with kind(file) as image:  # Image.open would only warn of up to twice the limit
                _check_size(path, image, Image.MAX_IMAGE_PIXELS)
                yield image
        except (DataError, MemoryError):
            raise
        except Exception as error:  # Pillow raises nearly anything on a damaged file
            raise DataError(
                f"{path}: expected a PNG or JPEG image, found a damaged one ({error}); "
                "replace it, or take it away"
            ) from error


def _check_size(path: str | os.PathLike[str], image: Image, limit: int | None) -> None:
    if limit is not None and image.width * image.height > limit:
        found = f"{image.width} x {image.height}; make it smaller"
        raise DataError(f"{path}: expected at most {limit:,} pixels, found {found}")


def _values(image: Image) -> NDArray[np.float32]:
    """The image as float32 of shape (1 or 3, H, W), from 0 to 1."""
    if image.mode.startswith("I"):  # gray of 16 bits: Pillow would clip it at 255
        return np.asarray(image).astype(np.float32)[np.newaxis] / np.float32(65535)
    if image.mode in ("1", "L", "LA"):
        return from_bytes(np.asarray(image.convert("L")))[np.newaxis]
    if image.mode == "P":
        image = image.convert("RGBA")  # "RGB" would warn of transparency
    return from_bytes(np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1)))
