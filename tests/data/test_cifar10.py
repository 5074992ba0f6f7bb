"""CIFAR-10 as published: two versions, packed or unpacked; no code in a pickle ever runs."""

import gzip
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from densenet_multi.data import DataError, cifar10, load_cifar10, load_data

COUNT = 4  # images in each file here
NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, COUNT, 3, 32, 32), np.uint8)
LABELS = np.array([[9, 0, i, 3] for i in range(6)])


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS", COUNT)


def batch(i: int, text=str, **changes) -> dict:
    """Return the dictionary to pickle, with the published extra entries; keys are str or bytes."""
    found = {
        "batch_label": b"training batch",
        "labels": LABELS[i].tolist(),
        "data": IMAGES[i].reshape(COUNT, 3072),
        "filenames": [b"a.png"] * COUNT,
        **changes,
    }
    return {text(key): value for key, value in found.items()}


def in_python_2(i: int) -> bytes:
    """Return a pickle as Python 2 wrote it: text and an array's data are byte strings."""

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    def array(values: np.ndarray) -> bytes:
        raw = values.tobytes()
        dtype = b"cnumpy\ndtype\n(" + short(b"u1") + b"K\0K\1tR(K\3" + short(b"|")
        dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        made = (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0t" + short(b"b") + b"tR"
        )
        shape = b"(K" + bytes([COUNT]) + b"M\0\x0ct"  # (4, 3072)
        return (
            made + b"(K\1" + shape + dtype + b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb"
        )

    labels = b"]" + b"(" + b"".join(b"K" + bytes([n]) for n in LABELS[i]) + b"e"
    content = short(b"labels") + labels + short(b"data") + array(IMAGES[i].reshape(COUNT, 3072))
    return b"\x80\x02}(" + content + b"u."


WRITERS = {
    "Python 2": in_python_2,
    "texts": lambda i: pickle.dumps(batch(i), protocol=2),
    "bytes": lambda i: pickle.dumps(batch(i, str.encode)),
    "protocol 0": lambda i: pickle.dumps(batch(i), protocol=0),
    "latest": lambda i: pickle.dumps(batch(i), protocol=5),
    "Fortran's order": lambda i: pickle.dumps(
        batch(i, data=np.asfortranarray(IMAGES[i].reshape(COUNT, 3072)))
    ),
}


def write(folder: Path, writer=WRITERS["Python 2"]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(NAMES):
        (folder / name).write_bytes(writer(i))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": []}))
    return folder


def write_binary(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(NAMES):
        pixels = IMAGES[i].reshape(COUNT, 3072)
        records = np.concatenate([LABELS[i][:, None].astype(np.uint8), pixels], axis=1)
        records.tofile(folder / f"{name}.bin")
    return folder


def archive(folder: Path, path: Path, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as file:
        file.add(folder, folder.name)
    return path


def check(path: Path) -> None:
    """Check that both splits have the expected images and labels."""
    for split, which in ("train", slice(0, 5)), ("test", slice(5, 6)):
        images, labels = load_cifar10(path, split)
        np.testing.assert_array_equal(images, IMAGES[which].reshape(-1, 3, 32, 32), strict=True)
        np.testing.assert_array_equal(labels, LABELS[which].ravel())
        assert labels.dtype == np.uint8


# --- What is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", WRITERS)
def test_the_python_version_has_the_same_images_and_labels(tmp_path, writer):
    check(write(tmp_path / "cifar-10-batches-py", WRITERS[writer]))


@pytest.mark.parametrize("version", [write, write_binary])
@pytest.mark.parametrize(("suffix", "mode"), [(".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar", "w")])
def test_an_archive_is_read_without_unpacking_it(tmp_path, version, suffix, mode):
    folder = version(tmp_path / "made" / "cifar-10-batches")
    path = archive(folder, tmp_path / f"cifar-10{suffix}", mode)
    before = sorted(tmp_path.rglob("*"))
    check(path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["cifar-10-batches-bin", "cifar-10-batches-py"])
def test_the_folder_that_an_archive_was_unpacked_into_is_enough(tmp_path, name):
    (write if name.endswith("py") else write_binary)(tmp_path / name)
    check(tmp_path)


@pytest.mark.parametrize("name", ["cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"])
def test_the_folder_that_an_archive_was_fetched_into_is_enough(tmp_path, name):
    version = write if "python" in name else write_binary
    (tmp_path / "data").mkdir()
    archive(version(tmp_path / "made"), tmp_path / "data" / name)
    check(tmp_path / "data")


def test_cifar10_is_recognized_without_its_prefix(tmp_path):
    folder = write(tmp_path / "cifar-10-batches-py")
    for path in folder, tmp_path, archive(folder, tmp_path / "cifar-10-python.tar.gz"):
        data = load_data(str(path), image_size=32)
        assert (data.name, data.where, len(data.train), len(data.test)) == (
            "cifar10", str(path), 20, 4,
        )  # fmt: skip
        np.testing.assert_array_equal(data.test.labels, LABELS[5])
        taken = data.train.take(np.array([6]))[0] * 255
        np.testing.assert_allclose(taken, IMAGES[1, 2], atol=1e-4)


def test_a_folder_of_images_that_is_cifar10_is_refused_with_what_to_type(tmp_path):
    write(tmp_path)
    with pytest.raises(DataError, match=f"for CIFAR-10, use data='cifar10:{tmp_path}'"):
        load_data(f"folder:{tmp_path}", image_size=32)


def test_both_versions_side_by_side_are_the_binary_one(tmp_path):
    write(tmp_path, lambda _: b"never read")
    check(write_binary(tmp_path))


# --- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": None}, "found data: none"),
        ({"data": [[0] * 3072] * 4}, "found data: none"),
        ({"data": np.zeros((4, 3072), np.float32)}, r"found data: float32 of shape \(4, 3072\)"),
        ({"data": np.zeros((5, 3072), np.uint8)}, r"found data: uint8 of shape \(5, 3072\)"),
        ({"data": np.zeros((4, 32, 32, 3), np.uint8)}, r"found data: uint8 of shape \(4, 32"),
        ({"labels": None}, "found labels: none"),
        ({"labels": [0, 1, 2]}, "found labels: 3 values"),
        ({"labels": [0, 1, 2, "3"]}, "found labels: 4 values"),
        ({"labels": [0, 1, 2, True]}, "found labels: 4 values"),
        ({"labels": [0, 1, 2, 10]}, "expected labels from 0 to 9, found 10"),
        ({"labels": [0, 1, 2, -1]}, "expected labels from 0 to 9, found -1"),
        ({"labels": [0, 1, 2, 256]}, "expected labels from 0 to 9, found 256"),
        ({"fine_labels": [0] * 4}, "expected CIFAR-10, found CIFAR-100"),
    ],
)
def test_a_pickle_of_anything_else_is_refused_by_name(tmp_path, change, message):
    folder = write(tmp_path)
    (folder / "data_batch_2").write_bytes(padded(batch(1, **change)))
    with pytest.raises(DataError, match=rf"data_batch_2: .*{message}"):
        load_cifar10(folder, "train")


def padded(found: dict) -> bytes:
    """Return a pickle that is large enough to be one of CIFAR-10's."""
    return pickle.dumps({**found, "padding": bytes(4 * 3072)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda good: good[:-9], r"expected a (complete )?pickle, found"),
        (lambda good: good + b"x", "expected nothing after the pickle, found more bytes"),
        (lambda good: good[:100], "expected a pickle of 4 images, with 12,288 .* found 100; d"),
        (lambda _: b"x" * 20_000, "expected a pickle, found a dam"),
        (lambda _: pickle.dumps([bytes(20_000)]), "expected uint8 data of shape"),
    ],
)
def test_a_damaged_pickle_is_refused_by_name(tmp_path, content, message):
    folder = write(tmp_path)
    (folder / "test_batch").write_bytes(content(WRITERS["texts"](5)))
    with pytest.raises(DataError, match=rf"test_batch: {message}"):
        load_cifar10(folder, "test")


class Payload:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("where", ["data", "labels", "more", "alone"])
def test_a_pickle_that_names_a_function_does_not_have_it_called(tmp_path, where):
    touched = tmp_path / "touched"
    folder = write(tmp_path / "data")
    payload = Payload(touched)
    found = {"payload": payload} if where == "alone" else batch(5, **{where: payload})
    content = padded(found)
    (folder / "test_batch").write_bytes(content)
    if where == "more":  # an entry that is not read
        load_cifar10(folder, "test")
    else:
        with pytest.raises(DataError, match="test_batch: expected uint8 data"):
            load_cifar10(folder, "test")
    assert not touched.exists()
    pickle.loads(content)  # noqa: S301  # the attack itself works
    assert touched.exists()


def test_a_missing_file_is_named_in_both_versions(tmp_path):
    (write(tmp_path / "py") / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"py/data_batch_3: expected a CIFAR-10 file, found no"):
        load_cifar10(tmp_path / "py", "train")
    with pytest.raises(DataError, match=r"nowhere/data_batch_1\.bin: expected a CIFAR-10 file"):
        load_cifar10(tmp_path / "nowhere", "train")


def test_other_versions_and_other_data_are_called_what_they_are(tmp_path):
    (tmp_path / "data_batch_1.mat").write_bytes(b"MATLAB")
    with pytest.raises(DataError, match="found the version for Matlab"):
        load_cifar10(tmp_path, "train")
    other = tmp_path / "cifar-100-python"
    other.mkdir()
    for name in ("train", "test", "meta"):
        (other / name).write_bytes(b"x")
    with pytest.raises(DataError, match="found CIFAR-100"):
        load_cifar10(other, "train")
    with pytest.raises(DataError, match="found none; this is CIFAR-100, which is not supported"):
        load_data(str(other), image_size=32)  # without the prefix cifar10:
    with pytest.raises(DataError, match=r"c\.tar\.gz: expected data_batch_1.* found CIFAR-100"):
        load_cifar10(archive(other, tmp_path / "c.tar.gz"), "train")


def test_an_archive_without_a_file_or_with_two_of_a_name_is_refused(tmp_path):
    folder = write_binary(tmp_path / "cifar-10-batches-bin")
    (folder / "data_batch_5.bin").unlink()
    path = archive(folder, tmp_path / "c.tar.gz")
    with pytest.raises(DataError, match=r"c\.tar\.gz: expected data_batch_5\.bin and the other"):
        load_cifar10(path, "train")
    with tarfile.open(path, "w:gz") as file:
        file.add(folder, "a")
        file.add(folder, "b")
    with pytest.raises(DataError, match=r"b/data_batch_\d\.bin: expected one file of this name"):
        load_cifar10(path, "train")


@pytest.mark.parametrize("what", ["no archive", "half of one", "damaged"])
def test_a_file_that_is_no_archive_is_refused_with_what_was_expected(tmp_path, what):
    path = archive(write_binary(tmp_path / "made"), tmp_path / "cifar-10.tar.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    changed = {"no archive": b"x" * 2000, "half of one": content[:2000], "damaged": content}
    path.write_bytes(changed[what])
    with pytest.raises(DataError, match=r"cifar-10\.tar\.gz: expected .*cifar-10-binary\.tar\.gz"):
        load_cifar10(path, "train")


def test_an_archive_that_would_grow_in_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "LARGEST_ARCHIVE", 100_000)
    member = tarfile.TarInfo("cifar-10-batches-py/readme.html")
    member.size = 200_000
    path = tmp_path / "cifar-10.tar.gz"
    path.write_bytes(gzip.compress(member.tobuf() + bytes(member.size + 10_240)))
    with pytest.raises(DataError, match=r"an archive of at most 100,000 bytes, found more"):
        load_cifar10(path, "train")
    member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    member.size = 2**40
    path.write_bytes(gzip.compress(member.tobuf()))
    with pytest.raises(DataError, match=r"data_batch_1: expected a pickle .* found 1,099,511,"):
        load_cifar10(path, "train")


def test_links_in_an_archive_are_not_followed(tmp_path):
    secret = write_binary(tmp_path / "secret")
    path = tmp_path / "cifar-10.tar"
    with tarfile.open(path, "w") as file:
        for name in NAMES:
            member = tarfile.TarInfo(f"{name}.bin")
            member.type, member.linkname = tarfile.SYMTYPE, str(secret / f"{name}.bin")
            file.addfile(member, io.BytesIO())
    with pytest.raises(DataError, match=r"cifar-10\.tar: expected data_batch_1\.bin"):
        load_cifar10(path, "train")


def test_a_pipe_among_the_files_is_called_so(tmp_path):
    os.mkfifo(tmp_path / "data_batch_1")
    expected = "data_batch_1: expected a file, found a pipe"
    with pytest.raises(DataError, match=expected):
        load_cifar10(tmp_path, "train")
