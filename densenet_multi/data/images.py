"""Read images, and convert them to a network's channels, size and value range."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from .._checks import LARGEST_SIDE, ConfigError, bad, instance, integer
from .._files import A_FILE, as_path, opened, size_of
from .._inputs import check_floats
from ..checkpoint import Usage, check_usage
from .resize import resize

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

T = TypeVar("T")
ImagesAndLabels: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8]]

FORMATS = "PNG, JPEG, WebP, BMP, TIFF or GIF"
STARTS = {  # first bytes of a file -> the module and the class of Pillow that reads it
    b"\x89PNG": ("PngImagePlugin", "PngImageFile"),
    b"\xff\xd8\xff": ("JpegImagePlugin", "JpegImageFile"),
    b"RIFF....WEBP": ("WebPImagePlugin", "WebPImageFile"),
    b"BM": ("BmpImagePlugin", "BmpImageFile"),
    b"II*\0": ("TiffImagePlugin", "TiffImageFile"),
    b"MM\0*": ("TiffImagePlugin", "TiffImageFile"),
    b"GIF8": ("GifImagePlugin", "GifImageFile"),
}
OTHERS = {  # first bytes of other files that are found in place of images
    b"....ftypheic": "an image in HEIC",
    b"....ftypheix": "an image in HEIC",
    b"....ftypmif1": "an image in HEIF",
    b"....ftypavif": "an image in AVIF",
    b"....ftyp": "a video",
    b"\0\0\0\x0cjP  ": "an image in JPEG 2000",
    b"8BPS": "a Photoshop image",
    b"II+\0": "an image in BigTIFF",
    b"MM\0+": "an image in BigTIFF",
    b"%PDF": "a PDF",
    b"<!DOCTYPE ": "a web page",
    b"<!doctype ": "a web page",
    b"<html": "a web page",
    b"<svg": "an image in SVG",
    b"<?xml": "XML",
    b"\xd0\xcf\x11\xe0": "a Windows or Office file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a Git LFS pointer to a file",
}
CONVERT, MEND = "convert or remove it", "fix or remove it"
ADVICE = {  # what is found -> advice, if not CONVERT
    "an empty file": "copy it again, or remove it",
    OTHERS[b"version https://git-lfs"]: "type 'git lfs pull' in its repository",
}
MOST_PIXELS = 2**27  # in an image; 1.6 GB as float32 in color
OF_ANY_FILE = 36 * 10**6  # pixels allowed in any file, however small: an A4 page at 600 dpi
PIXELS_PER_BYTE = 100  # the limit for larger images; photographs have 2 to 10
LARGEST_IMAGE = 2**30  # bytes; Pillow's largest image needs 0.7 * 10**9 at 16 bits per channel
MOST_REPEATED = 4096  # copies of a gray channel; hyperspectral images have a few hundred channels
MOST_VALUES = 2**26  # in a prepared image: four channels of 4,096 x 4,096
READ = 32  # bytes, enough to detect the format
BLACK_AND_WHITE_OR_8_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX")
CONVERTED = ("CMYK", "YCbCr", "HSV")  # by Pillow
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # TIFF tags

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601


class DataError(OSError):
    """Data are missing, damaged or of another data set; the message states where and what to do."""


class DataNotFoundError(DataError):
    """Data are in none of the places where they are looked for, and cannot be downloaded."""


class ImageFileError(DataError):
    """A file is not a readable image.

    Arguments:
        path: the file.
        found: what the file is.
        expected: what it should be.
        advice: what the user can do about it.

    Attributes:
        path, found, advice: as given.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        found: str,
        expected: str = f"a {FORMATS} image",
        advice: str = CONVERT,
    ) -> None:
        super().__init__(f"{path}: expected {expected}, found {found}; {advice}")
        self.path, self.found, self.advice = Path(path), found, advice


def read_image(path: str | os.PathLike[str], channels: int) -> NDArray[np.float32]:
    """Read a PNG, JPEG, WebP, BMP, TIFF or GIF file of any size, and rotate it upright.

    A photograph's orientation is read from EXIF. The alpha channel is dropped and the color kept,
    as in torchvision's ImageFolder. A 16-bit gray image keeps all 16 bits; a 16-bit color image
    keeps the upper 8. Of several images in one file, such as an animation, the first is read.

    Raises ``DataError`` if the file is not such an image, is damaged, has unsupported pixels
    (floating point, 32 bits, Lab) or too many pixels. Too many means more than 2**27, more than
    Pillow's ``Image.MAX_IMAGE_PIXELS``, or more than both 36 million and 100 per byte of the file.
    Raises ``OSError`` if the file cannot be opened; ``ConfigError`` if a color image cannot be
    converted to this number of channels.

    Arguments:
        path: the file; its content, not its name, determines the format.
        channels: the channels of the result: see ``to_channels``.

    Returns:
        float32 of shape (channels, H, W), from 0 to 1.

    >>> from PIL import Image
    >>> Image.new("RGB", (40, 30), "white").save("photo.png")
    >>> read_image("photo.png", channels=3).shape
    (3, 30, 40)
    """
    from PIL import ImageOps

    channels = integer("channels", channels, 1, MOST_REPEATED)
    with open_image(path) as image:
        inverted = _white_is_0(image)
        ImageOps.exif_transpose(image, in_place=True)
        values = _values(image)
    if inverted:
        np.subtract(1, values, out=values)
    converted: NDArray[np.float32] = to_channels(values[np.newaxis], channels)[0]
    return converted


def to_channels(images: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """Convert the number of channels: repeat gray; keep color, or convert it to luminance.

    Raises ``ConfigError`` if these images cannot be converted to this number of channels.

    Arguments:
        images: float32; gray of shape (N, 1, H, W), or RGB of shape (N, 3, H, W).
        channels: the channels of the result; for color, 1 or 3.

    Returns:
        float32 of shape (N, channels, H, W); ``images`` itself if it has that shape.
    """
    found = images.shape[1]
    if found == channels:
        return images
    if found == 1:
        return images.repeat(channels, axis=1)
    if channels != 1 or found != 3:
        raise bad("in_channels", channels, f"1 or {found} for images of {found} channels")
    gray: NDArray[np.float32] = np.float32(LUMINANCE[0]) * images[:, :1]
    gray += np.float32(LUMINANCE[1]) * images[:, 1:2]
    gray += np.float32(LUMINANCE[2]) * images[:, 2:]
    return gray


def normalize(images: NDArray[np.float32], usage: Usage | None) -> NDArray[np.float32]:
    """Scale pixels to the range that a network expects, then compute ``(pixels - mean) / std``.

    Raises ``ConfigError`` if the usage is for a different number of channels.

    Arguments:
        images: float32 of shape (N, C, H, W), from 0 to 1.
        usage: the network's usage; a step is omitted if a value that it needs is None.

    Returns:
        float32 of shape (N, C, H, W).

    >>> from densenet_multi import data
    >>> white = np.ones((1, 1, 1, 2), np.float32)
    >>> data.normalize(white, dm.Usage(mean=[0.5], std=[0.25]))
    array([[[[2., 2.]]]], dtype=float32)
    """
    images = check_floats("images", images)
    if usage is None:
        return images
    check_usage_fits(usage, images.shape[1])
    if usage.value_range:
        low, high = usage.value_range
        images = images * np.float32(high - low) + np.float32(low)
    if usage.mean and usage.std:
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (usage.mean, usage.std))
        images = (images - mean) / std
    return images


def check_side(image_size: int) -> int:
    """Return the size. Raises ``ConfigError`` if no square image can have this side."""
    return integer("image_size", image_size, 1, LARGEST_SIDE)


def check_usage_fits(usage: Usage, channels: int) -> None:
    """Raise ``ConfigError`` if the usage is for a different number of channels."""
    check_usage(usage)
    for name in ("mean", "std"):
        values = getattr(usage, name)
        if values is not None and len(values) != channels:
            raise bad(name, values, f"{channels} numbers, one for each channel (in_channels)")


@dataclass(frozen=True)
class Preparation:
    """A function that converts pixels to a network's channels, size and value range.

    Attributes:
        image_size: S, pixels per side of the result; images that are not square are stretched.
        channels: C of the result.
        usage: the range, mean and std for ``normalize``; None keeps the range 0 to 1.

    >>> from densenet_multi import data
    >>> prepare = data.Preparation(image_size=32, channels=1)
    >>> prepare(np.zeros((5, 3, 48, 64), np.float32)).shape
    (5, 1, 32, 32)
    """

    image_size: int
    channels: int
    usage: Usage | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", check_side(self.image_size))
        channels = integer("channels", self.channels, 1, MOST_REPEATED)
        object.__setattr__(self, "channels", channels)
        if channels * self.image_size**2 > MOST_VALUES:
            found = f"{channels} channels of {self.image_size}x{self.image_size}"
            raise ConfigError(
                f"image_size: expected at most {MOST_VALUES:,} values in an image, found {found}; "
                "choose a smaller size"
            )
        if self.usage is not None:
            check_usage_fits(self.usage, self.channels)

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Convert float32 (N, 1 or 3, H, W), from 0 to 1, to float32 (N, C, S, S)."""
        images = check_floats("images", images, "(N, 1 or 3, H, W)")
        fewer = to_channels(images, min(images.shape[1], self.channels))  # gray is repeated below
        resized = resize(fewer, self.image_size, self.image_size)
        return normalize(to_channels(resized, self.channels), self.usage)

    @property
    def black(self) -> NDArray[np.float32]:
        """The value of a black pixel after preparation, of shape (C,)."""
        return normalize(np.zeros((1, self.channels, 1, 1), np.float32), self.usage).ravel()


def check_preparation(prepare: object) -> Preparation:
    """Return the given ``Preparation``. Raises ``ConfigError`` for anything else."""
    expected = "a Preparation, such as Preparation(image_size=96, channels=3)"
    return instance("prepare", prepare, Preparation, expected)


def from_bytes(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale pixels from the range 0 … 255 to the range 0 … 1."""
    return _scaled(pixels, 255)


def _scaled(pixels: NDArray[Any], largest: int) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = pixels.astype(np.float32)
    scaled /= np.float32(largest)
    return scaled


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image]:
    """Open an image with Pillow, which reads only its header.

    Raises the same errors as ``read_image``.
    """
    from PIL import Image, features

    path = as_path(path)
    if broken := broken_link(path):
        raise ImageFileError(path, broken, advice=MEND)

    def refusal(expected: str, found: str) -> ImageFileError:
        if expected == A_FILE:
            return ImageFileError(path, found, advice="remove it")
        return ImageFileError(path, found, expected, "make it smaller")

    file = opened(path, refusal, LARGEST_IMAGE)  # Pillow loads some formats completely
    # Pillow warns about data that it skips, and about images of one to two times its pixel limit
    with warnings.catch_warnings(action="ignore"), file:
        start = file.read(READ)
        file.seek(0)
        plugin = _first(STARTS, start)
        if plugin is None:
            found = _described(start)
            raise ImageFileError(path, found, advice=ADVICE.get(found, CONVERT))
        if plugin[1] == "WebPImageFile" and not features.check("webp"):
            raise ImageFileError(path, "a WebP image, which the installed Pillow cannot read")
        limit = _most_pixels(size_of(file), Image.MAX_IMAGE_PIXELS)
        try:
            with _class_of(*plugin)(file) as image:
                _check_size(path, image, limit)
                _check_mode(path, image)
                yield image
        except (DataError, MemoryError):
            raise
        except Image.DecompressionBombError:
            expected = f"at most {limit:,} pixels"
            raise ImageFileError(path, "more", expected, "make it smaller") from None
        except Exception as error:  # for a damaged file, Pillow raises nearly anything
            raise ImageFileError(
                path, f"a damaged one ({error})", advice="replace or remove it"
            ) from error


def broken_link(path: Path) -> str | None:
    """Describe a broken symbolic link, for an error; None for anything else."""
    if path.is_symlink() and not path.exists():
        return f"a broken link, to {path.readlink()}"
    return None


def _first(kinds: Mapping[bytes, T], start: bytes) -> T | None:
    """Return the value of the first key that a file starts with; a dot matches any byte."""
    for key, value in kinds.items():
        pairs = zip(key, start, strict=False)
        if len(start) >= len(key) and all(k in (byte, ord(".")) for k, byte in pairs):
            return value
    return None


def _described(start: bytes) -> str:
    """Describe an unsupported file by its first bytes."""
    if not start:
        return "an empty file"
    return _first(OTHERS, start) or f"a file that starts with {start[:4].hex(' ')}"


def _class_of(module: str, name: str) -> type[ImageFile]:
    from importlib import import_module

    found: type[ImageFile] = getattr(import_module(f"PIL.{module}"), name)
    return found


def _most_pixels(size: int, pillows: int | None) -> int:
    """Return the pixel limit for a file of ``size`` bytes, at most Pillow's own limit."""
    most = min(MOST_PIXELS, max(OF_ANY_FILE, PIXELS_PER_BYTE * size))
    return most if pillows is None else min(most, pillows)


def _check_size(path: str | os.PathLike[str], image: Image, limit: int) -> None:
    if image.width * image.height > limit:
        found = f"{image.width} x {image.height}"
        raise ImageFileError(path, found, f"at most {limit:,} pixels", "make it smaller")


def _check_mode(path: str | os.PathLike[str], image: Image) -> None:
    """Raise ``ImageFileError`` for pixels whose values would be misread."""
    found = None
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits, kinds = tags.get(BITS_PER_SAMPLE, (1,)), tags.get(SAMPLE_FORMAT, (1,))
        if image.mode in ("I", "F") or set(kinds) != {1} or max(bits) > 16 or 12 in bits:
            numbers = {2: "signed integers", 3: "floating point"}.get(max(kinds), "integers")
            found = f"{max(bits)} bits of {numbers}"
    if not (
        found
        or image.mode.startswith("I")
        or image.mode in (*BLACK_AND_WHITE_OR_8_BITS, *CONVERTED)
    ):
        found = f"mode {image.mode}"
    if found:
        raise ImageFileError(path, found, "pixels of 8 or 16 bits, gray or color")


def _white_is_0(image: Image) -> bool:
    """Return whether 0 is white and Pillow does not correct that, as in 16-bit TIFF."""
    if image.format != "TIFF" or not image.mode.startswith("I"):
        return False
    return bool(image.tag_v2.get(PHOTOMETRIC) == 0)  # type: ignore[attr-defined]


def _values(image: Image) -> NDArray[np.float32]:
    """Return the image as float32 of shape (1 or 3, H, W), from 0 to 1."""
    if image.mode in ("La", "RGBa"):  # colors premultiplied by alpha
        image = image.convert(image.mode.upper())
    if image.mode.startswith("I"):  # 16-bit gray: Pillow would clip it at 255
        return _scaled(np.asarray(image), 65535)[np.newaxis]
    if image.mode in ("1", "L", "LA"):
        return from_bytes(np.asarray(image.convert("L")))[np.newaxis]
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # "RGB" would warn about transparency
    image = image if image.mode == "RGB" else image.convert("RGB")
    values = np.empty((3, image.height, image.width), np.float32)
    for i in range(3):
        values[i] = from_bytes(np.asarray(image.getchannel(i)))
    return values
