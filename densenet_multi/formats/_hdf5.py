"""Read untrusted HDF5 files with h5py, on their own or inside a ``.keras`` archive.

Links, compressed or virtual arrays, and arrays that do not fit in the file are refused before
anything is allocated. Text attributes are searched for in the file's bytes, because the HDF5
library can hang or crash on a damaged attribute.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._installed import framework
from ..weights import WeightsError
from ._layouts import FROM_CHANNELS_LAST
from ._limits import LARGEST_FILE, check_size, is_bomb
from ._safetensors import from_bfloat16, to_float
from ._zips import entries_of, names_in_zip

WEIGHTS, CONFIG = "model.weights.h5", "config.json"  # inside a .keras file
MOST_OBJECTS = 20_000  # densenet264's full model has 5,000 groups and datasets
DEEPEST = 12
MAGIC = b"\x89HDF\r\n\x1a\n"
BFLOAT16 = "|V2"  # the dtype as h5py reports it


def is_keras(path: Path, head: bytes) -> bool:
    """Return whether a file is an HDF5 file or a ``.keras`` archive."""
    if head.startswith(MAGIC):
        return True
    if head[:4] != b"PK\x03\x04":
        return False
    try:
        return {WEIGHTS, CONFIG} <= set(names_in_zip(path))
    except WeightsError:
        return False


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, int]]:
    """Open an HDF5 file, or the one inside a ``.keras`` file; yield it and its size in bytes.

    Any HDF5 error, while opening or inside the ``with`` block, becomes ``WeightsError``.
    """
    check_size(path)
    with framework("keras", "h5py"):
        import h5py
    with path.open("rb") as start:
        is_zip = start.read(4) == b"PK\x03\x04"
    inside = io.BytesIO(member(path, WEIGHTS)) if is_zip else None
    size = len(inside.getbuffer()) if inside else path.stat().st_size
    try:
        with h5py.File(inside or path, "r") as file:
            yield file, size
    except (WeightsError, GeneratorExit):
        raise
    except Exception as error:  # noqa: BLE001  # HDF5 may raise anything on damage
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"expected an HDF5 file, found one that h5py cannot read ({first})"
        ) from None


def member(path: Path, name: str, largest: int = LARGEST_FILE) -> bytes:
    """Read a file inside a zip, check its CRC, and refuse a decompression bomb.

    Raises ``WeightsError`` if the file is missing, damaged, or larger than ``largest`` bytes.
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                info = entries_of(archive)[name]
                _check_packing(info, largest)
                return archive.read(info)
        except WeightsError:
            raise
        except KeyError:
            raise WeightsError(f"expected a .keras file, found a zip without {name}") from None
        except Exception as error:  # noqa: BLE001  # zlib and zipfile raise anything on damage
            raise WeightsError(f"expected a .keras file, found a damaged zip ({error})") from None


def _check_packing(info: zipfile.ZipInfo, largest: int) -> None:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise WeightsError(f"{info.filename}: expected a stored or deflated entry, found neither")
    packed = info.compress_size
    if info.file_size > largest or is_bomb(info.file_size, packed):
        raise WeightsError(
            f"{info.filename}: expected at most {largest:,} bytes, and at most 20 times the "
            f"compressed size, found {info.file_size:,} bytes compressed to {packed:,}"
        )


def walk(group: Any, place: str = "", seen: Iterator[int] | None = None) -> Iterator[Any]:
    """Yield (path, group or dataset) of everything below a group.

    Raises ``WeightsError`` for soft and external links, and too many or too deeply nested objects.
    """
    import h5py

    seen = seen or count(1)
    for key in group:
        inside = f"{place}/{key}" if place else key
        kind = group.get(key, getclass=True, getlink=True)
        if kind is not h5py.HardLink:
            raise WeightsError(f"{inside}: expected a group or a dataset, found a {kind.__name__}")
        if next(seen) > MOST_OBJECTS or inside.count("/") > DEEPEST:
            raise WeightsError(
                f"expected at most {MOST_OBJECTS:,} groups and datasets, {DEEPEST} deep, found more"
            )
        item = group[key]
        if not isinstance(item, h5py.Group | h5py.Dataset):
            found = type(item).__name__
            raise WeightsError(f"{inside}: expected a group or a dataset, found a {found}")
        yield inside, item
        if isinstance(item, h5py.Group):
            yield from walk(item, inside, seen)


def bytes_in(place: str, dataset: Any, size: int, *, scalar: bool = False) -> int:
    """Return a dataset's size in bytes; raise ``WeightsError`` unless it is a plain float array.

    ``size`` is the file's size in bytes. ``scalar`` also allows an array without dimensions.
    """
    if dataset.is_virtual or dataset.external or dataset.chunks:
        raise WeightsError(f"{place}: expected a contiguous array, found another layout")
    dtype = dataset.dtype
    if dtype.newbyteorder("<").str not in ("<f2", "<f4", "<f8", BFLOAT16):
        raise WeightsError(
            f"{place}: expected float64, float32, float16 or bfloat16, found {dtype}"
        )
    ranks = (*FROM_CHANNELS_LAST, 0) if scalar else FROM_CHANNELS_LAST
    if dataset.shape is None or dataset.ndim not in ranks or 0 in dataset.shape:
        raise WeightsError(f"{place}: expected 1, 2 or 4 dimensions, found shape {dataset.shape}")
    needed = int(math.prod(dataset.shape) * dtype.itemsize)
    stored = dataset.id.get_storage_size()
    if needed != stored or stored > size:
        raise WeightsError(
            f"{place}: expected an array that fits in the file, found shape {dataset.shape}, "
            f"{stored:,} bytes stored"
        )
    return needed


def read_array(dataset: Any) -> npt.NDArray[np.floating]:
    """Read an array in canonical layout and native byte order; float16 and bfloat16 as float32."""
    array = np.asarray(dataset[()])
    if array.dtype == BFLOAT16:
        array = from_bfloat16(array.view("<u2"))
    array = to_float(array.transpose(FROM_CHANNELS_LAST.get(array.ndim, ())))
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
