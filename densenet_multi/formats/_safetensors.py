"""Safetensors files of any kind, read and written with every check.

The format: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._files import replacing
from ..weights import Weights, WeightsError

if version("safetensors") == "0.8.0":
    raise ImportError(
        "safetensors 0.8.0 saves arrays that are not contiguous with other values "
        "(https://github.com/huggingface/safetensors/issues/825); type: "
        "pip install 'safetensors!=0.8.0'"
    )

LARGEST_FILE = 2**32  # bytes; densenet264 in float64 has 0.3 * 10**9
LARGEST_HEADER = 2**23  # bytes; densenet264's has 0.2 * 10**6, one of 10,000 layers 7 * 10**6


def write_safetensors(
    path: str | os.PathLike[str],
    arrays: Mapping[str, npt.NDArray[Any]],
    metadata: dict[str, str] | None = None,
) -> None:
    """Any arrays, whole or not at all. Raises ``OSError``."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # an array's memory is written as it lies, so each must lie in C order
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with replacing(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata=metadata)
        except SafetensorError as error:  # which is no OSError, not even on a full disk
            raise OSError(f"{path}: could not be written ({error})") from None


@contextmanager
def open_safetensors(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Safetensors' own reader, which checks the header and every offset.

    Raises ``WeightsError`` for another kind of file, one that is damaged or larger than 4 GiB, or
    whose header is larger than 8 MiB; ``OSError``.
    """
    from safetensors import SafetensorError, safe_open

    size = check_size(path)
    with Path(path).open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if LARGEST_HEADER < header < size:  # names of a million tensors take a gigabyte of memory
        found = f"found one of {header:,} bytes"
        raise WeightsError(
            f"{path}: expected a header of at most {LARGEST_HEADER:,} bytes, {found}"
        )
    try:
        with safe_open(path, framework="numpy") as opened:
            yield opened
    except SafetensorError as error:
        expected = "expected a safetensors file, found another or a damaged one"
        raise WeightsError(f"{path}: {expected} ({error})") from None


def check_size(path: str | os.PathLike[str]) -> int:
    """The size of a file in bytes. Raises ``WeightsError`` if it is larger than 4 GiB, ``OSError``
    if it cannot be read."""
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
    if size > LARGEST_FILE:
        raise WeightsError(f"{path}: expected at most {LARGEST_FILE:,} bytes, found {size:,}")
    return size


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, str], Weights]:
    """Metadata and float tensors of any safetensors file; float16 and bfloat16 become float32.

    PyTorch's counters are left out. Raises ``WeightsError`` as ``open_safetensors``, and for other
    tensors that are not floating point.
    """
    with open_safetensors(path) as file:
        metadata = dict(file.metadata() or {})
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        others = [f"{n}: found {kind}" for n, kind in kinds.items() if not _is_readable(n, kind)]
        if others:
            listed = "\n  ".join(others)
            raise WeightsError(f"{path}: expected {', '.join(FLOATS)}\n  {listed}")
        kinds = {name: kind for name, kind in kinds.items() if kind in FLOATS}
        arrays = {n: file.get_tensor(n) for n, kind in kinds.items() if kind != "BF16"}
    if "BF16" in kinds.values():
        arrays |= _read_bfloat16(Path(path))
    return metadata, {name: to_float(arrays[name]) for name in kinds}


FLOATS = ("F64", "F32", "F16", "BF16")


def to_float(array: Any) -> Any:
    """float16 and bfloat16 as float32, which holds both exactly; anything else as it is."""
    array = np.asarray(array)
    narrow = array.dtype == np.float16 or array.dtype.name == "bfloat16"
    return array.astype(np.float32) if narrow else array


def from_bfloat16(halves: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """As float32, of which the 16 bits of a bfloat16 are the upper half."""
    wide: npt.NDArray[np.float32] = (halves.astype(np.uint32) << 16).view(np.float32)
    return wide


def _is_readable(name: str, kind: str) -> bool:
    return kind in FLOATS or name.endswith("num_batches_tracked")


def _read_bfloat16(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """NumPy has no such type, and so no reader of it. The header was checked before."""
    found = {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        for name, entry in header.items():
            if entry.get("dtype") == "BF16":
                start, end = entry["data_offsets"]
                file.seek(8 + length + start)
                halves = np.frombuffer(file.read(end - start), "<u2")
                found[name] = from_bfloat16(halves).reshape(entry["shape"])
    return found
