"""Image files: every kind that is read, and what is refused by name."""

import os
import struct

import numpy as np
import pytest
from PIL import Image, features

from densenet_multi import ConfigError
from densenet_multi.data import DataError, Preparation, images, read_image

GRAY = np.arange(0, 240, 5, dtype=np.uint8).reshape(6, 8)
COLOR = np.stack([GRAY, GRAY[::-1], GRAY[:, ::-1]], axis=-1)
DEEP = np.array([[0, 255, 256], [1000, 40_000, 65_535]], np.uint16)
SUFFIXES = ("png", "webp", "bmp", "tif", "tiff", "gif")
EXACTLY = {"webp": {"lossless": True, "exact": True}}


def saved(path, array, **how):
    Image.fromarray(array).save(path, **{**EXACTLY.get(path.suffix[1:], {}), **how})
    return path


def tiff(pixels: np.ndarray, bits: int, photometric: int, kind: int = 1) -> bytes:
    """Return a TIFF of one strip, as the specification describes it (revision 6.0, section 2).

    ``photometric`` is 0 if white is 0, 1 if black is 0, 2 for RGB, and 8 for L*a*b*. ``kind`` is
    the type of the numbers: 1 unsigned, 2 signed, 3 floating point.
    """
    height, width, *channels = pixels.shape
    count, raw = (channels or [1])[0], pixels.tobytes()
    short, long = 3, 4
    tags = [
        (256, long, [width]),
        (257, long, [height]),
        (258, short, [bits] * count),
        (259, short, [1]),
        (262, short, [photometric]),
        (273, long, [8]),
        (277, short, [count]),
        (278, long, [height]),
        (279, long, [len(raw)]),
        (339, short, [kind] * count),
    ]
    raw += bytes(len(raw) % 2)
    directory = 8 + len(raw)
    entries, beyond = b"", b""
    for tag, letter, values in tags:
        packed = struct.pack(f"<{len(values)}{'..HI'[letter - 1]}", *values)
        if len(packed) > 4:
            where = directory + 2 + 12 * len(tags) + 4 + len(beyond)
            packed, beyond = struct.pack("<I", where), beyond + packed
        entries += struct.pack("<HHI", tag, letter, len(values)) + packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", directory)
    return head + raw + struct.pack("<H", len(tags)) + entries + bytes(4) + beyond


def read(path, content: bytes, channels: int = 1) -> np.ndarray:
    path.write_bytes(content)
    return read_image(path, channels)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_gray_images_of_every_kind_have_the_values_that_were_written(tmp_path, suffix):
    path = saved(tmp_path / f"x.{suffix}", GRAY)
    np.testing.assert_allclose(read_image(path, 1), [GRAY / 255], atol=2e-7)
    np.testing.assert_allclose(read_image(path, 3), [GRAY / 255] * 3, atol=2e-7)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_color_images_of_every_kind_have_the_values_that_were_written(tmp_path, suffix):
    path = saved(tmp_path / f"x.{suffix}", COLOR)
    np.testing.assert_allclose(read_image(path, 3), COLOR.transpose(2, 0, 1) / 255, atol=1e-7)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_several_images_in_a_file_the_first_is_read(tmp_path, suffix):
    others = [Image.fromarray(255 - GRAY), Image.fromarray(GRAY // 2)]
    path = saved(tmp_path / f"x.{suffix}", GRAY, save_all=True, append_images=others)
    with Image.open(path) as image:
        assert image.n_frames == 3
    np.testing.assert_allclose(read_image(path, 1), [GRAY / 255], atol=2e-7)


def test_the_content_tells_the_kind_and_not_the_name(tmp_path):
    for suffix in SUFFIXES:
        path = saved(tmp_path / f"x.{suffix}", GRAY).rename(tmp_path / "x.jpg")
        np.testing.assert_allclose(read_image(path, 1), [GRAY / 255], atol=2e-7)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_a_tiff_is_turned_upright_once(tmp_path, compression):
    for orientation, turned in (1, GRAY), (3, np.rot90(GRAY, 2)), (6, np.rot90(GRAY, -1)):
        path = tmp_path / "x.tif"
        saved(path, GRAY, compression=compression, tiffinfo={0x0112: orientation})
        np.testing.assert_allclose(read_image(path, 1), [turned / 255], atol=1e-7)


def test_a_webp_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "x.webp", COLOR, exif=exif)
    expected = np.rot90(COLOR, -1).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(read_image(path, 3), expected, atol=1e-7)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_sixteen_bits_of_a_tiff_are_kept(tmp_path, compression):
    path = saved(tmp_path / "x.tif", DEEP, compression=compression)
    np.testing.assert_allclose(read_image(path, 1), [DEEP / 65535], atol=1e-7)


def test_a_tiff_whose_white_is_0_is_not_read_as_its_negative(tmp_path):
    eight = read(tmp_path / "x.tif", tiff(GRAY, 8, photometric=0))
    np.testing.assert_allclose(eight, [1 - GRAY / 255], atol=1e-7)
    sixteen = read(tmp_path / "x.tif", tiff(DEEP, 16, photometric=0))
    np.testing.assert_allclose(sixteen, [1 - DEEP / 65535], atol=1e-7)
    usual = read(tmp_path / "x.tif", tiff(DEEP, 16, photometric=1))
    np.testing.assert_allclose(usual, [DEEP / 65535], atol=1e-7)


def test_sixteen_bits_of_each_color_of_a_tiff_keep_the_upper_eight(tmp_path):
    color = read(tmp_path / "x.tif", tiff(COLOR.astype(np.uint16) * 256 + 77, 16, 2), 3)
    np.testing.assert_allclose(color, COLOR.transpose(2, 0, 1) / 255, atol=1e-7)


@pytest.mark.parametrize(
    ("dtype", "bits", "photometric", "kind", "found"),
    [
        ("u4", 32, 1, 1, "32 bits of integers"),
        ("i4", 32, 1, 2, "32 bits of signed integers"),
        ("f4", 32, 1, 3, "32 bits of floating point"),
        ("i2", 16, 1, 2, "16 bits of signed integers"),
        ("i1", 8, 1, 2, "8 bits of signed integers"),
    ],
)
def test_numbers_whose_white_is_unknown_are_refused_by_name(
    tmp_path, dtype, bits, photometric, kind, found
):
    content = tiff(GRAY.astype(dtype), bits, photometric, kind)
    with pytest.raises(DataError, match=rf"x\.tif: expected pixels of 8 or 16 bits.*found {found}"):
        read(tmp_path / "x.tif", content)


def test_twelve_bits_are_refused_as_they_would_be_too_dark(tmp_path):
    packed = np.arange(12, dtype=np.uint8).reshape(2, 6)  # two pixels in three bytes
    content = bytearray(tiff(packed, 12, 1))
    at = content.index(struct.pack("<HHII", 256, 4, 1, 6))
    content[at + 8 : at + 12] = struct.pack("<I", 4)
    with pytest.raises(DataError, match="found 12 bits of integers"):
        read(tmp_path / "x.tif", bytes(content))


def test_colors_that_cannot_be_converted_are_refused_by_their_name(tmp_path):
    with pytest.raises(DataError, match=r"gray or color, found mode LAB; convert or"):
        read(tmp_path / "x.tif", tiff(COLOR, 8, photometric=8), 3)


def test_cmyk_in_a_tiff_is_read(tmp_path):
    Image.fromarray(COLOR).convert("CMYK").save(tmp_path / "x.tif")
    image = read_image(tmp_path / "x.tif", 3)
    np.testing.assert_allclose(image, COLOR.transpose(2, 0, 1) / 255, atol=1 / 255)


def riff(width: int, height: int) -> bytes:
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


SIDES = 60_000, 50_000
HUGE = {
    "gif": b"GIF89a" + struct.pack("<HH", *SIDES) + bytes(3)
    + b"," + bytes(4) + struct.pack("<HH", *SIDES) + b"\0\x02\x01\0\0;",
    "bmp": b"BM" + struct.pack("<IHHI", 100, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, *SIDES, 1, 24, 0, 0, 0, 0, 0, 0),
    "tif": tiff(GRAY, 8, 1)
    .replace(struct.pack("<HHII", 256, 4, 1, 8), struct.pack("<HHII", 256, 4, 1, SIDES[0]))
    .replace(struct.pack("<HHII", 257, 4, 1, 6), struct.pack("<HHII", 257, 4, 1, SIDES[1])),
}  # fmt: skip


@pytest.mark.parametrize("suffix", HUGE)
def test_a_small_file_of_many_pixels_is_refused_before_they_are_made(tmp_path, suffix):
    with pytest.raises(DataError, match=r"at most 36,000,000 pixels, found 60000 x 50000; make"):
        read(tmp_path / f"x.{suffix}", HUGE[suffix])


def test_an_image_of_many_pixels_is_read_from_a_file_of_some_size(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "OF_ANY_FILE", 500)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    assert read_image(saved(tmp_path / "noise.png", noise), 1).shape == (1, 40, 40)
    blank = saved(tmp_path / "blank.png", np.zeros((400, 400), np.uint8))
    most = images.PIXELS_PER_BYTE * blank.stat().st_size
    with pytest.raises(DataError, match=rf"at most {most:,} pixels, found 400 x 400"):
        read_image(blank, 1)


@pytest.mark.parametrize("pillows", [None, 10**9])
def test_no_image_has_more_pixels_than_the_most_whatever_pillow_allows(
    tmp_path, monkeypatch, pillows
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
    monkeypatch.setattr(images, "MOST_PIXELS", 99)
    deep = saved(tmp_path / "deep.png", np.zeros((10, 10), np.uint16))
    with pytest.raises(DataError, match="at most 99 pixels, found 10 x 10; make it smaller"):
        read_image(deep, 1)


def test_a_small_webp_of_many_pixels_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"x\.webp: expected .*found "):
        read(tmp_path / "x.webp", riff(16_000, 16_000))


def test_an_installation_that_reads_no_webp_says_so(tmp_path, monkeypatch):
    path = saved(tmp_path / "x.webp", GRAY)
    monkeypatch.setattr(features, "check", lambda _: False)
    with pytest.raises(DataError, match="a WebP image, which the installed Pillow cannot read"):
        read_image(path, 1)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "an image in HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "an image in AVIF"),
        (b"\0\0\0\x1cftypisom\0\0\0\0", "a video"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "a Git LFS pointer"),
        (b"%PDF-1.4", "a PDF"),
        (b"PK\x03\x04", "a zip archive"),
        (b"abcdef", "a file that starts with 61 62 63 64"),
        (b"\x89P", "a file that starts with 89 50"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(tmp_path, content, found):
    with pytest.raises(DataError, match=rf"x\.png: expected a PNG, JPEG, .*, found {found}"):
        read(tmp_path / "x.png", content)


def test_no_image_is_prepared_in_a_size_that_no_machine_holds():
    assert Preparation(2**12, 1).image_size == 2**12
    with pytest.raises(ConfigError, match=r"image_size: expected an integer from 1 to 4,096"):
        Preparation(10**8, 1)
    with pytest.raises(ConfigError, match=r"at most 67,108,864 values in an image, found 5 chann"):
        Preparation(2**12, 5)


def test_a_broken_link_is_called_a_broken_link(tmp_path):
    (tmp_path / "x.png").symlink_to("gone.png")
    with pytest.raises(DataError, match=r"x\.png: .*found a broken link, to gone\.png; fix or"):
        read_image(tmp_path / "x.png", 1)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_any_kind_that_breaks_off_is_damaged(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    path = saved(tmp_path / f"x.{suffix}", noise)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match=r"found a damaged one .*; replace or"):
        read_image(path, 3)


def test_an_image_is_bounded_before_it_is_read(tmp_path):
    with (tmp_path / "x.webp").open("wb") as file:  # Pillow reads all of it
        file.write(b"RIFF....WEBP")
        file.truncate(2**30 + 1)  # sparse: takes no space on the disk
    expected = "expected at most 1,073,741,824 bytes, found 1,073,741,825; make it smaller"
    with pytest.raises(DataError, match=expected):
        read_image(tmp_path / "x.webp", 3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes need Unix")
def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="found a pipe; remove it"):
        read_image(tmp_path / "pipe.png", 3)
