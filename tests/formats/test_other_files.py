"""Files without weights: the error names what each one is, and what to do about it."""

import dataclasses
import gzip
import io
import json
import os
import re
import shlex
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import densenet_multi as dm
from densenet_multi import formats
from densenet_multi.commands import main
from densenet_multi.formats import _flax_files
from densenet_multi.formats._hdf5 import member
from densenet_multi.formats._torch.files import open_torch
from densenet_multi.formats._zips import names_in_zip

SPEC = dm.get_spec("densenet_bc100_k12", block_config=(1, 1), growth_rate=4, num_classes=3)


@pytest.fixture(scope="module")
def weights():
    return dm.init_weights(SPEC)


def refusal(path, **arguments):
    with pytest.raises(dm.WeightsError) as caught:
        formats.read(path, **arguments)
    text = str(caught.value)
    assert text.startswith(f"{path}: expected ")
    return text


def message(number: int, content: bytes | int) -> bytes:
    """A field of a protobuf message: https://protobuf.dev/programming-guides/encoding/."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    more, last = divmod(value, 128)
    return bytes([last]) if not more else bytes([last | 128]) + varint(more)


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x.pth"))
    return file.getvalue()


ONNX = (
    message(1, 8)
    + message(2, b"pytorch")
    + message(7, message(1, b"a node") * 999)
    + message(8, b"v")
)
SCRIPT = ("net/data.pkl", "net/code/__torch__.py", "net/constants.pkl", "net/data/0")
FILES = {  # what the error calls a file: (its name, its content)
    "an empty file": ("x.pth", b""),
    "zeros only, as after an interrupted download": ("x.pth", bytes(10_000)),
    "a git-lfs pointer": (
        "x.pth",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
    ),
    "a Xet pointer": ("x.pth", b"# xet version 0\nfilesize = 3\n"),
    "a git-annex pointer": ("x.pth", b"/annex/objects/SHA256E-s3--0.pth\n"),
    "a DVC pointer": ("x.pth.dvc", b"outs:\n- md5: 0\n  path: x.pth\n"),
    "a web page (HTML) with the title 'Sign in'": (
        "x.pth",
        b"\n<!DOCTYPE html><html><head>\n<title>\n Sign in </title>",
    ),
    "a web page (HTML)": ("x.h5", b'<html lang="en"><body>Quota exceeded'),
    "a web page (HTML) with the title 'Datei nicht": (
        "x.keras",
        "<!DOCTYPE html><title>Datei nicht verfügbar</title>".encode("latin-1"),
    ),
    "a server's error message (XML, 'AccessDenied')": (
        "x.pth",
        b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
    ),
    "an OpenVINO network": ("x.xml", b'<?xml version="1.0"?>\n<net name="d" version="11">'),
    "a file compressed with gzip": ("x.pth.gz", gzip.compress(b"weights")),
    "a tar archive compressed with gzip": ("x.tgz", gzip.compress(tarred())),
    "a file compressed with bzip2": ("x.pth.bz2", b"BZh91AY&SY"),
    "a file compressed with xz": ("x.pth.xz", b"\xfd7zXZ\0\0\x04"),
    "a file compressed with Zstandard": ("x.pth.zst", b"\x28\xb5\x2f\xfd\x04"),
    "a tar archive": ("x.tar", tarred()),
    "a 7-Zip archive": ("x.7z", b"7z\xbc\xaf\x27\x1c\0\x04"),
    "a RAR archive": ("x.rar", b"Rar!\x1a\x07\x01\0"),
    "a zip archive (net/x.pth, a.txt, b.txt, 1 more)": (
        "x.zip",
        zipped("a.txt", "b.txt", "c.txt", "net/x.pth"),
    ),
    "a zip archive (empty)": ("x.zip", zipped()),
    "a SavedModel in a zip archive": ("x.zip", zipped("m/saved_model.pb", "m/variables/x.index")),
    "damaged or truncated": ("x.pth", zipped("archive/data.pkl")[:40]),
    "a TorchScript archive": ("x.pt", zipped(*SCRIPT)),
    "a program saved by torch.export": ("x.pt2", zipped("x/archive_format", "x/models/model.json")),
    "an archive of torch.package": ("x.pt", zipped("x/.data/extern_modules", "x/m/data.pkl")),
    "NumPy arrays (a, b)": ("x.npz", zipped("a.npy", "b.npy")),
    "one NumPy array": ("x.npy", b"\x93NUMPY\x01\0"),
    "a Core ML network": ("x.mlmodel", message(1, 5) + message(2, b"d") + message(500, b"n")),
    "a Caffe network": ("x.caffemodel", message(1, b"DenseNet") + message(100, b"layer") * 3),
    "a TensorFlow graph": ("x.pb", message(1, b"\x0a\x01x\x12\x05Const") * 2000 + message(4, b"v")),
    "the graph of a SavedModel": ("saved_model.pb", message(1, 1) + message(2, b"\x0a\x02graph")),
    "a TensorFlow Lite network": ("x.tflite", b"\x1c\0\0\0TFL3"),
    "TensorFlow's list of checkpoints": ("checkpoint", b'model_checkpoint_path: "cp-1"\n'),
    "a shard of a TensorFlow checkpoint": ("cp.data-00000-of-00001", bytes(99)),
    "shard of a TensorFlow checkpoint": (
        "cp.index",
        bytes(8) + b"table" * 9 + bytes.fromhex("57fb808b247547db"),
    ),
    "a GGUF file": ("x.gguf", b"GGUF\3\0\0\0"),
    "a MATLAB file": ("x.mat", b"MATLAB 5.0 MAT-file, Platform: GLNXA64"),
    "a file of Torch7 (Lua)": ("x.t7", struct.pack("<iii", 4, 1, 3) + b"V 1"),
    "macOS metadata of a file": ("._x.pth", b"\0\x05\x16\x07\0\x02\0\0Mac OS X"),
    "an image (PNG)": ("x.png", b"\x89PNG\r\n\x1a\n"),
    "an image (WebP)": ("x.webp", b"RIFF\x24\0\0\0WEBPVP8 "),
    "an image (TIFF)": ("x.tif", b"II*\0\x08\0\0\0"),
    "a video or an image (MPEG-4)": ("x.heic", b"\0\0\0\x18ftypheic"),
    "Python objects in a NumPy file": (
        "x.npy",
        b"\x93NUMPY\x01\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (), }\n",
    ),
    "Keras' list of weights files": (
        "x.weights.json",
        b'{"metadata": {}, "weight_map": {"/layers/dense/vars": "x_00000.weights.h5"}}',
    ),
    "the index of a sharded network": (
        "x.json",
        b'{"metadata": {}, "weight_map": {"a": "model-00001.safetensors"}}',
    ),
    "an MXNet network without its weights": (
        "x-symbol.json",
        b'{"nodes": [{"op": "null", "name": "data"}]}',
    ),
    "a Keras network without its weights": ("x.json", b'{"class_name": "Functional"}'),
    "a network's description (JSON)": ("config.json", b'{"architecture": "densenet121"}'),
    'JSON, which starts with \'{"message": "Not Found"}\'': (
        "x.pth",
        b'{"message": "Not Found"}',
    ),
    "text, which starts with 'epoch,loss'": ("x.csv", b"\xef\xbb\xbfepoch,loss\n1,0.5\n"),
    "text, which starts with 'Gewichte für'": ("x.txt", "Gewichte für\n".encode()),
    "96 of the 2,048 bytes of an HDF5 file": (
        "x.h5",
        b"\x89HDF\r\n\x1a\n" + bytes(32) + struct.pack("<Q", 2048) + bytes(48),
    ),
    "a file that starts with 07 06 05": ("x.bin", b"\7\6\5"),
}


@pytest.mark.parametrize(("expected", "file"), FILES.items(), ids=FILES)
def test_a_file_that_holds_no_weights_is_called_what_it_is(tmp_path, expected, file):
    path = tmp_path / file[0]
    path.write_bytes(file[1])
    text = refusal(path)
    assert f"found {expected}" in text or expected in text
    assert "; " in text  # followed by what to do


@pytest.mark.parametrize("file", [("x.bin", ONNX), ("x.onnx", ONNX), ("x.onnx", ONNX[:-1])])
def test_an_onnx_file_is_known_by_its_fields_and_needs_the_library(tmp_path, monkeypatch, file):
    """A truncated one is known by its name. See tests/onnx for what is in such files."""
    path = tmp_path / file[0]
    path.write_bytes(file[1])
    assert formats.guess(path) == "onnx"
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(dm.BackendNotInstalledError) as caught:
        formats.read(path)
    assert str(caught.value).startswith("an ONNX file needs 'onnx', which is not installed; ")
    assert str(caught.value).endswith("pip install '.[onnx]'")
    with pytest.raises(dm.BackendNotInstalledError, match="an ONNX file needs 'onnx'"):
        formats.write(tmp_path / "y.onnx", dm.Checkpoint(SPEC, dm.init_weights(SPEC)))


@pytest.mark.parametrize("option", ["probabilities", "folded", "half"])
def test_an_option_of_onnx_is_refused_by_every_other_format(tmp_path, weights, option):
    for name in set(formats.FORMATS) - {"onnx"}:
        with pytest.raises(dm.ConfigError, match=rf"^{option}: expected an ONNX.*{name!r}"):
            formats.write(tmp_path / "x", dm.Checkpoint(SPEC, weights), name, **{option: True})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file_format", formats.FORMATS)
def test_it_is_so_called_too_where_its_format_is_said_to_be_known(tmp_path, file_format):
    path = tmp_path / "x.pth"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in refusal(path, file_format=file_format)
    path.write_bytes(zipped(*SCRIPT))
    assert "torch.jit.load" in refusal(path, file_format=file_format)


def overlapping(content: bytes) -> bytes:
    """Make the directory state that the last entry starts where the one before it does."""
    before, last = (match.start() + 42 for match in [*re.finditer(b"PK\x01\x02", content)][-2:])
    return content[:last] + content[before : before + 4] + content[last + 4 :]


def test_entries_of_an_archive_that_share_bytes_are_refused(tmp_path):
    """Otherwise any number of entries in a 16 MB archive could be the same 16 MB."""
    path = tmp_path / "x.pth"
    path.write_bytes(zipped("x/data.pkl", "x/data/0", "x/data/1"))
    assert names_in_zip(path) == ["x/data.pkl", "x/data/0", "x/data/1"]
    path.write_bytes(overlapping(path.read_bytes()))
    assert "damaged" in refusal(path)
    for read in (names_in_zip, opened_torch, opened_hdf5):
        with pytest.raises(dm.WeightsError, match="'x/data/0' overlapping another; download or"):
            read(path)


def opened_torch(path: Path) -> None:
    with open_torch(path):
        pass


def opened_hdf5(path: Path) -> None:
    member(path, "x/data/0")


def test_the_last_entry_of_an_archive_ends_before_the_directory(tmp_path):
    path = tmp_path / "x.pth"
    content = zipped("x/data.pkl")
    at = content.index(b"PK\x01\x02") + 20  # the compressed size; the uncompressed size follows
    sizes = [int.from_bytes(content[i : i + 4], "little") + 1 for i in (at, at + 4)]
    longer = b"".join(size.to_bytes(4, "little") for size in sizes)
    path.write_bytes(content[:at] + longer + content[at + 8 :])
    with pytest.raises(dm.WeightsError, match=r"'x/data\.pkl' overlapping another"):
        names_in_zip(path)


def test_names_in_archives_may_have_backslashes_as_windows_writes_them(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(windows(zipped(*SCRIPT)))
    assert zipfile.ZipFile(path).infolist()[0].orig_filename == "net\\data.pkl"
    assert "a TorchScript archive" in refusal(path)
    path.write_bytes(windows(zipped("x/saved_model.pb")))
    assert "a SavedModel in a zip archive" in refusal(path)
    path.write_bytes(windows(zipped("x/data.pkl", "x/data/0")))
    assert formats.guess(path) == "torchvision"


def windows(content: bytes) -> bytes:
    return content.replace(b"/", b"\\")


@pytest.mark.parametrize(
    "content", [gzip.compress(b"weights"), gzip.compress(tarred()), tarred()], ids=range(3)
)
def test_the_command_that_unpacks_can_be_pasted(tmp_path, content):
    path = tmp_path / "my 'best' weights" / "-x.gz"
    path.parent.mkdir()
    path.write_bytes(content)
    _, command = refusal(path).split("; unpack it; type: ")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)  # noqa: S602  # it was printed
    unpacked = tmp_path / ("NEW" if "NEW" in command else "x.pth")
    assert unpacked.read_bytes() == (b"weights" if "NEW" in command else b"")


def test_a_path_that_starts_like_a_flag_is_quoted_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("-x.gz").write_bytes(gzip.compress(b"weights"))
    assert refusal(Path("-x.gz")).endswith("; type: gzip -dc ./-x.gz > NEW")


@pytest.mark.parametrize("command", ["predict", "compare", "lockstep"])
def test_the_command_that_converts_can_be_pasted(tmp_path, command):
    path = tmp_path / "my 'best'.pth"
    path.write_bytes(zipped("x/data.pkl"))
    (tmp_path / "x.png").touch()
    typed = {"predict": [str(path), str(tmp_path / "x.png")]}.get(command, ["--weights", str(path)])
    done = CliRunner().invoke(main, [command, *typed])
    assert done.exit_code == 1
    _, printed = done.stderr.split("another project's checkpoint: ")
    assert shlex.split(printed) == ["densenet-multi", "convert", str(path), "NEW.safetensors"]


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (zipped("\x1b[2Jx.pth"), r"a zip archive (\x1b[2Jx.pth); unpack it, and use \x1b[2Jx.pth;"),
        (b"<html><title>\x1b[2J</title>", "a file that starts with 3c 68"),
    ],
    ids=["a name", "text"],
)
def test_content_is_shown_so_that_no_terminal_obeys_it(tmp_path, content, shown):
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    stderr = CliRunner().invoke(main, ["inspect", str(path)]).stderr
    assert "\x1b" not in stderr
    assert shown in stderr


STARTS = [content[:n] for _, content in FILES.values() for n in (4, 64, len(content))]
STARTS = [start for start in STARTS if b"HDF" not in start]  # h5py, if installed, reads these


@settings(max_examples=300, deadline=1000)
@given(start=st.sampled_from([b"", *STARTS]), content=st.binary(max_size=600))
def test_whatever_a_file_holds_it_is_named_or_read(tmp_path_factory, start, content):
    path = tmp_path_factory.getbasetemp() / "anything"
    path.write_bytes(start + content)
    try:
        text = formats.guess(path)
    except dm.WeightsError as error:
        text = str(error)
    assert text in formats.FORMATS or re.match(f"{path}: expected .*found ", text, re.DOTALL)


@pytest.mark.parametrize("name", ["portable", "torchvision", "nnx"])
def test_a_safetensors_file_that_ends_too_early_says_how_much_is_there(tmp_path, weights, name):
    path = tmp_path / "x.safetensors"
    formats.write(path, dm.Checkpoint(SPEC, weights), name)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    expected = f"found {len(whole) - 1:,} of {len(whole):,} bytes; download or copy it again"
    assert refusal(path).endswith(expected)
    path.write_bytes(whole[:100])
    assert re.search(r"found 100 of at least [\d,]+ bytes; download", refusal(path))
    with pytest.raises(dm.WeightsError) as caught:
        dm.load_weights(path)
    assert "another project" not in str(caught.value)


# --- Not an ordinary file -----------------------------------------------------------------------


def test_what_would_never_end_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    start = time.perf_counter()
    assert "found a pipe" in refusal(tmp_path / "pipe")
    assert "found a device" in refusal(Path("/dev/zero"), file_format="gluon")
    with pytest.raises(dm.WeightsError, match="found a pipe"):
        dm.load_weights(tmp_path / "pipe")
    assert time.perf_counter() - start < 1


def test_no_device_in_a_folder_is_read_nor_passed_over(hub):
    folder = hub()
    (folder / "config.json").symlink_to("/dev/zero")
    with pytest.raises(dm.WeightsError, match=r"^\S+config\.json: expected a file, found a device"):
        formats.read(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("config.json")
    with pytest.raises(OSError, match=r"config\.json"):
        formats.read(folder)


@pytest.mark.parametrize("name", ["_METADATA", "_sharding", "d/data"])
def test_orbax_is_given_no_folder_with_what_would_never_end(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    folder = tmp_path / "folder"
    (folder / "d").mkdir(parents=True)
    (folder / name).symlink_to(tmp_path / "pipe")
    (folder / "manifest.ocdbt").touch()
    with pytest.raises(dm.WeightsError, match=f"^{folder / name}: expected a file, found a pipe"):
        formats.read(folder)


def test_orbax_is_given_no_folder_that_is_too_large(tmp_path, monkeypatch):
    (tmp_path / "manifest.ocdbt").touch()
    for name, size in (("_METADATA", 2**23), ("_sharding", 2**23), ("data", 2**32)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size + 1)  # sparse: takes no space on the disk
        expected = f"^{tmp_path / name}: expected at most {size:,} bytes, found {size + 1:,}"
        with pytest.raises(dm.WeightsError, match=expected):
            formats.read(tmp_path)
        (tmp_path / name).unlink()
    monkeypatch.setattr(_flax_files, "MOST_IN_ORBAX", 50)
    for name in ("a", "b"):  # 2**40 paths through the folder
        (tmp_path / name).symlink_to(tmp_path)
    with pytest.raises(dm.WeightsError, match="expected at most 50 files, found more"):
        formats.read(tmp_path)


def test_a_link_to_nothing_is_called_so(tmp_path):
    (tmp_path / "x.pth").symlink_to("gone.pth")
    for read in (formats.read, dm.load_weights):
        with pytest.raises(FileNotFoundError, match=r"A broken link, to gone\.pth"):
            read(tmp_path / "x.pth")
    done = CliRunner().invoke(main, ["inspect", str(tmp_path / "x.pth")])
    assert done.exit_code == 2
    assert "found a broken link to gone.pth" in done.stderr


def test_a_folder_that_may_not_be_read_is_an_os_error(tmp_path, monkeypatch):
    def forbidden(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", forbidden)
    done = CliRunner().invoke(main, ["inspect", str(tmp_path)])
    assert (done.exit_code, done.stderr) == (
        1,
        f"densenet-multi: {tmp_path}: permission denied\n",
    )


# --- Folders ------------------------------------------------------------------------------------

RUN = ("config.json", "history.jsonl", "last.safetensors", "best.safetensors")
FOLDERS = {  # what the error calls a folder: the files in it
    "an empty folder": (),
    "a TensorFlow SavedModel; if you still have the model": ("saved_model.pb", "variables/x"),
    "tf_keras.models.load_model(": ("saved_model.pb", "keras_metadata.pb"),
    "a TensorFlow checkpoint": ("checkpoint", "cp.index", "cp.data-00000-of-00001"),
    "the folder of a training run; use best.safetensors": RUN,
    "a PyTorch file that was unpacked": ("data.pkl", "version", "data/0"),
    "a .keras file that was unpacked": ("config.json", "metadata.json", "model.weights.h5"),
    "a Hugging Face cache folder": ("blobs/0", "refs/main", "snapshots/0a/config.json"),
    "a folder of checkpoints": ("100/default/_METADATA", "100/_CHECKPOINT_METADATA"),
    "a folder with a.pth, b.msgpack": ("a.pth", "b.msgpack", "log.txt"),
    "a folder of images": ("cat/a.png", "dog/b.png"),
    "a folder whose subfolders hold weights; use one of them: ": (
        "step-5/model.safetensors",
        "log.txt",
    ),
    "a sharded network (model.safetensors.index.json); merge the shards; type in Python: ": (
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
    ),
    "a folder of a.txt": ("a.txt",),
}


def test_what_is_to_be_typed_for_numpys_files_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = dm.get_spec("densenet121")
    weights = dm.init_weights(spec)
    np.savez("x.npz", **weights)
    np.save("x.npy", weights, allow_pickle=True)
    for name in ("x.npz", "x.npy"):
        exec(refusal(Path(name)).split("type in Python: ")[1], {})  # noqa: S102
        _, read = dm.load_weights("NEW.safetensors")
        assert all(np.array_equal(read[name], weights[name]) for name in weights)


@pytest.mark.parametrize(("expected", "files"), FOLDERS.items(), ids=FOLDERS)
def test_a_folder_that_holds_no_weights_is_called_what_it_is(tmp_path, expected, files):
    folder = tmp_path / "my folder"
    folder.mkdir()
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    text = refusal(folder)
    assert expected in text
    assert refusal(folder, file_format="nnx") == text
    done = CliRunner().invoke(main, ["inspect", str(folder)])
    assert done.stderr == f"densenet-multi: {text}\n"
    if "snapshots" in text:
        assert str(folder / "snapshots" / "0a") in text
    if "checkpoints" in text:
        assert str(folder / "100" / "default") in text


# --- From the Hub -------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, weights):
    def make(config=None, name="model.safetensors"):
        folder = tmp_path / "hub"
        folder.mkdir(exist_ok=True)
        save_file(weights, folder / name, {"format": "pt"})
        if config is not None:
            text = config if isinstance(config, str) else json.dumps(config)
            (folder / "config.json").write_text(text)
        return folder

    return make


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_the_file_in_a_folder_from_the_hub_is_read(hub, weights, name):
    folder = hub({}, name)
    assert formats.guess(folder) == "torchvision"
    for file_format in (None, "torchvision"):
        checkpoint = formats.read(folder, file_format)
        np.testing.assert_equal(checkpoint.weights, weights)
        assert f"read from {name} in this folder" in checkpoint.notes


def test_of_two_files_in_it_the_safetensors_are_read(hub, weights):
    hub(name="pytorch_model.bin").joinpath("pytorch_model.bin").write_bytes(b"other")
    np.testing.assert_equal(formats.read(hub()).weights, weights)


TIMMS = {
    "architecture": "densenet121",
    "num_classes": 3,
    "global_pool": "avg",
    "label_names": ["cat", "dog", "owl"],
    "model_args": {"num_classes": 3, "drop_rate": 0.1, "act_layer": None},
    "pretrained_cfg": {
        "input_size": [3, 288, 288],
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
    },
}


def test_its_configuration_says_how_the_weights_are_used(hub):
    usage = formats.read(hub(TIMMS)).usage
    assert usage.class_names == ("cat", "dog", "owl")
    assert (usage.image_size, usage.value_range) == (288, (0, 1))
    assert (usage.mean, usage.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert not usage.assumed


@pytest.mark.parametrize(
    "changes", [{"global_pool": "max"}, {"model_args": {"global_pool": "max"}}], ids=str
)
def test_its_pooling_is_the_networks(hub, changes):
    checkpoint = formats.read(hub({**TIMMS, **changes}))
    assert (
        checkpoint.spec
        == dm.DenseNetConfig(**{**dataclasses.asdict(SPEC.config), "global_pool": "max"}).resolve()
    )
    assert formats.read(hub(TIMMS)).spec == SPEC


def test_classes_are_in_the_order_of_their_numbers(hub):
    numbered = {"10": "k", "2": "c", "0": "a", "1": "b"}
    three = {key: name for key, name in numbered.items() if key != "10"}
    assert formats.read(hub({"id2label": three})).usage.class_names == ("a", "b", "c")
    assert formats.read(hub({"id2label": numbered})).usage.class_names is None  # a gap
    anonymous = {str(i): f"LABEL_{i}" for i in range(3)}
    assert formats.read(hub({"id2label": anonymous})).usage.class_names is None


def test_names_for_another_number_of_classes_are_left_out_and_said(hub):
    checkpoint = formats.read(hub({"label_names": ["cat", "dog"]}))
    assert checkpoint.usage.class_names is None
    assert "names 2 classes, but the network has 3 outputs" in checkpoint.notes[-1]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"architecture": "densenetblur121d"}, "densenetblur121d"),
        ({"global_pool": "avgmax"}, "expected global pooling by avg or max, found 'avgmax'"),
        ({"model_args": {"global_pool": "catavgmax"}}, "global_pool 'catavgmax'"),
        ({"model_args": {"aa_layer": "blur"}}, "aa_layer 'blur'"),
        ({"model_args": {"act_layer": "silu"}}, "act_layer 'silu'"),
        ({"pretrained_cfg": {"mean": [0, 0, "x"], "std": [1, 1, 1]}}, "mean"),
        ("{", "expected a JSON object"),
        ("[]", "expected a JSON object"),
        ("[" * 10**5, "expected a JSON object"),
        (" " * (2**22 + 1), "expected a JSON object"),
    ],
    ids=lambda value: str(value)[:30].strip() or None,
)
def test_a_configuration_of_another_function_is_refused(hub, changes, found):
    folder = hub(changes if isinstance(changes, str) else {**TIMMS, **changes})
    with pytest.raises(dm.WeightsError, match=found) as caught:
        formats.read(folder)
    assert str(caught.value).startswith(f"{folder / 'config.json'}: ")


# --- Names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["torchscript", "ONNX", "tflite"])
def test_the_name_of_another_thing_is_no_mistyped_one(name):
    with pytest.raises(dm.ConfigError) as caught:
        formats.read("x", name)
    assert str(caught.value).startswith(f"format {name!r} does not exist; known: portable, ")


@pytest.mark.parametrize(("name", "near"), [("kera", "keras"), ("torchvison", "torchvision")])
def test_a_mistyped_name_has_its_nearest(name, near):
    with pytest.raises(dm.ConfigError, match=f"did you mean {near!r}"):
        formats.read("x", name)
