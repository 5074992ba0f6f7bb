"""Read images, and convert them to the channels, the size and the range of a network."""

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
STARTS = {  # of a file -> the module and the class of Pillow that read it
    b"\x89PNG": ("PngImagePlugin", "PngImageFile"),
    b"\xff\xd8\xff": ("JpegImagePlugin", "JpegImageFile"),
    b"RIFF....WEBP": ("WebPImagePlugin", "WebPImageFile"),
    b"BM": ("BmpImagePlugin", "BmpImageFile"),
    b"II*\0": ("TiffImagePlugin", "TiffImageFile"),
    b"MM\0*": ("TiffImagePlugin", "TiffImageFile"),
    b"GIF8": ("GifImagePlugin", "GifImageFile"),
}
OTHERS = {  # what else is found where an image is expected
    b"....ftypheic": "an image in HEIC",
    b"....ftypheix": "an image in HEIC",
    b"....ftypmif1": "an image in HEIF",
    b"....ftypavif": "an image in AVIF",
    b"....ftyp": "a video",
    b"\0\0\0\x0cjP  ": "an image in JPEG 2000",
    b"8BPS": "an image of Photoshop",
    b"II+\0": "an image in BigTIFF",
    b"MM\0+": "an image in BigTIFF",
    b"%PDF": "a PDF",
    b"<!DOCTYPE ": "a web page",
    b"<!doctype ": "a web page",
    b"<html": "a web page",
    b"<svg": "an image in SVG",
    b"<?xml": "XML",
    b"\xd0\xcf\x11\xe0": "a file of Windows or Office",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "the pointer of git-lfs to a file",
}
CONVERT, MEND = "convert it, or take it away", "mend it, or take it away"
ADVICE = {  # what is found -> advice, where CONVERT does not apply
    "an empty file": "copy it again, or take it away",
    OTHERS[b"version https://git-lfs"]: "type 'git lfs pull' there",
}
MOST_PIXELS = 2**27  # in an image that is read; as float32, in color, 1.6 GB
OF_ANY_FILE = 36 * 10**6  # pixels, a page of A4 at 600 dpi; more only in a larger file
PIXELS_PER_BYTE = 100  # of that file; photographs have 2 to 10
LARGEST_IMAGE = 2**30  # bytes; as many pixels as Pillow opens, at 16 bits, take 0.7 * 10**9
MOST_REPEATED = 4096  # channels that gray is repeated for; hyperspectral images have some hundreds
MOST_VALUES = 2**26  # in a prepared image: four channels of 4,096 x 4,096
READ = 32  # bytes, which tell the format
BLACK_AND_WHITE_OR_8_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX")
CONVERTED = ("CMYK", "YCbCr", "HSV")  # by Pillow
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601


class DataError(OSError):
    """Data are missing, damaged or another set; the message tells where and what to do."""


class ImageFileError(DataError):
    """A file is not an image that can be read.

    Arguments:
        path: the file.
        found: what it is instead.
        expected: what it should be.
        advice: what to do about it.

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
    """Read a PNG, JPEG, WebP, BMP, TIFF or GIF file of any size, in its upright orientation.

    EXIF gives the orientation of a photograph. Transparency is dropped and the color below it
    kept, as in torchvision's ImageFolder. Of 16 bits, gray images keep all, color images the upper
    eight. Of several images in a file, such as an animation, the first is read.

    Raises ``DataError`` where the file is not such an image, is damaged, has other kinds of pixels
    (floating point, 32 bits, Lab), or more of them than 2**27, than 100 for each byte of a file
    with over 36 million, or than Pillow's ``Image.MAX_IMAGE_PIXELS``; ``OSError`` where it cannot
    be opened; ``ConfigError`` where a color image cannot be converted to this number of channels.

    Arguments:
        path: the file; its content, not its name, tells the format.
        channels: of the result: see ``to_channels``.

    Returns:
        float32 of shape (channels, H, W), from 0 to 1.
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
    gray: NDArray[np.float32] = np.float32(LUMINANCE[0]) * images[:, :1]
    gray += np.float32(LUMINANCE[1]) * images[:, 1:2]
    gray += np.float32(LUMINANCE[2]) * images[:, 2:]
    return gray


def normalise(images: NDArray[np.float32], usage: Usage | None) -> NDArray[np.float32]:
    """Scale pixels to the range that a network expects, then compute ``(pixels - mean) / std``.

    Raises ``ConfigError`` where the usage is for another number of channels.

    Arguments:
        images: float32 of shape (N, C, H, W), from 0 to 1.
        usage: of the network; a step whose values are None is omitted, and mean needs std.

    Returns:
        float32 of shape (N, C, H, W).

    >>> from densenet_multi import data
    >>> white = np.ones((1, 1, 1, 2), np.float32)
    >>> data.normalise(white, dm.Usage(mean=[0.5], std=[0.25]))
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
    """The size. Raises ``ConfigError`` if no image can have it."""
    return integer("image_size", image_size, 1, LARGEST_SIDE)


def check_usage_fits(usage: Usage, channels: int) -> None:
    """Raise ``ConfigError`` if the usage is for another number of channels."""
    check_usage(usage)
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
                "choose a smaller one"
            )
        if self.usage is not None:
            check_usage_fits(self.usage, self.channels)

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 of shape (N, 1 or 3, H, W), from 0 to 1 -> float32 of shape (N, C, S, S)."""
        images = check_floats("images", images, "(N, 1 or 3, H, W)")
        fewer = to_channels(images, min(images.shape[1], self.channels))  # resized before repeated
        resized = resize(fewer, self.image_size, self.image_size)
        return normalise(to_channels(resized, self.channels), self.usage)

    @property
    def black(self) -> NDArray[np.float32]:
        """The value of a black pixel after the preparation, of shape (C,)."""
        return normalise(np.zeros((1, self.channels, 1, 1), np.float32), self.usage).ravel()


def check_preparation(prepare: object) -> Preparation:
    """The preparation itself. Raises ``ConfigError`` for anything else."""
    expected = "a Preparation, such as Preparation(image_size=96, channels=3)"
    return instance("prepare", prepare, Preparation, expected)


def from_bytes(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale 0 … 255 to 0 … 1."""
    return _scaled(pixels, 255)


def _scaled(pixels: NDArray[Any], largest: int) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = pixels.astype(np.float32)
    scaled /= np.float32(largest)
    return scaled


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image]:
    """Open an image with Pillow, reading no more than its header. Raises as ``read_image``."""
    from PIL import Image, features

    path = as_path(path)
    if broken := broken_link(path):
        raise ImageFileError(path, broken, advice=MEND)

    def refusal(expected: str, found: str) -> ImageFileError:
        if expected == A_FILE:
            return ImageFileError(path, found, advice="take it away")
        return ImageFileError(path, found, expected, "make it smaller")

    file = opened(path, refusal, LARGEST_IMAGE)  # Pillow reads some formats whole
    # Pillow warns of what it passes over, and of images up to twice the limit
    with warnings.catch_warnings(action="ignore"), file:
        start = file.read(READ)
        file.seek(0)
        plugin = _first(STARTS, start)
        if plugin is None:
            found = _described(start)
            raise ImageFileError(path, found, advice=ADVICE.get(found, CONVERT))
        if plugin[1] == "WebPImageFile" and not features.check("webp"):
            raise ImageFileError(path, "one in WebP, which the installed Pillow cannot read")
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
        except Exception as error:  # Pillow raises nearly anything on a damaged file
            raise ImageFileError(
                path, f"a damaged one ({error})", advice="replace it, or take it away"
            ) from error


def broken_link(path: Path) -> str | None:
    """What a symbolic link that leads nowhere is called in an error; None for anything else."""
    if path.is_symlink() and not path.exists():
        return f"a broken link, to {path.readlink()}"
    return None


def _first(kinds: Mapping[bytes, T], start: bytes) -> T | None:
    """The value of the first key that a file starts with; a dot is any byte."""
    for key, value in kinds.items():
        pairs = zip(key, start, strict=False)
        if len(start) >= len(key) and all(k in (byte, ord(".")) for k, byte in pairs):
            return value
    return None


def _described(start: bytes) -> str:
    """What a file is that starts like this, and with nothing that is read here."""
    if not start:
        return "an empty file"
    return _first(OTHERS, start) or f"a file that starts with {start[:4].hex(' ')}"


def _class_of(module: str, name: str) -> type[ImageFile]:
    from importlib import import_module

    found: type[ImageFile] = getattr(import_module(f"PIL.{module}"), name)
    return found


def _most_pixels(size: int, pillows: int | None) -> int:
    """How many pixels a file of this size in bytes may have, where Pillow allows as many."""
    most = min(MOST_PIXELS, max(OF_ANY_FILE, PIXELS_PER_BYTE * size))
    return most if pillows is None else min(most, pillows)


def _check_size(path: str | os.PathLike[str], image: Image, limit: int) -> None:
    if image.width * image.height > limit:
        found = f"{image.width} x {image.height}"
        raise ImageFileError(path, found, f"at most {limit:,} pixels", "make it smaller")


def _check_mode(path: str | os.PathLike[str], image: Image) -> None:
    """Refuse pixels whose values would be misread."""
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
    """Whether gray values are stored inverted, and Pillow leaves them so: in TIFF, 16 bits."""
    if image.format != "TIFF" or not image.mode.startswith("I"):
        return False
    return bool(image.tag_v2.get(PHOTOMETRIC) == 0)  # type: ignore[attr-defined]


def _values(image: Image) -> NDArray[np.float32]:
    """The image as float32 of shape (1 or 3, H, W), from 0 to 1."""
    if image.mode in ("La", "RGBa"):  # colors multiplied by their transparency
        image = image.convert(image.mode.upper())
    if image.mode.startswith("I"):  # gray of 16 bits: Pillow would clip it at 255
        return _scaled(np.asarray(image), 65535)[np.newaxis]
    if image.mode in ("1", "L", "LA"):
        return from_bytes(np.asarray(image.convert("L")))[np.newaxis]
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # "RGB" would warn of transparency
    image = image if image.mode == "RGB" else image.convert("RGB")
    values = np.empty((3, image.height, image.width), np.float32)
    for i in range(3):
        values[i] = from_bytes(np.asarray(image.getchannel(i)))
    return values
