"""Keras' files of weights, HDF5 or a zip with HDF5 inside, for both of its DenseNets.

Keras 3 numbers the layers of each class, ``layers/conv2d_10/vars/0``; the numbers decide, as in
Keras itself. Older files have names, ``conv2_block1_1_conv/.../kernel:0``. Kernels are HWIO, the
classifier's (in, out). Files are read and written with h5py: no model is built, nothing in a file
is executed. No text attribute is read, because HDF5's library can hang or crash on a damaged one.
Source: https://github.com/keras-team/keras/blob/master/keras/src/saving/saving_lib.py
"""

from __future__ import annotations

import io
import json
import math
import mmap
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import bad
from .._files import replacing
from .._installed import framework
from ..checkpoint import Checkpoint
from ..manifest import layers
from ..spec import BatchNormSpec, ConvSpec
from ..weights import Weights, WeightsError
from ._keras_declared import Declared
from ._layouts import FROM_CHANNELS_LAST, TO_CHANNELS_LAST
from ._limits import LARGEST_FILE, check_size, is_bomb
from ._notes import differences
from ._safetensors import from_bfloat16, to_float

EPSILON, DECAY = 1.001e-5, 0.99
WEIGHTS, CONFIG = "model.weights.h5", "config.json"  # inside a .keras file
LEAVES = {  # Keras 3's class -> its variables' canonical names, in the order of their numbers
    "conv2d": ("weight", "bias"),
    "batch_normalization": ("weight", "bias", "running_mean", "running_var"),
    "dense": ("weight", "bias"),
}
OLD_LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def read_weights(path: Path, canonical: Callable[[str], str | None] = lambda _: None) -> Weights:
    """{canonical name: array in canonical layout}; a tensor of no DenseNet keeps its own name.

    ``canonical`` gives the canonical name of a layer that has a name in the file; None: unknown.
    """
    with opened(path) as (file, size):
        found = list(_variables(file, size, canonical))
    numbered = _names_by_number([v for v in found if v.layer is None])
    weights: dict[str, Any] = {}
    for variable in found:
        layer = variable.layer or numbered.get(variable.place, variable.place)
        name = f"{layer}.{variable.leaf}"
        if name in weights:
            raise WeightsError(f"{variable.place}: found twice, as {name} too")
        weights[name] = variable.array
    return weights


def read_declared(path: Path, declared: Declared) -> tuple[Weights, dict[str, tuple[Any, Any]]]:
    """The declared layers' tensors, and {place: (mean, variance)} of what normalizes pixels.

    Layers are found by their place in a file of Keras 3, and by their name in an older one.
    """
    places = {layer.place: canonical for canonical, layer in declared.layers.items()}
    names = {layer.name: canonical for canonical, layer in declared.layers.items()}
    with opened(path) as (file, size):
        found = list(_variables(file, size, names.get))
    weights: Weights = {}
    before: dict[str, dict[str, Any]] = {}
    for variable in found:
        canonical = variable.layer if variable.layer in declared.layers else None
        canonical = places.get(variable.place, canonical)
        if canonical is not None:
            name = f"{canonical}.{variable.leaf}"
            if name in weights:
                raise WeightsError(f"{variable.place}: found twice, as {name} too")
            weights[name] = variable.array
        elif _class_in(variable.place.rpartition("/")[2]) == "normalization":
            before.setdefault(variable.place, {})[variable.leaf] = variable.array
    stored = {
        place: (leaves.get("0", leaves.get("mean")), leaves.get("1", leaves.get("variance")))
        for place, leaves in before.items()
    }
    return weights, stored


def declaration(path: Path) -> Any | None:
    """What a whole model's file says about its layers; None for a file of weights alone.

    Raises ``WeightsError`` where the declaration is damaged.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    try:
        if is_zip:
            return json.loads(_member(path, CONFIG))
        with opened(path) as (opened_file, _):
            if "model_config" not in opened_file.attrs:
                return None
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as texts,
        ):
            return _json_in(texts)
    except (ValueError, RecursionError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"expected a model's declaration, found damaged JSON ({error})"
        ) from None


def _json_in(texts: mmap.mmap) -> Any:
    """The declaration in an HDF5 file's bytes: a text in one piece, after its length.

    Not read through HDF5, whose library can hang or crash on the text of a damaged file.
    """
    start = -1
    while (start := texts.find(b'{"class_name"', start + 1)) >= 0:
        length = int.from_bytes(texts[start - 8 : start], "little")
        if length <= len(texts) - start:
            with suppress(ValueError):
                found = json.loads(texts[start : start + length].rstrip(b"\0"))
                if isinstance(found, dict) and "config" in found:
                    return found
    raise ValueError("no text of an attribute model_config")


def layers_have_names(path: Path) -> bool:
    """Whether a file of weights alone stores how its layers are called."""
    with opened(path) as (file, _):
        if "layer_names" in file.attrs or "model_weights" in file:
            return True
        groups = (item for place, item in _walk(file) if place.endswith("/vars"))
        return any("name" in group.attrs for group in groups)


def write_weights(
    path: Path,
    checkpoint: Checkpoint,
    native: Callable[[str], str],
    within: str = "",
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write the file of Keras 3's ``save_weights``, without the groups that would be empty.

    Raises ``ConfigError`` where Keras would not recognize a file of this name;
    ``BackendNotInstalledError`` where h5py is missing; ``OSError`` where the file cannot be
    written.

    Arguments:
        path: ends in ``.weights.h5``.
        checkpoint: the weights.
        native: gives a layer's name in Keras.
        within: the group of a model inside the model.
        more: {place: value}, written too.
    """
    if not path.name.endswith(".weights.h5"):
        raise bad("name", str(path), "one that ends in .weights.h5, because Keras goes by it")
    with framework("keras", "h5py"):
        import h5py
    numbers: dict[str, Iterator[int]] = {name: count() for name in LEAVES}
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for layer, piece in layers(checkpoint.spec):
            kind = _class_of(piece)
            number = next(numbers[kind])
            place = f"layers/{kind}{f'_{number}' if number else ''}/vars"
            group = file.create_group(place if kind == "dense" else within + place)
            group.attrs["name"] = native(layer)
            for i, leaf in enumerate(LEAVES[kind]):
                if (array := checkpoint.weights.get(f"{layer}.{leaf}")) is not None:
                    group[str(i)] = array.transpose(TO_CHANNELS_LAST[array.ndim])
        for place, value in (more or {}).items():
            file[place] = value


def different_conventions(checkpoint: Checkpoint, models: str) -> list[str]:
    """A sentence for each convention in which Keras' models differ from these weights."""
    return differences(checkpoint, models, (EPSILON, DECAY), "Keras'", "biased")


def _class_of(piece: object) -> str:
    if isinstance(piece, ConvSpec):
        return "conv2d"
    return "batch_normalization" if isinstance(piece, BatchNormSpec) else "dense"


# --- The file -----------------------------------------------------------------------------------

MOST_OBJECTS = 20_000  # densenet264's full model has 5,000 groups and datasets
DEEPEST = 12
MAGIC = b"\x89HDF\r\n\x1a\n"
BFLOAT16 = "|V2"  # what h5py makes of it
LEFT_OUT = ("optimizer/", "optimizer_weights/")


@dataclass(frozen=True)
class Variable:
    """One variable: its layer's ``place`` in the file, the canonical ``layer`` if it has a name,
    its canonical ``leaf``, its array in canonical layout."""

    place: str
    layer: str | None
    leaf: str
    array: npt.NDArray[np.floating]


def is_keras(path: Path, head: bytes) -> bool:
    """Whether it is HDF5, or a ``.keras`` archive."""
    if head.startswith(MAGIC):
        return True
    if head[:4] != b"PK\x03\x04":
        return False
    try:
        return {WEIGHTS, CONFIG} <= set(zip_members(path))
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False


def zip_members(path: Path) -> dict[str, zipfile.ZipInfo]:
    """What is in a zip archive, by names with "/", also where Windows wrote them."""
    with zipfile.ZipFile(path) as archive:
        return {info.filename.replace("\\", "/"): info for info in archive.infolist()}


def names_in(path: Path, head: bytes, names: Iterable[bytes]) -> set[bytes]:
    """The names among these that a Keras file contains as text; none for any other file.

    Raises ``WeightsError`` for a damaged ``.keras`` file.
    """
    if head.startswith(MAGIC):
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as texts,
        ):
            return {name for name in names if texts.find(name) >= 0}
    config = _member(path, CONFIG) if is_keras(path, head) else b""
    return {name for name in names if name in config}


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, int]]:
    """Open an HDF5 file, or the one inside a ``.keras`` file; yield it and its size in bytes.

    Whatever HDF5 finds wrong with it, here or inside the block, becomes ``WeightsError``.
    """
    check_size(path)
    with framework("keras", "h5py"):
        import h5py
    with path.open("rb") as start:
        is_zip = start.read(4) == b"PK\x03\x04"
    inside = io.BytesIO(_member(path, WEIGHTS)) if is_zip else None
    size = len(inside.getbuffer()) if inside else path.stat().st_size
    try:
        with h5py.File(inside or path, "r") as file:
            yield file, size
    except (WeightsError, GeneratorExit):
        raise
    except Exception as error:  # noqa: BLE001  # whatever HDF5 meets in a damaged file
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"expected an HDF5 file, found one that h5py does not read ({first})"
        ) from None


def _member(path: Path, name: str) -> bytes:
    """Read a file inside a zip, check its CRC, and refuse a decompression bomb."""
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                entries = {i.filename.replace("\\", "/"): i for i in archive.infolist()}
                info = entries[name]
                _check_packing(info, path.stat().st_size)
                return archive.read(info)
        except WeightsError:
            raise
        except KeyError:
            raise WeightsError(f"expected a .keras file, found a zip without {name}") from None
        except Exception as error:  # noqa: BLE001  # whatever zlib and zipfile meet in a damaged file
            raise WeightsError(f"expected a .keras file, found a damaged zip ({error})") from None


def _check_packing(info: zipfile.ZipInfo, size: int) -> None:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise WeightsError(f"{info.filename}: expected it stored or deflated in the zip")
    packed = min(info.compress_size, size)
    if is_bomb(info.file_size, packed):
        raise WeightsError(
            f"{info.filename}: expected at most {LARGEST_FILE:,} bytes and 20 times those that "
            f"they are packed in, found {info.file_size:,} packed in {packed:,}"
        )


def _walk(group: Any, place: str = "", seen: Iterator[int] | None = None) -> Iterator[Any]:
    """(path, group or dataset) of everything below; links to other places and files are refused."""
    import h5py

    seen = seen or count(1)
    for key in group:
        inside = f"{place}/{key}" if place else key
        kind = group.get(key, getclass=True, getlink=True)
        if kind is not h5py.HardLink:
            raise WeightsError(f"{inside}: expected a group or a dataset, found a {kind.__name__}")
        if next(seen) > MOST_OBJECTS or inside.count("/") > DEEPEST:
            raise WeightsError(
                f"expected at most {MOST_OBJECTS:,} groups and datasets, {DEEPEST} deep; found more"
            )
        item = group[key]
        if not isinstance(item, h5py.Group | h5py.Dataset):
            found = type(item).__name__
            raise WeightsError(f"{inside}: expected a group or a dataset, found a {found}")
        yield inside, item
        if isinstance(item, h5py.Group):
            yield from _walk(item, inside, seen)


def _variables(file: Any, size: int, canonical: Callable[[str], str | None]) -> Iterator[Variable]:
    import h5py

    total = 0
    for place, item in _walk(file):
        *parts, leaf = place.split("/")
        if not isinstance(item, h5py.Dataset) or place.startswith(LEFT_OUT):
            continue
        if "seed_generator" in parts:  # a Dropout's random state
            continue
        if _is_count(parts, leaf):
            continue
        total += _bytes_in(place, item, size)
        if total > size:
            raise WeightsError(f"{place}: expected tensors that fit in the file together")
        if parts[-1:] == ["vars"]:
            leaves = LEAVES.get(_class_in(parts[-2]), ()) if len(parts) > 1 else ()
            if re.fullmatch(r"\d", leaf) and int(leaf) < len(leaves):
                leaf = leaves[int(leaf)]
            yield Variable("/".join(parts[:-1]), None, leaf, _array(item))
        else:
            pairs = ["/".join(pair) for pair in pairwise(parts)]  # conv1/conv is one name
            named = [layer for name in [*pairs, *parts] if (layer := canonical(name))]
            inside = "/".join(parts) or "the file"
            plain = leaf.partition(":")[0]
            layer = named[0] if named else inside
            yield Variable(inside, layer, OLD_LEAVES.get(plain, plain), _array(item))


def _is_count(parts: list[str], leaf: str) -> bool:
    """Whether it counts what a Normalization has seen: an integer."""
    classes = [_class_in(part) for part in parts]
    return "normalization" in classes and leaf in ("2", "count", "count:0")


def _class_in(group: str) -> str:
    """``conv2d`` of ``conv2d_10``."""
    return re.sub(r"_\d+$", "", group)


def _bytes_in(place: str, dataset: Any, size: int) -> int:
    """The bytes that a dataset takes in the file; anything but plain floats is refused."""
    if dataset.is_virtual or dataset.external or dataset.chunks:
        raise WeightsError(f"{place}: expected an array stored in one piece, found another kind")
    dtype = dataset.dtype
    if dtype.newbyteorder("<").str not in ("<f2", "<f4", "<f8", BFLOAT16):
        raise WeightsError(
            f"{place}: expected float64, float32, float16 or bfloat16, found {dtype}"
        )
    if dataset.shape is None or dataset.ndim not in FROM_CHANNELS_LAST or 0 in dataset.shape:
        raise WeightsError(f"{place}: expected 1, 2 or 4 dimensions, found shape {dataset.shape}")
    needed = int(math.prod(dataset.shape) * dtype.itemsize)
    stored = dataset.id.get_storage_size()
    if needed != stored or stored > size:
        raise WeightsError(
            f"{place}: expected an array that fits in the file, found shape {dataset.shape}, "
            f"{stored:,} bytes stored"
        )
    return needed


def _array(dataset: Any) -> npt.NDArray[np.floating]:
    """Read an array in canonical layout and native byte order, float16 and bfloat16 as float32."""
    array = dataset[()]
    if array.dtype == BFLOAT16:
        array = from_bfloat16(array.view("<u2"))
    array = to_float(array.transpose(FROM_CHANNELS_LAST[array.ndim]))
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


# --- Numbers -------------------------------------------------------------------------------------


def _names_by_number(found: list[Variable]) -> dict[str, str]:
    """{place: canonical layer} of numbered layers; their numbers follow the order of execution.

    A 1x1 convolution before a 3x3 is a dense layer's first one, any other a transition's.
    """
    sizes = {v.place: v.array.shape[-1] for v in found if v.leaf == "weight"}
    places: dict[str, list[str]] = {kind: [] for kind in LEAVES}
    for place in sorted(sizes, key=_number_in):
        places.get(_class_in(place.rpartition("/")[2]), []).append(place)
    kernels = [sizes[place] for place in places["conv2d"]]
    convs, norms = ["features.conv0"], ["features.norm0"]
    block, layer = 1, 0
    for kernel, following in pairwise([*kernels[1:], 0]):
        if following == 3:
            layer += 1
            place = f"features.denseblock{block}.denselayer{layer}"
            convs += [f"{place}.conv1", f"{place}.conv2"]
            norms += [f"{place}.norm1", f"{place}.norm2"]
        elif kernel == 1:
            convs.append(f"features.transition{block}.conv")
            norms.append(f"features.transition{block}.norm")
            block, layer = block + 1, 0
    norms.append("features.norm5")
    has_body = places["conv2d"] or places["batch_normalization"]  # else it is a preset's head
    expected = {
        "conv2d": convs if has_body else [],
        "batch_normalization": norms if has_body else [],
        "dense": ["classifier"] if places["dense"] else [],
    }
    models = {place.rpartition("/")[0] for kind in list(LEAVES)[:2] for place in places[kind]}
    counted = [len(places[kind]) for kind in LEAVES]
    if len(models) > 1 or counted != [len(names) for names in expected.values()]:
        convolutions, normalisations, linear = counted
        raise WeightsError(
            f"expected a DenseNet's layers, found {convolutions} convolutions, {normalisations} "
            f"batch normalisations and {linear} linear layers in {len(models)} model(s)"
        )
    pairs = (zip(places[kind], expected[kind], strict=True) for kind in LEAVES)
    return dict(chain.from_iterable(pairs))


def _number_in(place: str) -> int:
    match = re.search(r"_(\d{1,6})$", place)
    return int(match[1]) if match else 0
