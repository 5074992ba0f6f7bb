"""Read PyTorch's files without PyTorch: a pickle that describes tensors, and the tensors' bytes.

Since PyTorch 1.6, a file is a zip with the pickle in ``data.pkl`` and each storage in ``data/KEY``.
Older files are a sequence of pickles, then the storages. Whatever else a file describes (options,
paths, complete modules) becomes an inert stand-in: see _pickles.py. A tensor's bytes are read only
once it is known to be a weight, so an optimizer's state costs neither time nor memory.
Source: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EINVAL
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..._pickles import (
    BFLOAT16,
    MOST_DIMENSIONS,
    Budget,
    Inert,
    Known,
    PickleError,
    Reader,
    StandIn,
    as_array,
    contents,
    shown,
)
from ...weights import COUNTER, WeightsError
from .._found import LEAVES
from .._limits import check_size
from .._safetensors import from_bfloat16, to_float
from .._zips import entries_of, names_in_zip

Tree = list[tuple[tuple[str, ...], Any]]  # (path, object) of everything in a file
OF_MODULES = ("_parameters", "_buffers", "_modules")  # attributes of modules, omitted from names
Order = Literal["<", ">"]
File: TypeAlias = io.BufferedReader | io.BytesIO
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # the first pickle of a file before 1.6
ZIP = b"PK\x03\x04"  # the start of a zip archive, and of each header in it
PER_FILE = 100  # budget steps that each file embedded in a pickle costs
PIECE = 2**20  # bytes read at a time for a checksum
DAMAGED = "; download or copy it again"
CHANGED = f"expected an intact file, found a damaged file{DAMAGED}"
DTYPES = {  # the class of a storage, or a tensor's dtype -> NumPy's
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
    "UntypedStorage": "u1",
    "ComplexFloatStorage": "c8",
    "ComplexDoubleStorage": "c16",
    "QInt8Storage": "i1",
    "QUInt8Storage": "u1",
    "QInt32Storage": "i4",
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "bfloat16",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint8": "u1",
    "bool": "?",
}


def _numpys(dtype: str) -> np.dtype[Any]:
    """Return NumPy's dtype with the same bits."""
    return np.dtype("u2" if dtype == "bfloat16" else dtype)


@dataclass(eq=False, slots=True)
class Storage(Inert):
    """A block of numbers of one dtype, in a file or in bytes embedded in a pickle.

    In files from before PyTorch 1.6, ``start`` and ``size`` are known only after the pickle.
    ``checksum`` covers the complete block; 0 if the file has none, or once it has been verified.
    """

    file: File
    dtype: str
    order: Order
    start: int = 0
    size: int = 0
    checksum: int = 0

    def read(self, dtype: np.dtype[Any], first: int, count: int) -> npt.NDArray[Any]:
        """Read ``count`` numbers from index ``first``. Raises ``WeightsError``, ``OSError``."""
        if (first + count) * dtype.itemsize > self.size:
            raise WeightsError(
                f"expected a tensor within its storage of {self.size // dtype.itemsize:,} numbers, "
                f"found one that ends at number {first + count:,}"
            )
        at = self.start + first * dtype.itemsize
        found: npt.NDArray[Any] = np.empty(count, dtype)
        self.file.seek(at)
        is_complete = self.file.readinto(found.view("u1").data) == found.nbytes
        if not is_complete:
            raise WeightsError(CHANGED)
        if self.checksum and found.nbytes == self.size:
            _check(zlib.crc32(found.data), self.checksum)
        elif self.checksum:  # only part of the storage was read
            _check(_checksum(self.file, self.start, self.size), self.checksum)
        self.checksum = 0
        return found


@dataclass(eq=False, slots=True)
class Tensor(Inert):
    """A tensor as a file describes it: a strided view of a storage."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The size in bytes, if the file stores each number once."""
        return math.prod(self.shape) * _numpys(self.dtype).itemsize

    def array(self) -> npt.NDArray[Any]:
        """Return its values; float16, bfloat16 as float32. Raises ``WeightsError``, ``OSError``."""
        dtype = _numpys(self.dtype).newbyteorder(self.storage.order)
        if 0 in self.shape:
            return np.zeros(self.shape, np.float32)
        steps = [s if size > 1 else 0 for size, s in zip(self.shape, self.strides, strict=True)]
        last = sum((size - 1) * step for size, step in zip(self.shape, steps, strict=True))
        flat = self.storage.read(dtype, self.offset, last + 1)
        if _are_dense(self.shape, steps):
            seen = flat.reshape(self.shape)
        else:
            distances = [step * dtype.itemsize for step in steps]
            seen = np.lib.stride_tricks.as_strided(flat, self.shape, distances).copy()
        native = seen.astype(dtype.newbyteorder("="), copy=False)
        if self.dtype == "bfloat16":
            return from_bfloat16(native)
        return np.asarray(to_float(native))


def _are_dense(shape: tuple[int, ...], steps: list[int]) -> bool:
    """Return whether a tensor with these strides is contiguous."""
    expected = 1
    for size, step in zip(reversed(shape), reversed(steps), strict=True):
        if size > 1 and step != expected:
            return False
        expected *= size
    return True


@dataclass(eq=False, slots=True)
class OtherTensor(Inert):
    """A tensor that cannot be a weight, such as a sparse, quantized or integer tensor."""

    kind: str
    shape: tuple[int, ...] = ()
    nbytes: int = 0


@contextmanager
def open_torch(path: Path) -> Iterator[Tree]:
    """Open a file of ``torch.save`` or ``pickle.dump``; yield (path, object) of all its contents.

    Tensors are ``Tensor`` objects; for paths, see ``_pickles.contents``. The file stays open in the
    ``with`` block, because tensors are read from it there. Raises ``WeightsError`` if the file is
    damaged or of another kind; ``OSError``.
    """
    check_size(path)
    with path.open("rb") as file:
        yield _read(file, path)


def _read(file: File, path: Path) -> Tree:
    try:
        if file.read(4) == ZIP:
            with zipfile.ZipFile(file) as archive:
                return list(contents(_read_zip(archive, file, path)))
        file.seek(0)
        budget = Budget()
        return list(contents(_read_pickles(file, known(budget), budget)))
    except WeightsError:
        raise
    except PickleError as error:
        raise WeightsError(str(error)) from None
    except OSError as error:
        if error.errno != EINVAL:  # EINVAL: zipfile seeks before the file's start
            raise
        raise WeightsError(
            f"expected a complete zip archive, found a damaged one{DAMAGED}"
        ) from None
    except Exception as error:  # noqa: BLE001  # zipfile may raise anything for a damaged file
        found = f"{type(error).__name__}: {error}"
        raise WeightsError(
            f"expected a file of torch.save, found a damaged one ({found:.200}){DAMAGED}"
        ) from None


def is_torch_file(path: Path, head: bytes) -> bool:
    """Return whether a file that starts with ``head`` is a PyTorch zip or a bare pickle."""
    if head[:4] == ZIP:
        return any(name.endswith("data.pkl") for name in names_in_zip(path))
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def tensors_in(tree: Tree) -> dict[str, Any]:
    """Return {name: tensor} of everything in a file that may be a weight.

    A name is a path joined by dots: the keys of nested dictionaries, and the names of modules as in
    a ``state_dict``. NumPy arrays of floats are included. A tensor that is named like a weight but
    cannot be read as one is an ``OtherTensor``. Raises ``WeightsError``.
    """
    found: dict[str, Any] = {}
    try:
        for path, each in tree:
            tensor = each if isinstance(each, (Tensor, OtherTensor)) else as_array(each)
            if tensor is None or (path and path[-1].endswith(COUNTER)):
                continue
            name = ".".join(key for key in path if key not in OF_MODULES)
            is_named = name.rpartition(".")[2] in LEAVES
            if isinstance(tensor, OtherTensor) or _is_float(tensor):
                found[name] = tensor
            elif is_named:
                kind = np.dtype(tensor.dtype).name
                found[name] = OtherTensor(f"a tensor of {kind}", tuple(tensor.shape))
    except PickleError as error:
        raise WeightsError(str(error)) from None
    return found


def _is_float(tensor: Any) -> bool:
    if isinstance(tensor, Tensor):
        return tensor.dtype == "bfloat16" or np.dtype(tensor.dtype).kind == "f"
    return bool(tensor.dtype == BFLOAT16 or tensor.dtype.kind == "f")


def to_numpy(name: str, tensor: Any) -> npt.NDArray[Any]:
    """Return a tensor's values as a writable array in native byte order; ``name`` is for the error.

    Raises ``WeightsError``, ``OSError``.
    """
    if isinstance(tensor, OtherTensor):
        raise WeightsError(f"{name}: expected a dense tensor of floats, found {tensor.kind}")
    if isinstance(tensor, Tensor):
        try:
            return tensor.array()
        except WeightsError as error:
            raise WeightsError(f"{name}: {error}") from None
    if tensor.dtype == BFLOAT16:
        tensor = from_bfloat16(tensor["bfloat16"])
    array = np.asarray(to_float(tensor))
    return array.astype(array.dtype.newbyteorder("="), order="C")


def first_line(error: Exception) -> str:
    """Return the first line of a PyTorch error message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


# --- Files since PyTorch 1.6 --------------------------------------------------------------------


def _read_zip(archive: zipfile.ZipFile, file: File, path: Path) -> Any:
    entries = entries_of(archive)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise WeightsError(
            "expected a file of torch.save, whose zip is not compressed, found a compressed zip; "
            "unpack it: the file may be inside"
        )
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError(f"expected one data.pkl in the zip, found {len(pickles)}")
    root = pickles[0].removesuffix("data.pkl")
    order: Order = "<"
    if f"{root}byteorder" in entries:
        file.seek(_checked_start_of(entries[f"{root}byteorder"], file))
        order = ">" if file.read(3) == b"big" else "<"
    found: dict[str, Storage] = {}

    def storage(reference: Any) -> Any:
        dtype, key, _ = _described(reference)
        if not isinstance(dtype, str):
            return dtype
        if key not in found:
            entry = entries.get(f"{root}data/{key}")
            if entry is None:
                raise WeightsError(f"expected {root}data/{key} in the zip, found none{DAMAGED}")
            start, here = _start_of(entry, places), entry.file_size
            found[key] = Storage(file, dtype, order, start, here, entry.CRC)
        return found[key]

    file.seek(_checked_start_of(entries[pickles[0]], file))
    with path.open("rb", buffering=0) as places:
        return Reader(file, known(Budget()), storage).load()


def _start_of(entry: zipfile.ZipInfo, file: File | io.FileIO) -> int:
    """Return the offset of an entry's bytes, which follow a header of variable length."""
    file.seek(entry.header_offset)
    head = file.read(30)
    if head[:4] != ZIP or entry.flag_bits & 1:
        raise WeightsError(f"expected {entry.filename} in the zip, found it damaged{DAMAGED}")
    lengths = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    return entry.header_offset + len(head) + lengths


def _checked_start_of(entry: zipfile.ZipInfo, file: File) -> int:
    """Verify the checksum of an entry's bytes, and return their offset."""
    start = _start_of(entry, file)
    if entry.CRC:
        _check(_checksum(file, start, entry.file_size), entry.CRC)
    return start


def _check(found: int, expected: int) -> None:
    if found != expected:
        raise WeightsError(CHANGED)


def _checksum(file: File, start: int, size: int) -> int:
    file.seek(start)
    value = 0
    for at in range(0, size, PIECE):
        value = zlib.crc32(file.read(min(PIECE, size - at)), value)
    return value


# --- Older files --------------------------------------------------------------------------------


def _read_pickles(file: File, functions: Mapping[str, Callable[..., Any]], budget: Budget) -> Any:
    first = Reader(file, functions, budget=budget).load()
    if first != MAGIC_NUMBER:  # a file of pickle.dump
        return first
    _, system = (Reader(file, budget=budget).load() for _ in range(2))
    little = not isinstance(system, dict) or system.get("little_endian", True)
    order: Order = "<" if little else ">"
    found: dict[str, Storage] = {}

    def storage(reference: Any) -> Any:
        dtype, key, view = _described(reference)
        if not isinstance(dtype, str):
            return dtype
        whole = found.setdefault(key, Storage(file, dtype, order))
        return _View(whole, view) if view else whole

    loaded = Reader(file, functions, storage, budget).load()
    keys = Reader(file, budget=budget).load()
    at = file.tell()
    end = file.seek(0, io.SEEK_END)
    for key in keys if isinstance(keys, list) else ():
        if key not in found:
            raise WeightsError(f"expected a storage that a tensor uses, found {shown(key)}")
        file.seek(at)
        length = int.from_bytes(file.read(8), "little" if order == "<" else "big", signed=True)
        each = found[key]
        each.start, each.size = at + 8, length * _numpys(each.dtype).itemsize
        at += 8 + each.size
        if length < 0 or at > end:
            raise WeightsError(f"expected a complete file, found one that ends too early{DAMAGED}")
    return loaded


@dataclass(eq=False, slots=True)
class _View(Inert):
    """A view of part of a storage, as in files of PyTorch 0.x."""

    whole: Storage
    view: Any


def _described(reference: Any) -> tuple[Any, str, Any]:
    """Return (NumPy's dtype, key, view) of a referenced storage.

    For any other reference, return the object itself instead of the dtype.
    """
    what, *more = reference if isinstance(reference, tuple) and len(reference) < 9 else ("",)
    if what == "module":
        return more[0] if more else None, "", None  # a module's class; its source code follows
    if what != "storage" or len(more) < 4 or not isinstance(more[1], (str, int)):
        raise PickleError(f"expected a reference to a storage, found {shown(reference)}")
    kind = str(getattr(more[0], "name", "")).rpartition(".")[2]
    if kind not in DTYPES:
        return StandIn(kind), "", None
    return DTYPES[kind], str(more[1]), more[4] if len(more) > 4 else None


# --- Tensors ------------------------------------------------------------------------------------


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
    return _typed(storage, getattr(storage, "dtype", ""), offset, shape, strides)


def _tensor_of_dtype(  # PyTorch's signature
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
    return _typed(storage, DTYPES.get(named, named), offset, shape, strides)


def _typed(storage: Any, dtype: str, offset: Any, shape: Any, strides: Any) -> Any:
    if isinstance(storage, _View):
        _, first, _ = storage.view
        storage, offset, dtype = storage.whole, offset + first, storage.whole.dtype
    if isinstance(shape, int):
        shape, strides = (shape,), (strides,)
    numbers = (offset, *_numbers(shape), *_numbers(strides))
    if len(shape) != len(strides) or not all(type(n) is int and 0 <= n < 2**60 for n in numbers):
        raise PickleError(f"expected a tensor's shape and strides, found {shown(shape)}")
    if not isinstance(storage, Storage) or dtype not in DTYPES.values():
        kind = storage.args[0] if isinstance(storage, StandIn) and storage.args else dtype
        named = f"a tensor of {kind}" if isinstance(kind, str) else "another tensor"
        return OtherTensor(named, tuple(shape))
    return Tensor(storage, dtype, offset, tuple(shape), tuple(strides))


def _numbers(found: Any) -> tuple[Any, ...]:
    if not isinstance(found, (tuple, list)) or len(found) > MOST_DIMENSIONS:
        raise PickleError(f"expected a tensor's shape and strides, found {shown(found)}")
    return tuple(found)


def _first(tensor: Any = None, *_: Any) -> Any:
    return tensor


def _rebuilt(function: Any, _kind: Any, args: Any, *_: Any) -> Any:
    return function(*_numbers(args)) if isinstance(function, Known) else None


def _storage_in(budget: Budget, raw: Any) -> Any:
    """Read a storage that pickle.dump embedded as a complete file; deeper nesting is not read."""
    if not isinstance(raw, bytes):
        raise PickleError("expected the bytes of a storage")
    budget.spend(PER_FILE)
    return _read_pickles(io.BytesIO(raw), KNOWN, budget)


def _quantized(_storage: Any, _offset: Any, shape: Any, *_: Any) -> OtherTensor:
    return OtherTensor("a quantized tensor", _numbers(shape))


def _sparse(*given: Any) -> OtherTensor:
    inside = [each for part in given if isinstance(part, tuple) for each in part]
    shapes = [each for each in inside if isinstance(each, (tuple, list))]
    return OtherTensor("a sparse tensor", _numbers(shapes[-1]) if shapes else ())


def _nested(*_: Any) -> OtherTensor:
    return OtherTensor("a nested tensor")


KNOWN: Mapping[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,  # from a TPU
    "torch._utils._rebuild_device_tensor_from_numpy": _first,
    "torch._utils._rebuild_xla_tensor": _first,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.nn.parameter.Parameter": _first,  # from PyTorch 0.x
    "torch._tensor._rebuild_from_type": _rebuilt,
    "torch._tensor._rebuild_from_type_v2": _rebuilt,
    "torch._utils._rebuild_qtensor": _quantized,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_sparse_csr_tensor": _sparse,
    "torch._utils._rebuild_nested_tensor": _nested,
    "torch.Size": _first,
}


def known(budget: Budget) -> dict[str, Callable[..., Any]]:
    """Return {name in a file: function called instead}, with a budget for embedded storages."""
    return {**KNOWN, "torch.storage._load_from_bytes": partial(_storage_in, budget)}
