"""Data: arrays are exactly what the files hold, and are prepared the same way everywhere."""

import gzip
import hashlib
import os
import re
import struct
import tracemalloc
import zlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densenet_multi.data import (
    CLASSES,
    DataError,
    IdxError,
    epoch_order,
    load_directory,
    load_sample,
    make_sample,
    read_idx,
    resize,
    to_input,
    write_idx,
)

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
needs_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason=f"no {DEBIAN}: apt-get install dataset-fashion-mnist"
)

# Checksums of the decompressed files. The official .gz files have the same compressed data as
# Debian's: only the time and the name in the gzip header differ.
OFFICIAL_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
IMAGES_IDX = bytes.fromhex("00000803 00000002 00000003 00000004") + bytes(range(24))
LABELS_IDX = bytes.fromhex("00000801 00000002 0705")


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


@pytest.fixture(params=["plain", "gzip"])
def idx_file(request, tmp_path):
    """Return a function that writes bytes to a file, plain or compressed, and returns its path."""

    def write(content: bytes) -> Path:
        path = tmp_path / "file"
        path.write_bytes(gzip.compress(content) if request.param == "gzip" else content)
        return path

    return write


# Reading IDX


def test_an_idx_file_is_read_byte_for_byte(idx_file):
    read = read_idx(idx_file(IMAGES_IDX))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, IMAGES)
    np.testing.assert_array_equal(read_idx(idx_file(LABELS_IDX)), [7, 5])


def test_the_array_read_is_writable(idx_file):
    read_idx(idx_file(IMAGES_IDX))[:] = 1


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IdxError, match="pipe: expected a file, found a pipe"):
        read_idx(tmp_path / "pipe")


def test_gzip_is_recognised_by_content_not_by_name(tmp_path):
    (tmp_path / "plain.gz").write_bytes(IMAGES_IDX)
    (tmp_path / "compressed").write_bytes(gzip.compress(IMAGES_IDX))
    np.testing.assert_array_equal(read_idx(tmp_path / "plain.gz"), IMAGES)
    np.testing.assert_array_equal(read_idx(tmp_path / "compressed"), IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "found an empty file", id="empty"),
        pytest.param(IMAGES_IDX[:3], "magic number.*found 00 00 08", id="short magic"),
        pytest.param(b"\x89PNG" + IMAGES_IDX, "magic number.*found 89 50 4e 47", id="magic"),
        pytest.param(b"\0\1" + IMAGES_IDX[2:], "magic number.*found 00 01 08 03", id="2nd byte"),
        pytest.param(b"\0\0\x0d\3" + IMAGES_IDX[4:], "type code 0x08.*found 0x0d", id="floats"),
        pytest.param(b"\0\0\x08\2" + IMAGES_IDX[4:], "1 or 3 dimensions, found 2", id="2 dims"),
        pytest.param(b"\0\0\x08\0\1", "1 or 3 dimensions, found 0", id="0 dims"),
        pytest.param(IMAGES_IDX[:15], "3 sizes of 4 bytes, found 11 bytes", id="short sizes"),
        pytest.param(IMAGES_IDX[:-1], r"24 values for shape \(2, 3, 4\), found 23", id="short"),
        pytest.param(IMAGES_IDX[:16], "24 values.*found 0", id="no values"),
        pytest.param(IMAGES_IDX + b"\0", "24 values.*found more", id="trailing byte"),
    ],
)
def test_a_file_that_is_not_exactly_one_idx_array_is_refused(idx_file, content, message):
    path = idx_file(content)
    with pytest.raises(IdxError, match=f"^{re.escape(str(path))}: expected .*{message}"):
        read_idx(path)


@given(cut=st.integers(2, len(gzip.compress(IMAGES_IDX)) - 1))
def test_a_truncated_gzip_file_is_refused_wherever_it_is_cut(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "cut.gz"
    path.write_bytes(gzip.compress(IMAGES_IDX)[:cut])
    with pytest.raises(IdxError, match=r"cut\.gz: expected"):
        read_idx(path)


@pytest.mark.parametrize("position", [2, 12, -8, -1], ids=["method", "data", "checksum", "length"])
def test_a_corrupt_gzip_file_is_refused(tmp_path, position):
    content = bytearray(gzip.compress(IMAGES_IDX))
    content[position] ^= 0xFF
    (tmp_path / "corrupt.gz").write_bytes(content)
    with pytest.raises(IdxError, match=r"corrupt\.gz: expected a complete gzip stream"):
        read_idx(tmp_path / "corrupt.gz")


def test_garbage_after_the_gzip_stream_is_refused(tmp_path):
    (tmp_path / "tail.gz").write_bytes(gzip.compress(IMAGES_IDX) + b"garbage")
    with pytest.raises(IdxError, match=r"tail\.gz: expected a complete gzip stream"):
        read_idx(tmp_path / "tail.gz")


def gzip_bomb(header: bytes, mebibytes: int) -> bytes:
    compressor = zlib.compressobj(wbits=31)
    zeros = bytes(2**20)
    return b"".join(
        [compressor.compress(header)]
        + [compressor.compress(zeros) for _ in range(mebibytes)]
        + [compressor.flush()]
    )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        pytest.param((80 * 2**20,), "at most max_bytes=67,108,864", id="declared"),
        pytest.param((2**32 - 1,) * 3, "at most max_bytes=67,108,864", id="overflow"),
        pytest.param((10,), "10 values.*found more", id="hidden"),
    ],
)
def test_a_gzip_bomb_is_refused_before_it_is_decompressed(tmp_path, sizes, message):
    path = tmp_path / "bomb.gz"
    header = struct.pack(f">I{len(sizes)}I", 0x800 + len(sizes), *sizes)
    path.write_bytes(gzip_bomb(header, mebibytes=80))
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(IdxError, match=message):
            read_idx(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_the_size_limit_counts_the_whole_content(idx_file):
    path = idx_file(IMAGES_IDX)
    assert read_idx(path, max_bytes=len(IMAGES_IDX)).shape == (2, 3, 4)
    with pytest.raises(IdxError, match="max_bytes=39 bytes, found a header for 40"):
        read_idx(path, max_bytes=len(IMAGES_IDX) - 1)


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.gz"):
        read_idx(tmp_path / "absent.gz")


# Writing IDX


@pytest.mark.parametrize("name", ["file", "file.gz"])
@given(shape=st.one_of(st.tuples(st.integers(0, 9)), st.tuples(*[st.integers(0, 9)] * 3)))
def test_what_is_written_is_read_again(tmp_path_factory, name, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path_factory.mktemp("round") / name
    write_idx(path, array)
    np.testing.assert_array_equal(read_idx(path), array, strict=True)


def test_the_bytes_written_are_the_format_and_do_not_depend_on_memory_layout(tmp_path):
    for array in (IMAGES, np.asfortranarray(IMAGES)):
        write_idx(tmp_path / "plain", array)
        assert (tmp_path / "plain").read_bytes() == IMAGES_IDX


def test_a_compressed_file_depends_on_nothing_but_the_array(tmp_path, monkeypatch):
    write_idx(tmp_path / "one.gz", IMAGES)
    monkeypatch.setattr("time.time", lambda: 1e9)
    write_idx(tmp_path / "another.gz", IMAGES)
    content = (tmp_path / "one.gz").read_bytes()
    assert content == (tmp_path / "another.gz").read_bytes()
    assert gzip.decompress(content) == IMAGES_IDX
    # magic, deflate, no name, no time, best compression, unknown system
    assert content[:10] == bytes.fromhex("1f8b 08 00 00000000 02 ff")


@pytest.mark.parametrize("array", [IMAGES.astype(int), IMAGES[0], IMAGES[None], np.uint8(1)])
def test_an_array_that_could_not_be_read_again_is_not_written(tmp_path, array):
    with pytest.raises(
        IdxError, match=r"^array: expected uint8 with 1 or 3 dimensions, .*file was not written$"
    ):
        write_idx(tmp_path / "file", array)
    assert list(tmp_path.iterdir()) == []


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "file.gz"
    write_idx(path, IMAGES)

    def fail(source, destination):
        assert Path(source).parent == tmp_path  # replacing is atomic only within a file system
        assert destination == path
        np.testing.assert_array_equal(read_idx(source), 0 * IMAGES)
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_idx(path, 0 * IMAGES)
    np.testing.assert_array_equal(read_idx(path), IMAGES)
    assert list(tmp_path.iterdir()) == [path]


# Resizing


def bilinear_pixel(image: np.ndarray, height: int, width: int, y: int, x: int) -> float:
    """Compute one pixel of the resized image from its four neighbors, in float64."""

    def neighbours(position: int, size_out: int, size_in: int) -> tuple[int, int, float]:
        centre = (position + 0.5) * size_in / size_out - 0.5
        low = int(np.floor(centre))
        return max(low, 0), min(low + 1, size_in - 1), centre - low

    top, bottom, down = neighbours(y, height, image.shape[0])
    left, right, across = neighbours(x, width, image.shape[1])
    upper = (1 - across) * image[top, left] + across * image[top, right]
    lower = (1 - across) * image[bottom, left] + across * image[bottom, right]
    return (1 - down) * upper + down * lower


@given(
    before=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    after=st.tuples(st.integers(1, 30), st.integers(1, 30)),
)
def test_resize_is_bilinear_interpolation_of_pixel_centres(before, after):
    image = np.random.default_rng(0).random(before, dtype=np.float32)
    pixels = [bilinear_pixel(image, *after, y, x) for y, x in np.ndindex(after)]
    expected = np.reshape(pixels, after)
    # Five rounding errors of 6e-8 each, for numbers up to 1.
    np.testing.assert_allclose(resize(image[None], *after)[0], expected, rtol=0, atol=5e-7)


def test_resize_known_values():
    enlarged = resize(np.array([[[0.0, 1.0]]]), 1, 4)
    np.testing.assert_array_equal(enlarged, [[[0, 0.25, 0.75, 1]]])
    shrunk = resize(np.array([[[0.0, 1.0, 2.0, 3.0]]]), 1, 2)
    np.testing.assert_array_equal(shrunk, [[[0.5, 2.5]]])
    assert resize(np.array([[[9.0, 1.0, 9.0]]]), 1, 1) == 1  # the middle pixel: nothing is averaged


def test_resize_to_the_same_size_changes_no_bit():
    image = np.random.default_rng(0).random((2, 3, 28, 17), dtype=np.float32)
    np.testing.assert_array_equal(resize(image, 28, 17), image, strict=True)


@pytest.mark.parametrize("size", [1, 27, 28, 29, 96, 224])
def test_resize_keeps_a_constant_image_constant(size):
    image = np.full((1, 28, 28), 0.7, np.float32)
    np.testing.assert_allclose(resize(image, size, size), 0.7, rtol=5e-7)


def test_resize_keeps_a_linear_ramp_linear_up_to_the_outermost_centres():
    ramp = np.tile(np.arange(28, dtype=np.float32), (1, 28, 1))
    centres = (np.arange(96) + 0.5) * 28 / 96 - 0.5
    expected = np.tile(centres.clip(0, 27), (1, 96, 1))
    np.testing.assert_allclose(resize(ramp, 96, 96), expected, rtol=5e-7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_resize_works_on_channels_and_computes_in_float32(dtype):
    images = np.random.default_rng(0).random((2, 3, 5, 7)).astype(dtype)
    resized = resize(images, 4, 9)
    assert resized.dtype == np.float32
    assert resized.shape == (2, 3, 4, 9)
    np.testing.assert_array_equal(resized[:, 1], resize(images[:, 1].astype(np.float32), 4, 9))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_])
def test_resize_refuses_integers_by_name(dtype):
    with pytest.raises(ValueError, match=f"found {np.dtype(dtype).name}; convert them first"):
        resize(np.zeros((1, 2, 2), dtype), 4, 4)


@pytest.mark.parametrize("shape", [(2, 2), (1, 1, 1, 2, 2), (1, 0, 2), (1, 1, 2, 0)])
def test_resize_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"found {shape}")):
        resize(np.zeros(shape), 4, 4)


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (-1, 4)])
def test_resize_refuses_sizes_below_one(size):
    with pytest.raises(
        ValueError, match=r"^(height|width): expected an integer from 1 to 4,096; found (0|-1)$"
    ):
        resize(np.zeros((1, 2, 2)), *size)


# Fashion-MNIST


@pytest.mark.parametrize(
    ("split", "images_sha256", "labels_sha256"),
    [
        (
            "train",
            "886d3861c28dcd5edaaed312ba9f29b1435dd7ccf18bcfa0a0f15982fc1b64f2",
            "ffc83493c29502586e1962466aa12837e73af587cd80dc00d8a9158fba54ffb1",
        ),
        (
            "test",
            "5c4891d26072e86602f3e5f3c7e3eb47a043e79ec8a889ab869a5b14e8bfa8b0",
            "30957cb1a8a4cce69f9c82402caa966162dee4a16f9fd34c8ed9418fefd46ae8",
        ),
    ],
)
def test_the_sample_never_changes(split, images_sha256, labels_sha256):
    images, labels = load_sample(split)
    assert (images.shape, images.dtype) == ((1000, 28, 28), np.uint8)
    assert (labels.shape, labels.dtype) == ((1000,), np.uint8)
    assert (sha256(images), sha256(labels)) == (images_sha256, labels_sha256)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_sample_is_balanced_and_its_start_shows_every_class(split):
    labels = load_sample(split)[1]
    np.testing.assert_array_equal(np.bincount(labels), [100] * len(CLASSES))
    assert set(labels[:64]) == set(range(len(CLASSES)))


def test_no_image_of_the_sample_occurs_twice():
    images = np.concatenate([load_sample("train")[0], load_sample("test")[0]])
    assert len({image.tobytes() for image in images}) == len(images)


def test_the_sample_adds_less_than_one_and_a_half_megabytes_to_the_package():
    sample = files("densenet_multi.data") / "sample"
    assert sum(len(file.read_bytes()) for file in sample.iterdir()) < 1_500_000
    assert "Zalando SE" in (sample / "LICENSE").read_text(encoding="utf-8")


def test_there_are_ten_classes():
    assert len(set(CLASSES)) == 10


@pytest.mark.parametrize("load", [load_sample, lambda split: load_directory(".", split)])
def test_an_unknown_split_is_refused_with_the_allowed_values(load):
    with pytest.raises(ValueError, match="expected 'train' or 'test'; found 'valid'"):
        load("valid")


def test_to_input_scales_exactly_and_adds_the_channel():
    images = (np.arange(28 * 28) % 256).astype(np.uint8).reshape(1, 28, 28)
    inputs = to_input(images)
    assert (inputs.shape, inputs.dtype) == ((1, 1, 28, 28), np.float32)
    np.testing.assert_array_equal(inputs[:, 0], (images / 255.0).astype(np.float32))
    np.testing.assert_array_equal(to_input(images, 28), inputs)


def test_to_input_resizes_after_scaling():
    images = load_sample("test")[0][:2]
    inputs = to_input(images, 96)
    assert inputs.shape == (2, 1, 96, 96)
    np.testing.assert_array_equal(inputs, resize(to_input(images), 96, 96))
    assert 0 <= inputs.min() <= inputs.max() <= 1 + 1e-6


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 28, 28)), np.zeros((28, 28), np.uint8), np.zeros((1, 28, 27), np.uint8)],
)
def test_to_input_refuses_anything_but_fashion_mnist_images(images):
    with pytest.raises(ValueError, match=re.escape(f"found {images.dtype} of shape")):
        to_input(images)


def write_split(folder: Path, images: np.ndarray, labels: np.ndarray, suffix: str = "") -> None:
    write_idx(folder / f"t10k-images-idx3-ubyte{suffix}", images)
    write_idx(folder / f"t10k-labels-idx1-ubyte{suffix}", labels)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_is_read_by_the_official_names_with_or_without_gz(tmp_path, suffix):
    images, labels = load_sample("test")
    write_split(tmp_path, images, labels, suffix)
    loaded = load_directory(tmp_path, "test")
    np.testing.assert_array_equal(loaded[0], images)
    np.testing.assert_array_equal(loaded[1], labels)


def test_a_missing_file_names_the_folder_and_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist") as error:
        load_directory(tmp_path, "train")
    assert f"{tmp_path}: expected train-images-idx3-ubyte" in str(error.value)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        pytest.param(
            np.zeros((3, 28, 28), np.uint8),
            np.zeros(2, np.uint8),
            r"labels.*one label for each of the 3 images.*found shape \(2,\)",
            id="counts differ",
        ),
        pytest.param(
            np.zeros((3, 28, 28), np.uint8),
            np.array([0, 10, 9], np.uint8),
            "labels.*labels from 0 to 9, found 10",
            id="label too large",
        ),
        pytest.param(
            np.zeros((3, 28, 32), np.uint8),
            np.zeros(3, np.uint8),
            r"images.*shape \(N, 28, 28\), found \(3, 28, 32\)",
            id="other images",
        ),
        pytest.param(
            np.zeros(3, np.uint8),
            np.zeros(3, np.uint8),
            r"images.*shape \(N, 28, 28\), found \(3,\)",
            id="labels for images",
        ),
    ],
)
def test_files_that_do_not_fit_together_are_refused(tmp_path, images, labels, message):
    write_split(tmp_path, images, labels)
    with pytest.raises(DataError, match=message):
        load_directory(tmp_path, "test")


# How the sample was made


def test_choose_keeps_the_first_of_each_class_in_the_order_given():
    labels = np.array([*range(10), *range(10), *range(10)])
    order = np.arange(30)[::-1]
    np.testing.assert_array_equal(make_sample.choose(labels, order, 2), range(29, 9, -1))


def test_choose_refuses_a_class_that_is_too_small():
    labels = np.array([0, *range(10)])
    with pytest.raises(ValueError, match=r"class 1 \(Trouser\): expected at least 2.*found 1"):
        make_sample.choose(labels, np.arange(11), 2)


def test_making_a_sample_without_the_official_data_says_what_is_missing(tmp_path, capsys):
    arguments = [str(tmp_path / "absent"), str(tmp_path / "output")]
    assert make_sample.main(arguments) == 4
    assert "apt-get install dataset-fashion-mnist" in capsys.readouterr().err


@needs_debian
def test_the_sample_can_be_made_again_from_the_official_data(tmp_path, capsys):
    assert make_sample.main([str(DEBIAN), str(tmp_path)]) == 0
    made = sorted(tmp_path.iterdir())
    assert {path.stem for path in made} == set(OFFICIAL_SHA256)
    printed = capsys.readouterr().out
    for path in made:
        packaged = (files("densenet_multi.data") / "sample" / path.name).read_bytes()
        assert gzip.decompress(path.read_bytes()) == gzip.decompress(packaged)
        assert str(path) in printed


@needs_debian
@pytest.mark.parametrize("name", OFFICIAL_SHA256)
def test_the_debian_package_holds_the_official_release(name):
    content = gzip.decompress((DEBIAN / f"{name}.gz").read_bytes())
    assert hashlib.sha256(content).hexdigest() == OFFICIAL_SHA256[name]


# The order of the examples


def test_the_order_never_changes():
    np.testing.assert_array_equal(epoch_order(10, 0, 0), [3, 2, 1, 8, 6, 0, 7, 4, 5, 9])
    np.testing.assert_array_equal(epoch_order(10, 0, 1), [7, 4, 5, 1, 9, 8, 6, 2, 0, 3])
    np.testing.assert_array_equal(epoch_order(10, 1, 0), [9, 2, 4, 7, 5, 0, 8, 6, 3, 1])
    assert sha256(epoch_order(1000, 7, 3).astype("<i8")) == (
        "160278cb88d645cb32d9c289e687b1a986c6d1a89154881b7488fc8858704447"
    )


@given(st.integers(0, 500), st.integers(0, 2**32 - 1), st.integers(0, 1000))
def test_the_order_holds_each_example_once(n, seed, epoch):
    order = epoch_order(n, seed, epoch)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


@pytest.mark.parametrize("arguments", [(-1, 0, 0), (1, -1, 0), (1, 0, -1), (1, 0, 2**32)])
def test_the_order_of_numbers_out_of_range_is_refused(arguments):
    with pytest.raises(
        ValueError,
        match=r"^(n|seed|epoch): expected an integer from 0 to",
    ):
        epoch_order(*arguments)
