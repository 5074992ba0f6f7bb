"""Data by name: where it is searched for, what is refused, and how images are prepared."""

import gzip
import hashlib
import re
import struct
import threading
import zlib
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import densenet_multi as dm
from densenet_multi._download import cache_folder
from densenet_multi.data import (
    CLASSES,
    DataError,
    DataNotFoundError,
    FashionMNIST,
    IdxError,
    Preparation,
    augment,
    cifar10,
    epoch_order,
    load_data,
    load_sample,
    normalize,
    read_image,
    resize,
    sources,
    write_idx,
)
from densenet_multi.data.images import to_channels
from densenet_multi.tasks import convert

FILES = list(sources.CHECKSUMS)
SPLITS = {"train": FILES[:2], "test": FILES[2:]}


def everything(examples) -> np.ndarray:
    return examples.take(np.arange(len(examples)))


@pytest.mark.parametrize("name", ["~nobody-such/x", "folder:~nobody-such/x", "cifar10:~none"])
def test_a_folder_of_a_user_who_does_not_exist_is_refused(name):
    with pytest.raises(dm.ConfigError, match=r"^data: expected a path whose ~ or ~user has a home"):
        load_data(name, image_size=8)
    with pytest.raises(dm.ConfigError, match=r"^data_dir: expected a path whose ~ or ~user has"):
        load_data("fashion-mnist", image_size=8, data_dir="~nobody-such")
    assert sources.spelled_out(name) == name


def test_a_user_without_a_home_folder_is_told_where_to_name_the_cache(monkeypatch):
    for variable in ("HOME", "XDG_CACHE_HOME", "DENSENET_MULTI_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(dm.ConfigError, match=r"^DENSENET_MULTI_CACHE: expected a path"):
        cache_folder()


# --- Fashion-MNIST: four places -----------------------------------------------------------------


def arrays(split: str, start: int = 0):
    images, labels = load_sample(split)
    return images[start : start + 20], labels[start : start + 20]


def write(folder: Path, start: int = 0, suffix: str = ".gz") -> Path:
    """Write twenty images for each split under the official names."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in SPLITS.items():
        for name, array in zip(names, arrays(split, start), strict=True):
            write_idx(folder / f"{name}{suffix}", array)
    return folder


class Server(BaseHTTPRequestHandler):
    """Serves ``files``, at most ``most`` bytes of each; keeps the requests in ``asked``."""

    def do_GET(self):
        name, range_ = self.path[1:], self.headers.get("Range")
        self.asked.append((name, range_))
        if name not in self.files:
            self.send_error(404)
            return
        start = int(range_.removeprefix("bytes=").removesuffix("-")) if range_ else 0
        content = self.files[name][start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.most])

    def log_message(self, *arguments):
        """Keep quiet."""


class World:
    """Places to search: ``cache`` and ``debian``, both empty, and a server of the right files."""

    def __init__(self, tmp_path, server):
        self.cache, self.debian = tmp_path / "cache" / "fashion-mnist", tmp_path / "debian"
        self.server = server


@pytest.fixture
def world(tmp_path, monkeypatch):
    official = write(tmp_path / "official")
    content = {name: (official / f"{name}.gz").read_bytes() for name in FILES}
    sums = {
        name: tuple(hashlib.sha256(c).hexdigest() for c in (packed, gzip.decompress(packed)))
        for name, packed in content.items()
    }
    files = {f"{name}.gz": packed for name, packed in content.items()}
    handler = type("Handler", (Server,), {"files": files, "most": None, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        made = World(tmp_path, handler)
        monkeypatch.setenv("DENSENET_MULTI_CACHE", str(made.cache.parent))
        monkeypatch.setattr(sources, "DEBIAN", made.debian)
        monkeypatch.setattr(sources, "ADDRESS", f"http://127.0.0.1:{running.server_port}/")
        monkeypatch.setattr(sources, "CHECKSUMS", sums)
        yield made
        running.shutdown()
        thread.join()


def fashion(**options):
    return load_data("fashion-mnist", image_size=28, **options)


def test_a_given_folder_is_read_before_everything_else(world, tmp_path):
    write(world.cache)
    write(world.debian)
    folder = write(tmp_path / "mine", start=100, suffix="")
    data = fashion(data_dir=folder)
    assert (data.name, data.where, data.class_names) == ("fashion-mnist", str(folder), CLASSES)
    for split, examples in ("train", data.train), ("test", data.test):
        images, labels = arrays(split, start=100)
        np.testing.assert_array_equal(
            everything(examples), FashionMNIST(images, labels, 28).take(np.arange(20))
        )
        np.testing.assert_array_equal(examples.labels, labels)


def test_a_given_folder_without_the_files_is_an_error_even_if_they_are_elsewhere(world, tmp_path):
    write(world.cache)
    write(world.debian)
    with pytest.raises(DataError, match=rf"{tmp_path / 'mine'}: expected train-images"):
        fashion(data_dir=tmp_path / "mine")
    damaged = write(tmp_path / "damaged")
    (damaged / f"{FILES[2]}.gz").write_bytes(b"damaged")
    with pytest.raises(IdxError, match=r"damaged.*magic number"):
        fashion(data_dir=damaged)
    assert world.server.asked == []


def test_the_cache_comes_before_debian_and_debian_before_the_server(world):
    write(world.debian)
    assert fashion().where == str(world.debian)
    assert not world.cache.exists()
    write(world.cache, suffix="")
    assert fashion().where == str(world.cache)
    assert world.server.asked == []


def test_a_distribution_may_compress_the_files_again(world):
    write(world.debian)
    for path in world.debian.iterdir():
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=1))
    assert fashion().where == str(world.debian)


@pytest.mark.parametrize("what", ["another content", "damaged", "incomplete"])
def test_a_place_with_the_wrong_files_is_passed_over(world, what):
    write(world.cache, start=100 if what == "another content" else 0)
    if what == "damaged":
        (world.cache / f"{FILES[1]}.gz").write_bytes(b"damaged")
    if what == "incomplete":
        (world.cache / f"{FILES[3]}.gz").unlink()
    write(world.debian)
    assert fashion().where == str(world.debian)


def test_what_is_nowhere_is_fetched_once_into_the_cache(world):
    for _ in range(2):
        data = fashion()
        assert data.where == str(world.cache)
        np.testing.assert_array_equal(data.test.labels, arrays("test")[1])
    assert world.server.asked == [(f"{name}.gz", None) for name in FILES]


def test_a_damaged_cache_is_mended_by_the_server(world):
    write(world.cache)
    (world.cache / f"{FILES[1]}.gz").write_bytes(b"damaged")
    for _ in range(2):
        assert fashion().where == str(world.cache)
    assert world.server.asked == [(f"{FILES[1]}.gz", None)]


def test_an_interrupted_fetch_goes_on_where_it_stopped(world):
    most = world.server.most = 1000
    size = len(world.server.files[f"{FILES[0]}.gz"])
    assert 2 * most < size
    for _ in range(2):
        with pytest.raises(DataError, match=rf"connection ended after \d,000 of {size:,} bytes"):
            fashion()
    world.server.most = None
    assert fashion().where == str(world.cache)
    assert [range_ for _, range_ in world.server.asked[:3]] == [None, "bytes=1000-", "bytes=2000-"]


def test_a_file_with_another_checksum_is_not_kept(world):
    world.server.files[f"{FILES[0]}.gz"] = world.server.files[f"{FILES[2]}.gz"]
    with pytest.raises(DataError, match=r"expected sha256:.*deleted"):
        fashion()
    assert list(world.cache.iterdir()) == []


def test_the_last_error_names_all_four_places_and_what_to_type(world):
    del world.server.files[f"{FILES[0]}.gz"]
    write(world.debian)
    (world.debian / f"{FILES[0]}.gz").write_bytes(b"damaged")
    with pytest.raises(DataError) as error:
        fashion()
    assert not isinstance(error.value, DataNotFoundError)  # they are there, but damaged
    message = str(error.value)
    for part in [
        "data_dir=None",
        f"{world.cache}: the folder or one",
        f"{world.debian / FILES[0]}.gz: expected the IDX magic number",
        f"{sources.ADDRESS}{FILES[0]}.gz: the server answers 404",
        "'apt-get install dataset-fashion-mnist'",
        "data_dir='FOLDER'",
        "data='sample'",
    ]:
        assert part in message


def test_data_that_are_nowhere_and_cannot_be_fetched_are_an_error_of_their_own(world):
    world.server.files.clear()
    with pytest.raises(DataNotFoundError, match="the server answers 404"):
        fashion()


# --- The sample, and names ----------------------------------------------------------------------


def test_the_sample_in_another_form():
    plain = load_data("sample", image_size=28)
    assert (len(plain.train), len(plain.test), plain.train.black) == (1000, 1000, [0])
    usage = dm.Usage(value_range=(-1, 1), mean=(0, 0.5, 0), std=(1, 2, 4))
    data = load_data("sample", image_size=40, in_channels=3, usage=usage)
    grey = resize(plain.test.take(np.array([7, 3])), 40, 40)[:, 0] * 2 - 1
    taken = data.test.take(np.array([7, 3]))
    assert (taken.shape, taken.dtype) == ((2, 3, 40, 40), np.float32)
    for channel, (mean, std) in enumerate([(0, 1), (0.5, 2), (0, 4)]):
        np.testing.assert_allclose(taken[:, channel], (grey - mean) / std, atol=1e-6)
    assert data.train.black.tolist() == [-1.0, -0.75, -0.25]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fashion-mist", {}, "did you mean 'fashion-mnist'"),
        ("foldr:x", {}, "did you mean 'folder:PATH'"),
        ("", {}, "known: fashion-mnist, sample, folder:PATH, cifar10:PATH"),
        ("folder", {}, "expected 'folder:PATH'; found 'folder'"),
        ("cifar10:", {}, "expected 'cifar10:PATH'; found 'cifar10:'"),
        ("sample:x", {}, "expected 'sample'; found 'sample:x'"),
        ("sample:", {}, "expected 'sample'; found 'sample:'"),
        ("sample", {"data_dir": Path("x")}, "data_dir: .*only for 'fashion-mnist'"),
        ("sample", {"image_size": 0}, "image_size: expected .* from 1 to 4,096; found 0"),
        ("sample", {"in_channels": 0}, "in_channels: expected .* from 1 to 4,096; found 0"),
        ("cifar10:x", {"in_channels": 2}, "in_channels: expected 1 or 3"),
        ("folder:x", {"in_channels": 4}, "in_channels: expected 1 or 3"),
        ("sample", {"usage": dm.Usage(mean=(0, 0, 0), std=(1, 1, 1))}, "mean: expected 1 number"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(name, options, message):
    with pytest.raises(dm.ConfigError, match=message):
        load_data(name, **{"image_size": 28, **options})


# --- A folder of images -------------------------------------------------------------------------

COLOURS = {"ant": (250, 10, 20), "bee": (30, 240, 60), "cat": (5, 70, 200)}


def picture(colour, size=(8, 6)) -> Image.Image:
    return Image.new("RGB", size, colour)


def write_folder(root: Path, count: int = 10, names=None) -> Path:
    """Write a folder for each color; image i of a class is i % 5 brighter in red."""
    for name, (red, green, blue) in COLOURS.items():
        (root / name).mkdir(parents=True)
        for i in names or range(count):
            picture((red + i % 5, green, blue)).save(root / name / f"{i:02}.png")
    return root


def folder(root: Path, **options):
    return load_data(f"folder:{root}", **{"image_size": 5, **options})


def chosen(examples) -> list[tuple[str, str]]:
    return [(path.parent.name, path.name) for path in examples.paths]


def test_a_folder_is_split_class_by_class(tmp_path):
    data = folder(write_folder(tmp_path, 11))
    assert (data.name, data.where) == ("folder", str(tmp_path))
    assert data.class_names == ("ant", "bee", "cat")
    np.testing.assert_array_equal(np.bincount(data.train.labels), [9, 9, 9])
    np.testing.assert_array_equal(np.bincount(data.test.labels), [2, 2, 2])
    both = chosen(data.train) + chosen(data.test)
    assert len(set(both)) == len(both) == 33
    for examples in data.train, data.test:
        assert [data.class_names[i] for i in examples.labels] == [c for c, _ in chosen(examples)]
        middle = everything(examples)[:, :, 2, 2] * 255
        expected = [COLOURS[data.class_names[i]] for i in examples.labels]
        np.testing.assert_allclose(middle[:, 1:], np.array(expected)[:, 1:], rtol=1e-6)


def test_the_split_follows_the_seed_and_not_the_order_of_the_listing(tmp_path, monkeypatch):
    write_folder(tmp_path)
    one, other = folder(tmp_path, seed=1), folder(tmp_path, seed=2)
    assert chosen(one.test) != chosen(other.test)
    names = [sorted(n for c, n in chosen(one.test) if c == kind) for kind in COLOURS]
    assert names != [names[0]] * 3  # the classes are split independently
    expected = sorted(f"{i:02}.png" for i in epoch_order(10, 1, 0)[:2])
    assert names[0] == expected

    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: sorted(listed(path), reverse=True))
    again = folder(tmp_path, seed=1)
    assert chosen(again.train) == chosen(one.train)
    assert chosen(again.test) == chosen(one.test)


@pytest.mark.parametrize(("count", "apart"), [(2, 1), (3, 1), (7, 1), (8, 2), (13, 3)])
def test_a_fifth_of_each_class_is_set_apart_but_at_least_one(tmp_path, count, apart):
    data = folder(write_folder(tmp_path, count))
    np.testing.assert_array_equal(np.bincount(data.test.labels), [apart] * 3)
    np.testing.assert_array_equal(np.bincount(data.train.labels), [count - apart] * 3)


def test_hidden_files_and_files_beside_the_classes_are_ignored(tmp_path):
    write_folder(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / "README").write_text("mine")
    (tmp_path / "ant" / ".DS_Store").write_bytes(b"\0")
    assert len(folder(tmp_path).train) + len(folder(tmp_path).test) == 30


def test_images_of_any_size_and_either_kind_become_one_array(tmp_path):
    write_folder(tmp_path, 2)
    picture((100, 100, 100), (40, 3)).save(tmp_path / "ant" / "wide.JFIF", "JPEG")
    picture((100, 100, 100), (1, 1)).save(tmp_path / "ant" / "dot.jpeg")
    assert everything(folder(tmp_path).train).shape == (5, 3, 5, 5)
    grey = folder(tmp_path, in_channels=1, usage=dm.Usage(value_range=(0, 255)))
    assert everything(grey.train).shape == (5, 1, 5, 5)
    assert 50 < everything(grey.train).mean() < 200
    assert folder(tmp_path).train.take(np.arange(0)).shape == (0, 3, 5, 5)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "ant" / "x.png").write_bytes(b""), r"x\.png: .*found an empty file"),
        (lambda root: (root / "ant" / "x.png").write_bytes(b"abcdef"), r"x\.png: .*with 61 62 63"),
        (lambda root: (root / "ant" / "x.png").write_bytes(b"\x89PNG"), r"x\.png: .*damaged"),
        (lambda root: (root / "ant" / "x.txt").write_text("x"), r"x\.txt: .*the suffix \.txt"),
        (lambda root: (root / "ant" / "x.png").mkdir(), r"x\.png: .*found a folder"),
        (lambda root: (root / "dog").mkdir(), r"dog: expected at least two images.*found 0"),
        (lambda root: [p.unlink() for p in (root / "ant").glob("0[1-9].png")], "ant: .*found 1"),
        (lambda root: [(root / c).rename(root / f".{c}") for c in ("bee", "cat")], "found ant;"),
    ],
)
def test_a_folder_that_is_not_as_described_is_refused_at_once(tmp_path, spoil, message):
    spoil(write_folder(tmp_path))
    with pytest.raises(DataError, match=message):
        folder(tmp_path)


def test_a_folder_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path / 'absent'}: expected a folder"):
        folder(tmp_path / "absent")


def test_an_image_that_breaks_off_is_an_error_that_names_it(tmp_path):
    damage(write_folder(tmp_path, 2) / "bee" / "00.png")
    data = folder(tmp_path)
    with pytest.raises(DataError, match=r"bee/00\.png: .*damaged one"):
        everything(data.train), everything(data.test)


# --- One image ----------------------------------------------------------------------------------


def gradient(mode: str) -> Image.Image:
    values = np.arange(0, 240, 5, dtype=np.uint8).reshape(6, 8)
    return Image.fromarray(values).convert(mode)


GREY = np.arange(0, 240, 5).reshape(6, 8) / 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_grey_values_are_the_same_in_every_mode(tmp_path, mode, channels):
    gradient(mode).save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png", channels)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, np.stack([GREY] * channels), atol=2e-7)


def test_palettes_with_transparency_are_read_without_a_warning(tmp_path):
    gradient("P").save(tmp_path / "x.png", transparency=bytes(range(100)))
    np.testing.assert_allclose(read_image(tmp_path / "x.png", 1)[0], GREY, atol=2e-7)


def test_images_of_two_values_are_black_and_white(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png", 1), [[[1, 0]]])


def test_sixteen_bits_are_kept(tmp_path):
    values = np.array([[0, 255, 256], [1000, 40_000, 65_535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png", 3)
    np.testing.assert_allclose(image, np.stack([values / 65535] * 3), atol=1e-7)


def test_cmyk_is_read(tmp_path):
    picture((200, 100, 50)).convert("CMYK").save(tmp_path / "x.jpg", quality=100)
    image = read_image(tmp_path / "x.jpg", 3)
    np.testing.assert_allclose(image[:, 3, 3] * 255, [200, 100, 50], atol=4)


def test_colour_becomes_luminance_in_float32(tmp_path):
    picture((255, 0, 0)).save(tmp_path / "red.png")
    np.testing.assert_allclose(read_image(tmp_path / "red.png", 1), 0.299, rtol=1e-6)
    picture((1, 2, 3)).save(tmp_path / "dark.png")  # 1.815 / 255; rounded to bytes, 2 / 255
    np.testing.assert_allclose(read_image(tmp_path / "dark.png", 1), 1.815 / 255, rtol=1e-6)
    with pytest.raises(dm.ConfigError, match="in_channels: expected 1 or 3"):
        read_image(tmp_path / "red.png", 2)


def test_a_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    gradient("L").save(tmp_path / "x.jpg", exif=exif, quality=100)
    image = read_image(tmp_path / "x.jpg", 1)[0]
    np.testing.assert_allclose(image, np.rot90(GREY, -1), atol=0.02)


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def test_an_image_that_would_grow_in_memory_is_refused_before_it_does(tmp_path, monkeypatch):
    header = struct.pack(">IIBBBBB", 15_000, 6_000, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    with pytest.raises(DataError, match=r"bomb\.png: .*at most 36,000,000 .*found 15000 x 6000"):
        read_image(path, 1)
    write_folder(tmp_path, 2)
    path.rename(tmp_path / "ant" / "bomb.png")
    with pytest.raises(DataError, match="at most"):
        folder(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48)
    assert read_image(tmp_path / "ant" / "00.png", 1).shape == (1, 6, 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 47)
    with pytest.raises(DataError, match="at most 47 pixels"):
        read_image(tmp_path / "ant" / "00.png", 1)


@settings(deadline=None)  # on a loaded machine, a file may take long
@given(
    position=st.integers(0, 200),
    value=st.integers(0, 255),
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"]),
)
def test_a_damaged_image_is_read_or_a_data_error(tmp_path_factory, position, value, kind):
    path = tmp_path_factory.mktemp("damaged") / "x"
    gradient("RGB").save(path, kind)
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content)
    with suppress(DataError):
        assert read_image(path, 3).shape[0] == 3


def test_errors_of_pillow_that_are_no_os_errors_name_the_image_too(tmp_path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"short"))
    with pytest.raises(DataError, match=r"x\.png: .*damaged one"):  # Pillow raises ValueError
        read_image(tmp_path / "x.png", 3)


def test_a_missing_image_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read_image(tmp_path / "absent", 3)


def test_resizing_before_repeating_changes_no_bit():
    images = np.random.default_rng(0).random((2, 1, 7, 9), dtype=np.float32)
    prepared = Preparation(12, 3)(images)
    np.testing.assert_array_equal(prepared, resize(to_channels(images, 3), 12, 12))
    np.testing.assert_array_equal(normalize(prepared, None), prepared)


def test_a_usage_for_other_channels_is_refused_before_there_are_images():
    with pytest.raises(dm.ConfigError, match="mean: expected 1 numbers"):
        Preparation(12, 1, dm.Usage(mean=(0, 0, 0), std=(1, 1, 1)))


def test_verification_images_are_prepared_like_everything_else():
    usage = dm.Usage(image_size=40, value_range=(0, 255), mean=(100, 0, 5), std=(50, 1, 2))
    spec = dm.get_spec("densenet121", num_classes=3)
    data = load_data("sample", image_size=40, in_channels=3, usage=usage)
    images = convert.verification_images(dm.Checkpoint(spec, {}, usage))
    np.testing.assert_array_equal(images, data.test.take(np.arange(4)))


# --- CIFAR-10 -----------------------------------------------------------------------------------


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Write its files of 4 records each; image j of file i has red i, green j and blue 100."""
    monkeypatch.setattr(cifar10, "RECORDS", 4)
    for i, name in enumerate([*cifar10.FILES["train"], *cifar10.FILES["test"]]):
        records = np.zeros((4, 3073), np.uint8)
        records[:, 0] = [9, 0, i, 3]
        planes = records[:, 1:].reshape(4, 3, 1024)
        planes[:, 0], planes[:, 1], planes[:, 2] = i, np.arange(4)[:, None], 100
        planes[:, 2, 1] = 200  # the second pixel of the first row
        records.tofile(tmp_path / name)
    return tmp_path


def test_cifar10_is_read_in_the_order_of_its_files(cifar):
    data = load_data(f"cifar10:{cifar}", image_size=32)
    assert (data.name, data.where, data.class_names[9]) == ("cifar10", str(cifar), "truck")
    assert (len(data.train), len(data.test), *data.train.black) == (20, 4, 0, 0, 0)
    np.testing.assert_array_equal(data.train.labels[:9], [9, 0, 0, 3, 9, 0, 1, 3, 9])
    image = data.train.take(np.array([6]))[0] * 255
    np.testing.assert_allclose(image[:2, 0, 1], [1, 2], rtol=1e-6)
    np.testing.assert_allclose(image[2, :2, :3], [[100, 200, 100], [100, 100, 100]], rtol=1e-6)
    grey = load_data(f"cifar10:{cifar}", image_size=32, in_channels=1).test.take(np.array([2]))
    assert grey.shape == (1, 1, 32, 32)
    expected = 0.299 * 5 + 0.587 * 2 + 0.114 * 100
    np.testing.assert_allclose(grey[0, 0, 5] * 255, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "expected a CIFAR-10 file, found none"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "expected 12,292 bytes.*12,291"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "expected 12,292.*12,293"),
        (lambda path: path.write_bytes(path.read_bytes()[:-3073]), "expected 12,292.*9,219"),
        (
            lambda path: path.write_bytes(b"\x0a" + path.read_bytes()[1:]),
            "expected labels from 0 to 9, found 10",
        ),
    ],
)
@pytest.mark.parametrize("name", ["data_batch_4.bin", "test_batch.bin"])
def test_other_files_than_cifar10s_are_refused_by_name(cifar, name, spoil, message):
    spoil(cifar / name)
    with pytest.raises(DataError, match=f"{re.escape(str(cifar / name))}: {message}"):
        load_data(f"cifar10:{cifar}", image_size=32)


def test_the_real_files_hold_ten_thousand_records():
    assert cifar10.RECORDS * cifar10.RECORD == 30_730_000
    with pytest.raises(ValueError, match="expected 'train' or 'test'; found 'valid'"):
        cifar10.load_cifar10(".", "valid")


# --- Augmentation -------------------------------------------------------------------------------


def ramps(n: int, height: int = 6, width: int = 5) -> np.ndarray:
    """Return images whose values all differ and are above 0."""
    return 1 + np.arange(n * 2 * height * width, dtype=np.float32).reshape(n, 2, height, width)


def splitmix64(state: int, count: int) -> list[int]:
    """Compute the generator's numbers as it is usually written: one after another."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        numbers.append(z ^ (z >> 31))
    return numbers


def drawn(seed: int, epoch: int, index: int, shift: int) -> tuple[bool, int, int]:
    """Return whether an example is flipped, and how far it moves down and right."""
    start = int(np.random.SeedSequence([seed, epoch, 1]).generate_state(1, np.uint64)[0])
    words = splitmix64(start, 3 * index + 3)[-3:]
    down, right = (word % (2 * shift + 1) - shift for word in words[1:])
    return words[0] >= 2**63, down, right


def moved(image: np.ndarray, flipped: bool, down: int, right: int, fill: float) -> np.ndarray:
    """Flip and move one image, pixel by pixel."""
    result = np.full_like(image, fill)
    _, height, width = image.shape
    for y, x in np.ndindex(height, width):
        from_y, from_x = y - down, x - right
        if 0 <= from_y < height and 0 <= from_x < width:
            result[:, y, x] = image[:, from_y, width - 1 - from_x if flipped else from_x]
    return result


def test_splitmix64_is_the_published_one():
    assert splitmix64(1234567, 3) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@given(
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 1000),
    indices=st.lists(st.integers(0, 300), min_size=1, max_size=4),
    flip=st.booleans(),
    shift=st.integers(0, 4),
)
def test_augmentation_is_what_was_drawn_for_each_example(seed, epoch, indices, flip, shift):
    images = ramps(len(indices))
    before = images.copy()
    augmented = augment(images, seed, epoch, indices, flip=flip, shift=shift, fill=-7)
    assert augmented.dtype == np.float32
    for image, index, result in zip(images, indices, augmented, strict=True):
        flipped, down, right = drawn(seed, epoch, index, shift)
        expected = moved(image, flip and flipped, down, right, -7)
        np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(images, before)


@given(
    order=st.permutations(range(12)), cut=st.integers(0, 12), dtype=st.sampled_from(["f4", "f8"])
)
def test_augmentation_does_not_depend_on_the_batch(order, cut, dtype):
    images = ramps(12).astype(dtype)
    together = augment(images, 3, 1, np.arange(12), flip=True, shift=2)
    assert together.dtype == dtype
    for part in (order[:cut], order[cut:]):
        part_alone = augment(images[part], 3, 1, np.array(part, int), flip=True, shift=2)
        np.testing.assert_array_equal(part_alone, together[part])


def test_half_are_flipped_and_every_shift_occurs_equally_often():
    n, shift = 8000, 2
    images = np.zeros((n, 1, 5, 5), np.float32)
    images[:, 0, 2, 2], images[:, 0, 2, 1] = 2, 1  # the center and its left neighbor
    augmented = augment(images, 0, 0, np.arange(n), flip=True, shift=shift)
    y, x = np.nonzero(augmented[:, 0] == 2)[1:]
    assert len(y) == n
    counts = np.bincount(5 * y + x, minlength=25)
    assert abs(counts - n / 25).max() < 5 * np.sqrt(n / 25)
    visible = (x > 0) & (x < 4)
    flipped = augmented[np.arange(n), 0, y, np.minimum(x + 1, 4)] == 1
    assert abs(flipped[visible].mean() - 0.5) < 5 * 0.5 / np.sqrt(visible.sum())


def test_augmentation_differs_between_examples_epochs_and_seeds():
    images = np.tile(ramps(1), (64, 1, 1, 1))
    results = [
        augment(images, seed, epoch, np.arange(64), flip=True, shift=3).tobytes()
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1)]
    ]
    assert len(set(results)) == 4
    one = augment(images, 0, 0, np.arange(64), flip=True, shift=3)
    assert len({image.tobytes() for image in one}) > 32
    np.testing.assert_array_equal(
        augment(images, 0, 0, [5] * 64, flip=True, shift=3), one[[5] * 64]
    )


def test_augmentation_never_changes():
    found = [drawn(7, 3, index, 4) for index in range(5)]
    assert found == [(False, -1, 3), (True, -4, 4), (False, 1, 1), (True, 2, -2), (False, -2, 2)]


def test_what_comes_in_is_filled_by_channel():
    images = ramps(40)
    filled = augment(images, 0, 0, np.arange(40), flip=False, shift=3, fill=(-1, -2))
    assert (filled[:, 0] == -1).any()
    np.testing.assert_array_equal(filled[:, 0] == -1, filled[:, 1] == -2)
    plain = augment(images, 0, 0, np.arange(40), flip=False, shift=3)
    np.testing.assert_array_equal(plain == 0, filled < 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": ramps(3)[0]}, "images: expected floating point of shape"),
        ({"images": ramps(3).astype(int)}, "images: expected floating point"),
        ({"indices": [0, 1]}, "indices: expected 3 integers"),
        ({"indices": [0.0, 1.0, 2.0]}, "indices: expected 3 integers"),
        ({"indices": [0, 1, -1]}, "indices: .*at least 0"),
        ({"flip": 1}, "flip: expected True or False"),
        ({"shift": -1}, "shift: expected an integer of at least 0"),
        ({"shift": 5}, "shift: expected less than both sides of an image of 6 x 5"),
        ({"fill": (1, 2, 3)}, "fill: expected a number, or 2 numbers"),
        ({"seed": -1}, "seed: expected an integer from 0 to 18,446,"),
        ({"epoch": 2**32}, "epoch: expected an integer from 0 to 4,294,967,295"),
    ],
)
def test_augmentation_refuses_what_it_cannot_do(changes, message):
    given = {"images": ramps(3), "seed": 0, "epoch": 0, "indices": [0, 1, 2]}
    options = {**given, "flip": True, "shift": 1, **changes}
    with pytest.raises(ValueError, match=message):
        augment(**options)
