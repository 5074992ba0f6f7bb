"""Read, validate and write safetensors files of any kind.

Metadata entries distinguish a portable file from the state of a training run.
The format: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._files import replacing
from ..weights import Weights, WeightsError
from ._limits import check_size

if version("safetensors") == "0.8.0":
    raise ImportError(
        "expected another version of safetensors, found 0.8.0, which saves wrong values for arrays "
        "that are not contiguous (https://github.com/huggingface/safetensors/issues/825); type: "
        "pip install 'safetensors!=0.8.0'"
    )

LARGEST_HEADER = 2**23  # bytes; densenet264 needs 0.2 * 10**6, 10,000 layers need 7 * 10**6
PORTABLE_ENTRY = "densenet_multi"  # in the metadata of a portable file: its spec and usage
ENDS = re.compile(
    rb'"data_offsets"\s*:\s*\[\s*\d+\s*,\s*(\d{1,15})\s*\]'
)  # the end of each tensor's bytes, in a header
TRAINING_STATE_ENTRY = "densenet_multi_run"  # in training states' metadata (training/state.py)


def write_safetensors(
    path: str | os.PathLike[str],
    arrays: Mapping[str, npt.NDArray[Any]],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write arrays to a file atomically. Raises ``OSError``."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # safetensors writes an array's memory unchanged, so each must be in C order
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with replacing(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata=metadata)
        except SafetensorError as error:  # safetensors raises no OSError, not even on a full disk
            raise OSError(f"{path}: could not be written ({error})") from None


@contextmanager
def open_safetensors(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a file with safetensors' own reader, which validates the header and every offset.

    Raises ``WeightsError`` if the file is not safetensors, is damaged, is larger than 4 GiB or has
    a header larger than 8 MiB; ``OSError`` if it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    size = check_size(path)
    with Path(path).open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if LARGEST_HEADER < header < size:  # a million tensor names need a gigabyte of memory
        found = f"found one of {header:,} bytes"
        raise WeightsError(
            f"{path}: expected a header of at most {LARGEST_HEADER:,} bytes, {found}"
        )
    try:
        with safe_open(path, framework="numpy") as opened:
            yield opened
    except SafetensorError as error:
        found = (
            _missing_bytes(Path(path), size) or f"another kind of file, or a damaged one ({error})"
        )
        raise WeightsError(f"{path}: expected a safetensors file, found {found}") from None
    except OSError as error:
        if error.filename is None:  # errors of safetensors do not name the file
            raise OSError(f"{path}: {error}") from None
        raise


def _missing_bytes(path: Path, size: int) -> str | None:
    """Return how much of a truncated file is present, in words; None if nothing is missing."""
    with path.open("rb") as file:
        head = file.read(9)
        length = int.from_bytes(head[:8], "little")
        if not is_safetensors(head) or length > LARGEST_HEADER:
            return None
        header = head[8:] + file.read(length - 1)
    ends = [int(end) for end in ENDS.findall(header)] if len(header) == length else [0]
    promised = 8 + length + max(ends, default=0)
    if promised <= size:
        return None
    least = "" if len(header) == length else "at least "
    return f"{size:,} of {least}{promised:,} bytes; download or copy it again"


def is_safetensors(head: bytes) -> bool:
    """Return whether a file starts like safetensors: the header's length, then JSON."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**27


def names_in_safetensors(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the tensors in a safetensors file.

    Raises the same errors as ``open_safetensors``.
    """
    with open_safetensors(path) as file:
        return list(file.keys())


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, str], Weights]:
    """Read the metadata and the float tensors of any safetensors file.

    float16 and bfloat16 become float32. PyTorch's counters are omitted.

    Raises ``WeightsError`` as ``open_safetensors`` does, and for any other tensor that is not
    floating point; ``OSError`` if the file cannot be read.
    """
    with open_safetensors(path) as file:
        metadata = dict(file.metadata() or {})
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        others = [f"{n}: found {kind}" for n, kind in kinds.items() if not _is_readable(n, kind)]
        if others:
            listed = "\n  ".join(others)
            raise WeightsError(f"{path}: expected tensors of type {', '.join(FLOATS)}\n  {listed}")
        kinds = {name: kind for name, kind in kinds.items() if kind in FLOATS}
        arrays = {n: file.get_tensor(n) for n, kind in kinds.items() if kind != "BF16"}
    if "BF16" in kinds.values():
        arrays |= _read_bfloat16(Path(path))
    return metadata, {name: to_float(arrays[name]) for name in kinds}


FLOATS = ("F64", "F32", "F16", "BF16")


def to_float(array: Any) -> Any:
    """Convert float16 and bfloat16 to float32, without loss; return anything else as is, even if
    it is not an array."""
    try:
        array = np.asarray(array)
    except Exception:  # noqa: BLE001  # NumPy calls the object's methods, which may raise anything
        return array
    narrow = array.dtype == np.float16 or array.dtype.name == "bfloat16"
    return array.astype(np.float32) if narrow else array


def from_bfloat16(halves: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Convert bfloat16 bits to float32: they are the upper half of the float32's 32 bits."""
    wide: npt.NDArray[np.float32] = (halves.astype(np.uint32) << 16).view(np.float32)
    return wide


def _is_readable(name: str, kind: str) -> bool:
    return kind in FLOATS or name.endswith("num_batches_tracked")


def _read_bfloat16(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Read the bfloat16 tensors, which safetensors cannot return as NumPy arrays.

    The header must have been validated.
    """
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
