"""Recognize files without a DenseNet's weights, and tell the user what to do about them.

Downloads are often something else: a pointer, a web page, an archive, a network in another format.
Files are recognized by their first bytes, archives by the names inside. Nothing is unpacked or run.
For folders, see _folders.py.
"""

from __future__ import annotations

import errno
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .._checks import COUNTED, listed
from .._files import open_file, quoted, size_of, what_is
from ..weights import WeightsError
from ._folders import (
    FROM_TENSORFLOW,
    JOIN,
    SHARD,
    WEIGHTS,
    Found,
    what_folder,
)
from ._limits import LARGEST_FILE
from ._protobuf import BYTES, NUMBER, fields_of, is_onnx
from ._safetensors import is_safetensors
from ._zips import names_in_zip

HEAD = 512  # bytes
HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second starts an empty archive
NPY = ".npy"

ELSEWHERE = "this format cannot be read: convert the file that it was made from"
AGAIN = "download or copy it again"
CLASSIFY = "to classify images: predict('WEIGHTS.safetensors', 'IMAGE')"
IN_PYTHON = (  # the arrays follow
    "its arrays have a DenseNet's names, type in Python: import numpy, densenet_multi as dm; "
    "dm.save_weights('NEW.safetensors', dm.get_spec('densenet121'), "
)
JOIN_IN_KERAS = "join them in Keras: model.load_weights('THIS'); model.save('NEW.keras')"
NO_WEIGHTS = "it has no weights: they are in another file"
NOT_TEXT = "weights files are binary"
SAVE_AGAIN = (
    "if you still have the model, save it again with Keras: model.save('NEW.keras') or "
    "model.save_weights('NEW.weights.h5')"
)

MAGIC: tuple[tuple[int, bytes, Found], ...] = (  # (offset, bytes there, what the file is)
    (0, b"GGUF", ("a GGUF file", ELSEWHERE)),
    (4, b"TFL3", ("a TensorFlow Lite network", ELSEWHERE)),
    (0, b"MATLAB ", ("a MATLAB file", ELSEWHERE)),
    (8, b"\3\0\0\0V 1", ("a file of Torch7 (Lua)", ELSEWHERE)),
    (0, b"\x89PNG\r\n", ("an image (PNG)", CLASSIFY)),
    (0, b"\xff\xd8\xff", ("an image (JPEG)", CLASSIFY)),
    (0, b"GIF8", ("an image (GIF)", CLASSIFY)),
    (8, b"WEBP", ("an image (WebP)", CLASSIFY)),
    (0, b"II*\0", ("an image (TIFF)", CLASSIFY)),
    (0, b"MM\0*", ("an image (TIFF)", CLASSIFY)),
    (4, b"ftyp", ("a video or an image (MPEG-4)", "it holds no weights")),
    (0, b"%PDF-", ("a document (PDF)", "it holds no weights")),
    (
        0,
        b"\0\x05\x16\x07",
        ("macOS metadata of a file", "use the file whose name does not start with ._"),
    ),
)
WHOSE = {  # the start of a weights file -> its kind
    HDF5: "an HDF5 file, as written by Keras",
    ZIP[0]: "a zip archive, as written by PyTorch and Keras",
    b"\x80": "a pickle, as written by PyTorch and Flax",
    b"\x12\x01\0\0": "an MXNet file",
}
PACKED = {  # the start of a file -> (its kind, the command that unpacks it); archives come first
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", "7z x"),
    b"Rar!\x1a\x07": ("a RAR archive", "unrar x"),
    b"\x1f\x8b": ("gzip", "gzip -dc"),
    b"BZh": ("bzip2", "bzip2 -dc"),
    b"\xfd7zXZ\0": ("xz", "xz -dc"),
    b"\x28\xb5\x2f\xfd": ("Zstandard", "zstd -dc"),
}
PACKED_TAR = re.compile(r"\.(tgz|tbz2|txz|tar\.\w+)$", re.IGNORECASE)
POINTERS = (  # (the start of a pointer file, its owner, how to fetch the file)
    ("version https://git-lfs", "git-lfs", "in its repository, type: git lfs pull"),
    ("# xet version", "Xet", "download the file itself"),
    ("/annex/objects/", "git-annex", "in its repository, type: git annex get FILE"),
    ("outs:\n- ", "DVC", "in its repository, type: dvc pull"),
)
ENDINGS = {  # suffix -> kind, if the content does not show the format
    ".pb": "a TensorFlow graph",
    ".mlmodel": "a Core ML network",
    ".caffemodel": "a Caffe network",
}


def refuse_others(path: Path, expected: str = "a DenseNet checkpoint") -> None:
    """Raise ``WeightsError`` for a file or folder that certainly holds no readable weights.

    The message states what was found and what to do. Raises ``OSError`` if the path cannot be read
    or is a broken link.
    """
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(errno.ENOENT, f"A broken link, to {path.readlink()}", str(path))
    found = what_folder(path) if path.is_dir() else _what_file(path)
    if found:
        raise WeightsError(f"{path}: expected {expected}, found {found[0]}; {found[1]}")


def description(path: Path) -> str:
    """Describe a file or folder that no format accepts, in words. Raises ``OSError``."""
    if path.is_dir():
        return "a folder of another kind"
    head = _File.of(path).head
    for ending, what in ENDINGS.items():
        if path.name.lower().endswith(ending):
            return f"{what}, judging by its name"
    return f"a file that starts with {head[:8].hex(' ')}"


def other_weights(path: Path) -> str | None:
    """Return the kind of a weights file or folder; None for a file that may be safetensors.

    Raises ``OSError``.
    """
    if path.is_dir():
        return "a folder, as written by Orbax or KerasHub"
    head = _File.of(path).head
    if is_safetensors(head):  # the length that precedes its header may look like any kind
        return None
    return next((whose for start, whose in WHOSE.items() if head.startswith(start)), None)


@dataclass(frozen=True)
class _File:
    path: Path
    size: int
    head: bytes

    @classmethod
    def of(cls, path: Path) -> _File:
        with open_file(path, error=WeightsError) as file:
            return cls(path, size_of(file), file.read(HEAD))

    @property
    def quoted(self) -> str:
        """Its path, quoted for a shell."""
        return quoted(self.path)


def _what_file(path: Path) -> Found | None:
    if kind := what_is(path):
        return kind, "weights can only be read from regular files"
    file = _File.of(path)
    if is_safetensors(file.head) or file.size > LARGEST_FILE:
        return None
    return next((found for kind in KINDS if (found := kind(file))), None)


def _nothing(file: _File) -> Found | None:
    if not file.head:
        return "an empty file", AGAIN
    if not file.head.strip(b"\0"):
        return "a file that starts with zeros only, as after an interrupted download", AGAIN
    return None


def _magic(file: _File) -> Found | None:
    return next((found for at, magic, found in MAGIC if file.head[at:].startswith(magic)), None)


def _numpy(file: _File) -> Found | None:
    if not file.head.startswith(b"\x93NUMPY"):
        return None
    if b"'|O'" in file.head:  # Python objects, such as a dictionary
        loaded = f"numpy.load({str(file.path)!r}, allow_pickle=True).item()"
        what = "Python objects in a NumPy file"
        trusted = "if you trust the file (loading it can run code that it contains) and"
        return what, f"{trusted} {IN_PYTHON}{loaded})"
    return "one NumPy array", "a network has many arrays, each with a name"


def _packed(file: _File) -> Found | None:
    unpack = "unpack it; type: "
    for magic, (what, command) in PACKED.items():
        if not file.head.startswith(magic):
            continue
        if what.endswith("archive"):
            return what, f"{unpack}{command} {file.quoted}"
        if PACKED_TAR.search(file.path.name) or _is_tar(_unpacked(file.head)):
            return f"a tar archive compressed with {what}", f"{unpack}tar -xf {file.quoted}"
        return f"a file compressed with {what}", f"{unpack}{command} {file.quoted} > NEW"
    return ("a tar archive", f"{unpack}tar -xf {file.quoted}") if _is_tar(file.head) else None


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def _unpacked(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(head, HEAD)
    except zlib.error:  # another compression method, or damaged
        return b""


def _short_hdf5(file: _File) -> Found | None:
    """Recognize an HDF5 file that is shorter than its superblock states.

    Source: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
    """
    head = file.head
    if head[:8] != HDF5 or len(head) < 48:
        return None
    base, end = (24, 40) if head[8] < 2 else (12, 28)
    promised = int.from_bytes(head[end : end + 8], "little")
    if any(head[base : base + 8]) or promised <= file.size:
        return None
    return f"{file.size:,} of the {promised:,} bytes of an HDF5 file", AGAIN


# --- Texts --------------------------------------------------------------------------------------


def _text(file: _File) -> Found | None:
    text = _decoded(file.head)
    if text is None:
        return None
    for start, whose, advice in POINTERS:
        if text.startswith(start) or (start[0] == "/" and start in text):
            return f"a {whose} pointer instead of the file", advice
    small = text.lstrip().lower()
    if small.startswith("model_checkpoint_path:"):
        return "TensorFlow's list of checkpoints", FROM_TENSORFLOW
    if small.startswith("<"):
        return _markup(text, small)
    if small.startswith(("{", "[")):
        return _json(text)
    return f"text, which starts with {_start(text)}", NOT_TEXT


def _decoded(head: bytes) -> str | None:
    """Return the head decoded as text; None if it is not text."""
    is_markup = re.match(rb"\s*<(!doctype|html|head|\?xml)", head, re.IGNORECASE)
    try:
        text = head.decode("utf-8-sig", "replace" if is_markup else "strict")
    except UnicodeDecodeError as error:
        if error.end < len(head) or error.start < HEAD - 4:  # more than a cut-off last character
            return None
        text = head[: error.start].decode("utf-8-sig")
    return text if all(c.isprintable() or c in "\t\n\r\f" for c in text) else None


def _start(text: str) -> str:
    return repr(text.strip().partition("\n")[0][:40])


def _markup(text: str, small: str) -> Found:
    if small.startswith(("<!doctype html", "<head", "<script")) or "<html" in small:
        title = re.search(r"<title[^>]*>\s*(.*?)\s*</title", text, re.DOTALL | re.IGNORECASE)
        titled = f" with the title {title[1][:60]!r}" if title else ""
        advice = "the URL leads to a page, not to the file: download the file itself"
        return f"a web page (HTML){titled}", advice
    if code := re.search(r"<code>(\w{1,40})</code>", text, re.IGNORECASE):
        return f"a server's error message (XML, {code[1]!r})", AGAIN
    is_openvino = "<net " in small
    return (
        "an OpenVINO network (XML)" if is_openvino else "XML",
        ELSEWHERE if is_openvino else NOT_TEXT,
    )


def _json(text: str) -> Found:
    for mark, what, advice in (
        ('.weights.h5"', "Keras' list of weights files", JOIN_IN_KERAS),
        ('"weight_map"', "the index of a sharded network", JOIN),
        ('"op": "null"', "an MXNet network without its weights (JSON)", NO_WEIGHTS),
        ('"class_name"', "a Keras network without its weights (JSON)", NO_WEIGHTS),
        ('"architecture', "a network's description (JSON)", NO_WEIGHTS),
        ('"model_type"', "a network's description (JSON)", NO_WEIGHTS),
    ):
        if mark in text:
            return what, advice
    return f"JSON, which starts with {_start(text)}", NOT_TEXT


# --- Protobuf, TensorFlow -----------------------------------------------------------------------


def _protobuf(file: _File) -> Found | None:
    """Recognize a network in a protobuf message by its field numbers."""
    if is_onnx(file.path):
        return None
    fields = fields_of(file.path) if file.head[:1] in (b"\x08", b"\x0a") else {}
    first = fields.get(1)
    for found, what, advice in (
        (first == NUMBER and max(fields, default=0) >= 200, "a Core ML network", ELSEWHERE),
        (
            fields == {1: NUMBER, 2: BYTES},
            "the graph of a SavedModel, without its weights",
            SAVE_AGAIN,
        ),
        (first == BYTES and 100 in fields, "a Caffe network", ELSEWHERE),
        (first == BYTES and max(fields) <= 7, "a TensorFlow graph", SAVE_AGAIN),
    ):
        if found:
            return what, advice
    return None


def _tensorflow(file: _File) -> Found | None:
    """Recognize a checkpoint's shard by its name, or a checkpoint's index by its last bytes."""
    if not SHARD.search(file.path.name):
        with file.path.open("rb") as opened:
            opened.seek(max(0, file.size - 8))
            if opened.read(8) != bytes.fromhex("57fb808b247547db"):
                return None
    return "a shard of a TensorFlow checkpoint", FROM_TENSORFLOW


# --- Archives -----------------------------------------------------------------------------------


def _zip(file: _File) -> Found | None:
    if file.head[:4] not in ZIP:
        return None
    try:
        names = names_in_zip(file.path)
    except WeightsError:
        what = "a zip archive (as .pth and .keras files are) that is damaged or truncated"
        return what, AGAIN
    path, leaves = str(file.path), {name.rpartition("/")[2] for name in names}
    if program := _of_pytorch(path, names, leaves):
        return program
    if "data.pkl" in leaves or {"config.json", "model.weights.h5"} <= set(names):
        return None
    if names and all(name.endswith(NPY) for name in names):
        found = f"NumPy arrays ({listed((n.removesuffix(NPY) for n in names), more=COUNTED)})"
        return found, f"if {IN_PYTHON}dict(numpy.load({path!r})))"
    files = [name for name in names if not name.endswith("/")]
    likely = [name for name in files if name.lower().endswith(WEIGHTS)]
    then = f", and use {likely[0]}" if len(likely) == 1 else ""
    what = "a SavedModel in a zip archive" if "saved_model.pb" in leaves else "a zip archive"
    within = listed(([*likely, *(name for name in files if name not in likely)]), more=COUNTED)
    return f"{what} ({within or 'empty'})", f"unpack it{then}; type: unzip {file.quoted}"


def _of_pytorch(path: str, names: list[str], leaves: set[str]) -> Found | None:
    """Recognize a PyTorch archive that holds a program besides its weights."""
    in_python = "save only its weights; type in Python: torch.save("
    if "constants.pkl" in leaves and any("code/" in name for name in names):
        return "a TorchScript archive, a program with its weights", (
            f"{in_python}torch.jit.load({path!r}).state_dict(), 'NEW.pth')"
        )
    if any(name.endswith(("exported_program.json", "/archive_format")) for name in names):
        return "a program saved by torch.export", (
            f"{in_python}torch.export.load({path!r}).state_dict, 'NEW.pth')"
        )
    if any(name.endswith(".data/extern_modules") for name in names):
        return "an archive of torch.package", f"{in_python}model.state_dict(), 'NEW.pth')"
    return None


KINDS: tuple[Callable[[_File], Found | None], ...] = (
    _tensorflow,
    _nothing,
    _zip,
    _magic,
    _numpy,
    _packed,
    _short_hdf5,
    _text,
    _protobuf,
)
