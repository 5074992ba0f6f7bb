"""Read {name: array} from the files that users of Flax (NNX or Linen) write.

A tree of arrays is stored as an Orbax folder, MessagePack, safetensors or a pickle of dictionaries;
an array's name is its path of keys, joined by dots. Only Orbax folders need a library (Orbax). No
code in a file is ever run.
Source: https://flax.readthedocs.io/en/latest/guides/checkpointing.html
"""

from __future__ import annotations

import json
import math
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .._files import check_file, put_in_place, read_file, resolved
from .._installed import framework
from .._pickles import BFLOAT16, PickleError, Reader, as_array, contents
from ..weights import WeightsError
from ._folders import OF_ZARR, STEP, orbax_item
from ._limits import LARGEST_FILE, LARGEST_METADATA, MOST_ARRAYS, check_size, is_bomb
from ._msgpack import is_msgpack, read_msgpack
from ._safetensors import from_bfloat16, is_safetensors, names_in_safetensors, read_safetensors

METADATA = "_METADATA"  # of an Orbax folder: JSON with the names of its arrays
TEXTS = (METADATA, STEP, "_sharding", *OF_ZARR)  # JSON files that Orbax reads in full
OF_METADATA = "array_metadatas"  # a folder with more metadata
AGGREGATE = "checkpoint"  # a MessagePack file in folders of older versions
AGAIN = "copy the folder again"
MOST_IN_ORBAX = 100_000  # files and folders; densenet264 + optimizer, a folder per array: 20,000
OPTIMIZERS = ("opt_state", "opt", "optimizer", "optimizer_state", "tx")
# attributes of NNX's State and Variables (_raw_value since Flax 0.12.1), and of JAX's random keys
OF_OBJECTS = ("_mapping", "raw_value", "_raw_value", "_base_array")
KERNEL = "kernel"  # Flax's name for the weight of a convolution or linear layer


def read_arrays(path: Path) -> dict[str, Any]:
    """Return {name: array} of a file or folder; a name is keys joined by dots or slashes.

    Raises ``WeightsError`` if the file is damaged or of another kind; ``OSError``;
    ``BackendNotInstalledError`` if a folder needs Orbax.
    """
    if path.is_dir():
        return _read_orbax(orbax_item(path))
    check_size(path)
    with path.open("rb") as file:
        head = file.read(512)
    if is_safetensors(head):
        return dict(read_safetensors(path)[1])
    if is_msgpack(head):
        return _joined(read_msgpack(path.read_bytes()))
    if _is_pickle(head):
        return _read_pickle(path)
    raise WeightsError(
        "expected a Flax file (safetensors, MessagePack, a pickle or an Orbax folder), found "
        "another kind of file"
    )


def names_of_flax(path: Path, head: bytes) -> list[str]:
    """Return the dotted names in a file or folder if it may be Flax's; otherwise none."""
    names: list[str] = []
    if path.is_dir():
        names = _names_in_orbax(orbax_item(path))
    elif is_safetensors(head):
        names = names_in_safetensors(path)
    elif is_msgpack(head):
        names = list(read_arrays(path))
    elif _is_pickle(head) and _mentions(path, KERNEL.encode()):
        with suppress(WeightsError):  # PyTorch's modules mention their kernel_size
            names = list(read_arrays(path))
    else:
        return []
    names = list(map(dotted, names))
    return names if path.is_dir() or any(name.endswith(f".{KERNEL}") for name in names) else []


def is_of_optimizer(name: str) -> bool:
    """Return whether a name belongs to an optimizer's state, which repeats the network's names."""
    return any(key in OPTIMIZERS for key in name.split("."))


def dotted(name: str) -> str:
    """Return a name with dots instead of slashes, and without NNX's last key, ``value``."""
    return name.replace("/", ".").removesuffix(".value")


def _joined(tree: Any) -> dict[str, Any]:
    return {".".join(keys): value for keys, value in leaves(tree)}


def leaves(tree: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (keys, array) of every array in nested dictionaries and lists."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, (*keys, str(key)))
    elif isinstance(tree, (list, tuple)):
        for i, value in enumerate(tree):
            yield from leaves(value, (*keys, str(i)))
    elif hasattr(tree, "shape"):
        yield keys, tree


# --- Pickles ------------------------------------------------------------------------------------


def _is_pickle(head: bytes) -> bool:
    """Return whether a file starts like a pickle, even a bare PyTorch one (without ``kernel``)."""
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def _mentions(path: Path, word: bytes) -> bool:
    check_size(path)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return content.find(word) >= 0


def _read_pickle(path: Path) -> dict[str, Any]:
    """Return {name: array} of a pickle's dictionaries and NNX objects (attributes are keys)."""
    found: dict[str, Any] = {}
    given: dict[str, str] = {}  # name -> full name in the file
    needed = 0
    try:
        with path.open("rb") as file:
            root = Reader(file).load()
        for keys, each in contents(root):
            array = as_array(each)
            if array is not None:
                name = ".".join(key for key in keys if key not in OF_OBJECTS)
                full = ".".join(keys)
                if given.setdefault(name, full) != full:
                    raise WeightsError(f"{full}: found twice, as {given[name]} too")
                found[name] = array
                needed += array.nbytes
    except PickleError as error:
        raise WeightsError(str(error)) from None
    if needed > path.stat().st_size:  # views may repeat a few numbers many times
        raise WeightsError(
            f"expected arrays no larger in total than the file, found {needed:,} bytes of arrays"
        )
    return {
        name: from_bfloat16(array["bfloat16"]) if array.dtype == BFLOAT16 else array
        for name, array in found.items()
    }


# --- Orbax --------------------------------------------------------------------------------------


def _names_in_orbax(path: Path) -> list[str]:
    """Return the names that a folder's metadata lists; none if it has no such metadata."""
    metadata = path / METADATA
    if not os.path.lexists(metadata):
        return []
    text = read_file(metadata, LARGEST_METADATA, WeightsError, AGAIN)
    try:
        tree = json.loads(text.decode())["tree_metadata"]
        return [".".join(key["key"] for key in entry["key_metadata"]) for entry in tree.values()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _size_of_folder(path: Path) -> int:
    """Return the total bytes of a folder's files, after checking that they are safe to read.

    Raises ``WeightsError`` if an entry is too large or not a file, or if the metadata is far larger
    than a network's. Orbax reads everything that it finds.
    """
    size = entries = 0
    for folder, folders, files in os.walk(path, followlinks=True):  # links may form a cycle
        entries += len(folders) + len(files)
        if entries > MOST_IN_ORBAX:
            raise WeightsError(f"{path}: expected at most {MOST_IN_ORBAX:,} files, found more")
        for name in files:
            is_metadata = name in TEXTS or Path(folder).name == OF_METADATA
            largest = LARGEST_METADATA if is_metadata else LARGEST_FILE
            size += check_file(Path(folder, name), largest, error=WeightsError, advice=AGAIN)
    if (count := len(_names_in_orbax(path))) > MOST_ARRAYS:
        raise WeightsError(f"{METADATA}: expected at most {MOST_ARRAYS:,} arrays, found {count:,}")
    if (path / AGGREGATE).is_file():
        check_size(path / AGGREGATE)
        read_msgpack((path / AGGREGATE).read_bytes())
    return size


def _read_orbax(path: Path) -> dict[str, Any]:
    packed = _size_of_folder(path)
    with framework("flax", "orbax"):
        import orbax.checkpoint as ocp
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            known = checkpointer.metadata(path.resolve()).item_metadata
            arrays = [leaf for _, leaf in leaves(getattr(known, "tree", known))]
            needed = sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in arrays)
            too_much = is_bomb(needed, packed)
            tree = {} if too_much else checkpointer.restore(path.resolve())
    except Exception as error:  # noqa: BLE001  # Orbax may raise anything on other folders
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"expected an Orbax checkpoint, found a folder that Orbax cannot read ({first})"
        ) from None
    if too_much:
        raise WeightsError(
            f"expected arrays that fit in {packed:,} bytes of files, found {needed:,} bytes"
        )
    return _joined(tree)


def write_orbax(path: Path, tree: Mapping[str, Any]) -> None:
    """Write nested dictionaries of arrays as an Orbax folder, atomically.

    Raises ``FileExistsError`` if the path exists; ``BackendNotInstalledError`` if Orbax is missing.
    """
    with framework("flax", "orbax"):
        import orbax.checkpoint as ocp
    if path.exists():
        raise FileExistsError(f"{path}: expected a folder that does not exist yet")
    target = resolved(path)
    with (  # on a full disk, Orbax leaves a partial folder
        tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder,
        ocp.StandardCheckpointer() as checkpointer,
    ):
        checkpointer.save(Path(folder, target.name), tree)
        checkpointer.wait_until_finished()
        put_in_place(Path(folder, target.name), target)


def nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Convert {"a.b": array} to {"a": {"b": array}}."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *layers, leaf = name.split(".")
        branch = tree
        for layer in layers:
            branch = branch.setdefault(layer, {})
        branch[leaf] = array
    return tree
