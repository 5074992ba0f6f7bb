"""PyTorch's own files, read without PyTorch: a pickle that describes tensors, and their bytes.

Since 1.6 a file is a zip with the pickle in ``data.pkl`` and each storage in ``data/KEY``; before,
pickles one after the other, then the storages. Whatever else a file describes (numbers, paths,
whole modules) becomes an inert stand-in: see _pickles.py.
Source: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from errno import EINVAL
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .._pickles import PickleError, Reader, StandIn, as_array, contents
from ..weights import WeightsError
from ._limits import check_size
from ._safetensors import from_bfloat16, to_float

OF_MODULES = ("_parameters", "_buffers", "_modules")  # in paths through whole modules
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # the first pickle of a file before 1.6
STORAGES = {  # the class of a storage, or a tensor's dtype -> NumPy's
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "bfloat16",
    "int64": "i8",
    "int32": "i4",
    "uint8": "u1",
    "bool": "?",
}


@dataclass(eq=False)
class Storage:
    """A block of numbers of one kind; ``raw`` arrives after the pickle in files before 1.6."""

    dtype: str
    order: str = "<"
    raw: bytes = b""
    start: int = 0

    @property
    def width(self) -> int:
        """Bytes for a number."""
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize


@dataclass(eq=False)
class Tensor:
    """A tensor as a file describes it: numbers of a storage, at these distances."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def is_float(self) -> bool:
        """Whether it may be a weight."""
        return self.dtype == "bfloat16" or np.dtype(self.dtype).kind == "f"

    @property
    def bytes(self) -> int:
        """What its numbers take."""
        return math.prod(self.shape) * (2 if self.dtype == "bfloat16" else self.storage.width)

    def array(self) -> npt.NDArray[Any]:
        """Its numbers; float16 and bfloat16 as float32. Raises ``WeightsError``."""
        narrow = self.dtype == "bfloat16"
        dtype = np.dtype("u2" if narrow else self.dtype).newbyteorder(self.storage.order)
        flat = np.frombuffer(
            self.storage.raw,
            dtype,
            (len(self.storage.raw) - self.storage.start) // dtype.itemsize,
            self.storage.start,
        )
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((size - 1) * stride for size, stride in steps)
        if math.prod(self.shape) and last >= len(flat):
            raise WeightsError(
                f"expected a tensor that its file holds, found one that reads number {last:,} of "
                f"{len(flat):,}"
            )
        if 0 in self.shape:
            return np.zeros(self.shape, dtype)
        distances = tuple(stride * dtype.itemsize for stride in self.strides)
        seen = np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, distances, writeable=False
        )
        if narrow:
            return from_bfloat16(np.ascontiguousarray(seen).astype("=u2", copy=False))
        native = np.ascontiguousarray(seen).astype(dtype.newbyteorder("="), copy=False)
        return np.asarray(to_float(native))


@dataclass(eq=False)
class OtherTensor:
    """A tensor that is not dense: sparse, quantized."""

    kind: str


def read_torch(path: Path) -> Any:
    """What a file of ``torch.save`` describes, its tensors as ``Tensor``.

    Raises ``WeightsError`` where the file is damaged, or another kind; ``OSError``.
    """
    check_size(path)
    with path.open("rb") as file:
        try:
            if file.read(4) == b"PK\x03\x04":
                with zipfile.ZipFile(file) as archive:
                    return _read_zip(archive)
            file.seek(0)
            return _read_pickles(file)
        except WeightsError:
            raise
        except PickleError as error:
            raise WeightsError(str(error)) from None
        except OSError as error:
            if error.errno != EINVAL:  # of a place before the file's start
                raise
            raise WeightsError("expected a complete zip archive, found a damaged one") from None
        except Exception as error:  # noqa: BLE001  # whatever zipfile meets in a damaged file
            found = f"{type(error).__name__}: {error}"
            raise WeightsError(
                f"expected a file of torch.save, found a damaged one ({found})"
            ) from None


def is_torch_file(path: Path, head: bytes) -> bool:
    """Whether a file that starts with ``head`` is PyTorch's zip, or its bare pickle."""
    if head[:4] == b"PK\x03\x04":
        return any(name.endswith("data.pkl") for name in names_in_zip(path))
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def float_tensors(root: Any, size: int) -> dict[str, Any]:
    """{name: tensor} of everything that a file describes and that may be a weight.

    A name is a path joined by dots: through the entries of dictionaries, and through modules as a
    ``state_dict`` would name it. NumPy's arrays are tensors too. Raises ``WeightsError`` where the
    numbers are more than a file of this size in bytes can hold, and for a weight that is sparse or
    quantized.
    """
    found: dict[str, Any] = {}
    needed = 0
    for path, each in contents(root):
        name = ".".join(key for key in path if key not in OF_MODULES)
        if isinstance(each, OtherTensor) and name.endswith((".weight", ".bias")):
            raise WeightsError(f"{name}: expected a dense tensor, found {each.kind}")
        array = as_array(each)
        if isinstance(each, Tensor) and each.is_float:
            found[name] = each
            needed += each.bytes
        elif array is not None and array.dtype.kind == "f":
            found[name] = array
            needed += array.nbytes
    if needed > size:  # few numbers in the file may be seen as many
        raise WeightsError(
            f"expected tensors that fit in the file together, found {needed:,} bytes of them in "
            f"{size:,}"
        )
    return found


def to_numpy(name: str, tensor: Any) -> npt.NDArray[Any]:
    """The array of a tensor, or of an array. Raises ``WeightsError``, which names it."""
    if not isinstance(tensor, Tensor):
        array = np.asarray(to_float(tensor))
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    try:
        return tensor.array()
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from None


def first_line(error: Exception) -> str:
    """The first line of what PyTorch says."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def names_in_zip(path: Path) -> list[str]:
    """The names in a zip archive, with "/" also where Windows wrote it. Raises ``WeightsError``."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [_with_slashes(entry.filename) for entry in archive.infolist()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise WeightsError(f"expected a zip archive, found a damaged one ({error})") from None


# --- Since 1.6 ----------------------------------------------------------------------------------


def _read_zip(archive: zipfile.ZipFile) -> Any:
    entries = {_with_slashes(entry.filename): entry for entry in archive.infolist()}
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise WeightsError(
            "expected a file of torch.save, whose zip is not compressed, found a compressed one; "
            "unpack it: it may hold the file"
        )
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError(f"expected one data.pkl in the zip, found {len(pickles)}")
    root = pickles[0].removesuffix("data.pkl")

    def member(name: str) -> bytes:
        if root + name not in entries:
            raise WeightsError(f"expected {root}{name} in the zip, found none")
        return archive.read(entries[root + name])

    order = ">" if f"{root}byteorder" in entries and member("byteorder") == b"big" else "<"
    found: dict[str, Storage] = {}

    def storage(reference: Any) -> Any:
        dtype, key, _ = _described(reference)
        if isinstance(dtype, StandIn):
            return dtype
        if key not in found:
            found[key] = Storage(dtype, order, member(f"data/{key}"))
        return found[key]

    return Reader(io.BytesIO(member("data.pkl")), KNOWN, storage).load()


def _with_slashes(name: str) -> str:
    return name.replace("\\", "/")


# --- Before -------------------------------------------------------------------------------------


def _read_pickles(file: BinaryIO) -> Any:
    first = Reader(file, KNOWN).load()
    if first != MAGIC_NUMBER:  # of pickle.dump
        return first
    _, system = Reader(file).load(), Reader(file).load()
    little = not isinstance(system, dict) or system.get("little_endian", True)
    found: dict[str, Storage] = {}

    def storage(reference: Any) -> Any:
        dtype, key, view = _described(reference)
        if isinstance(dtype, StandIn):
            return dtype
        whole = found.setdefault(key, Storage(dtype, "<" if little else ">"))
        return _View(whole, view) if view else whole

    loaded = Reader(file, KNOWN, storage).load()
    keys = Reader(file).load()
    for key in keys if isinstance(keys, list) else ():
        if key not in found:
            raise WeightsError(f"expected storages that its tensors use, found {key!r:.60}")
        length = int.from_bytes(file.read(8), "little" if little else "big", signed=True)
        wanted = length * found[key].width
        raw = file.read(wanted) if length >= 0 else b""
        if length < 0 or len(raw) != wanted:
            raise WeightsError("expected a complete file, found one that ends too early")
        found[key].raw = raw
    return loaded


@dataclass(eq=False)
class _View:
    """A part of a storage, as files of PyTorch 0.x have it."""

    whole: Storage
    view: Any


def _described(reference: Any) -> tuple[Any, str, Any]:
    """NumPy's dtype (or a stand-in for a module's class), key and view of a reference."""
    if isinstance(reference, tuple) and len(reference) > 1 and reference[0] == "module":
        return StandIn(*reference[1:]), "", None  # a class and its source, of a whole module
    if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
        raise PickleError(f"expected a reference to a storage, found {reference!r:.60}")
    kind = str(getattr(reference[1], "name", "")).rpartition(".")[2]
    view = reference[5] if len(reference) > 5 else None
    dtype = "u1" if kind == "UntypedStorage" else STORAGES.get(kind)
    if dtype is None:
        return StandIn(kind), "", None
    return dtype, str(reference[2]), view


# --- Tensors ------------------------------------------------------------------------------------


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
    return _typed(storage, getattr(storage, "dtype", ""), offset, shape, strides)


def _tensor_of_dtype(  # as PyTorch calls it
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    _grad: Any,
    _hooks: Any,
    dtype: Any,
    *_: Any,
) -> Any:
    named = str(getattr(dtype, "name", "")).removeprefix("torch.")
    return _typed(storage, STORAGES.get(named, ""), offset, shape, strides)


def _typed(storage: Any, dtype: str, offset: Any, shape: Any, strides: Any) -> Any:
    if isinstance(storage, _View):
        _, first, _ = storage.view
        storage, offset, dtype = storage.whole, offset + first, storage.whole.dtype
    if not isinstance(storage, Storage) or not dtype:
        return OtherTensor(str(getattr(storage, "args", ("another kind",))[0]))
    if isinstance(shape, int):
        shape, strides = (shape,), (strides,)
    numbers = [offset, *shape, *strides]
    if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in numbers):
        raise PickleError(f"expected a tensor's shape and strides, found {shape!r:.60}")
    return Tensor(storage, dtype, offset, tuple(shape), tuple(strides))


def _first(tensor: Any, *_: Any) -> Any:
    return tensor


def _rebuilt(function: Any, _kind: Any, args: Any, *_: Any) -> Any:
    return function(*args)


def _storage_in(raw: Any) -> Any:
    """A storage that pickle.dump has wrapped in a file of its own."""
    if not isinstance(raw, bytes):
        raise PickleError("expected the bytes of a storage")
    return _read_pickles(io.BytesIO(raw))


def _other(kind: str) -> Callable[..., OtherTensor]:
    return lambda *_: OtherTensor(kind)


KNOWN: Mapping[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type": _rebuilt,
    "torch._tensor._rebuild_from_type_v2": _rebuilt,
    "torch.storage._load_from_bytes": _storage_in,
    "torch._utils._rebuild_qtensor": _other("a quantized one"),
    "torch._utils._rebuild_sparse_tensor": _other("a sparse one"),
    "torch._utils._rebuild_sparse_csr_tensor": _other("a sparse one"),
    "torch._utils._rebuild_nested_tensor": _other("a nested one"),
}
