"""Read and write ``.params`` files of MXNet Gluon's model zoo, and read others, without MXNet.

MXNet is retired, and its reader trusts its input. A file is a list of arrays as C structs, then a
list of their names. Names are structural (``features.0.weight``, from ``save_parameters``) or
prefixed (``densenet0_conv0_weight``, from ``collect_params().save``, ``export``, and the zoo's own
downloads). Models of this package and of the DenseNet chapter in Dive into Deep Learning are read
too; files are written only for the zoo's models.
Source: https://github.com/apache/mxnet/blob/1.9.1/src/ndarray/ndarray.cc (NDArray::Save) and
https://github.com/apache/mxnet/blob/1.9.1/python/mxnet/gluon/model_zoo/vision/densenet.py
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._files import replacing
from ..checkpoint import Checkpoint
from ..manifest import shape_trace, tensors
from ..spec import DenseNetConfig, DenseNetSpec
from ..weights import WeightsError
from ._chapter import NOTE, chapter_names, names_in_order
from ._found import no_part
from ._limits import check_size
from ._networks import find_network
from ._notes import assumed, differences, unstored
from ._stated import NOTHING, Stated
from .recognize import checkpoint_of

BACKEND = "gluon"
EPSILON, DECAY = 1e-5, 0.9  # MXNet's defaults, which the zoo's models use
LIST_MAGIC = 0x112
ARRAY_MAGIC = {0xF993FAC8: "V1", 0xF993FAC9: "V2", 0xF993FACA: "V3"}
DTYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8"}
MOST_ARRAYS = 100_000
LEAF = {  # kind of tensor -> Gluon's leaf
    "norm.weight": "gamma",
    "norm.bias": "beta",
    "norm.running_mean": "running_mean",
    "norm.running_var": "running_var",
}
INSIDE = {"norm1": 0, "conv1": 2, "norm2": 3, "conv2": 5}  # a layer's index in its Sequential


def looks_like(path: Path, head: bytes) -> bool:
    """Return whether a file starts with the magic number of MXNet's list of arrays."""
    return head[:8] == struct.pack("<Q", LIST_MAGIC)


def read(path: Path, stated: Stated = NOTHING) -> Checkpoint:
    """Read the weights; their running variances are biased, as MXNet computes them on a CPU."""
    check_size(path)
    with path.open("rb") as file:
        size = path.stat().st_size
        arrays = dict(_arrays(file, size))
    notes = []
    if any(name.startswith(("arg:", "aux:")) for name in arrays):
        notes.append("the prefixes arg: and aux: of an exported model were removed")
        arrays = {name.partition(":")[2]: array for name, array in arrays.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    found, whose, more = _named(shapes, stated.prefix)
    weights = {found[name]: array for name, array in arrays.items() if name in found}
    known = {"bn_eps": EPSILON, "bn_decay": DECAY}
    return checkpoint_of(weights, "biased", f"{whose}: {path.name}", [*notes, *more], **known)


def write(path: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Write a file for ``load_parameters`` of the zoo's model of the same size."""
    config = checkpoint.spec.config
    if _is_no_zoo_network(config):
        raise WeightsError(
            f"{path}: expected a network of the zoo's kind (7x7 stem, bottlenecks, no biases on "
            f"convolutions, average pooling), found {config}"
        )
    structural = structural_names(checkpoint.spec)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<QQQ", LIST_MAGIC, 0, len(structural)))
        for canonical in structural:
            array = checkpoint.weights[canonical]
            kind = {"float32": 0, "float64": 1}[array.dtype.name]
            file.write(struct.pack("<IiI", 0xF993FAC9, 0, array.ndim))  # V2, dense
            file.write(struct.pack(f"<{array.ndim}q", *array.shape))
            file.write(struct.pack("<iii", 1, 0, kind))  # CPU 0, type
            file.write(np.ascontiguousarray(array, DTYPES[kind]).tobytes())
        file.write(struct.pack("<Q", len(structural)))
        for name in structural.values():
            file.write(struct.pack("<Q", len(name)) + name.encode())
    return (
        *differences(
            checkpoint,
            "the zoo's models",
            (EPSILON, DECAY),
            "MXNet's",
            "biased",
            where=" on the CPU",
        ),
        "the zoo's models end in a fixed 7x7 pooling: they accept images of 221 to 252 pixels",
        *unstored(checkpoint),
    )


def library_logits(
    path: Path, checkpoint: Checkpoint, images: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], str]:
    """Load the file into the zoo's own model; return the model's logits and name.

    Raises ``LookupError`` if that model cannot represent this network or accept these images.
    """
    import mxnet as mx
    from mxnet.gluon.model_zoo import vision

    config = checkpoint.spec.config
    shape = dict(shape_trace(checkpoint.spec, *images.shape[2:]))["norm5"]
    if _is_no_zoo_network(config) or not config.num_classes or shape[1:] != (7, 7):
        raise LookupError
    with mx.name.NameManager():
        model = vision.DenseNet(
            config.num_init_features,
            config.growth_rate,
            config.block_config,
            config.bn_size,
            classes=config.num_classes,
        )
    model.cast(checkpoint.weights["classifier.weight"].dtype)
    load_list = model.collect_params().load  # expects prefixed names
    for load in (model.load_parameters, load_list):
        with suppress(AssertionError, ValueError, OSError, mx.MXNetError):
            load(str(path), cast_dtype=True)
            break
    else:  # MXNet does not know these names
        raise LookupError
    x = mx.nd.from_numpy(images.astype(checkpoint.weights["classifier.weight"].dtype), False)
    return model(x).asnumpy(), f"the Gluon zoo of MXNet {mx.__version__}"


def structural_names(spec: DenseNetSpec) -> dict[str, str]:
    """Return {canonical name: the zoo's structural name} of every tensor, in the zoo's order."""
    blocks = len(spec.stages)
    found = {}
    for name, info in tensors(spec).items():
        *layer, leaf = name.split(".")
        leaf = LEAF.get(info.kind, leaf)
        if layer == ["classifier"]:
            place = "output"
        elif layer[-1] in ("conv0", "norm0"):
            place = f"features.{0 if layer[-1] == 'conv0' else 1}"
        elif layer[-1] == "norm5":
            place = f"features.{4 + 2 * blocks - 1}"
        elif layer[1].startswith("transition"):
            at = 5 + 2 * (int(layer[1].removeprefix("transition")) - 1)
            place = f"features.{at}.{0 if layer[-1] == 'norm' else 2}"
        else:
            at = 4 + 2 * (int(layer[1].removeprefix("denseblock")) - 1)
            number = int(layer[2].removeprefix("denselayer")) - 1
            place = f"features.{at}.{number}.1.{INSIDE[layer[3]]}"
        found[name] = f"{place}.{leaf}"
    return found


def _is_no_zoo_network(config: DenseNetConfig) -> bool:
    pools = {config.transition_pool, config.global_pool}
    fits = config.stem == "imagenet" and config.bn_size and not config.conv_bias
    return not fits or pools != {"avg"}


# --- Names --------------------------------------------------------------------------------------

BACK = {place: layer for layer, place in INSIDE.items()}
ZOO, OTHERS = "MXNet Gluon zoo", "MXNet Gluon"  # recorded as ``Usage.source``
NUMBERED = re.compile(r"(?P<layer>\w*?(?P<kind>batchnorm|conv|dense)(?P<number>\d+))_(?P<leaf>\w+)")
CANONICAL_LEAF = {leaf: kind.partition(".")[2] for kind, leaf in LEAF.items()}


def _named(
    shapes: Mapping[str, tuple[int, ...]], prefix: str | None
) -> tuple[dict[str, str], str, list[str]]:
    """Return {name: canonical name} of the network's tensors; its source (``ZOO`` or ``OTHERS``);
    and notes."""
    names = list(shapes)
    if any(re.match(r"features\.\d", name) for name in names):
        found = _from_structure(names)
    elif any("." in name for name in names):
        if chapter := chapter_names(shapes, prefix):
            return chapter, OTHERS, [NOTE, *_left_out(names, chapter)]
        network = find_network({_with_leaf(name): shape for name, shape in shapes.items()}, prefix)
        renamed = {_with_leaf(name): name for name in names}
        named = {renamed[n]: c for n, c in network.names.items()}
        return named, OTHERS, [*network.notes, assumed(EPSILON, DECAY)]
    elif any("_stage" in name for name in names):
        found = _from_prefixes(names)
    else:
        found = _from_numbers(shapes)
        if len(found) == len(names):
            more = "padding as in the paper, average pooling, and old channels before new ones"
            note = "its layers have numbers instead of names, and were read in numerical order"
            return found, OTHERS, [note, assumed(EPSILON, DECAY, more)]
    return {name: found.get(name, name) for name in names}, ZOO, []


def _left_out(names: list[str], found: Mapping[str, str]) -> list[str]:
    others = [name for name in names if name not in found]
    return [no_part(others)] if others else []


def _with_leaf(name: str) -> str:
    """Return the name with its canonical leaf: weight for gamma, bias for beta."""
    layer, dot, leaf = name.rpartition(".")
    return layer + dot + CANONICAL_LEAF.get(leaf, leaf)


def _from_numbers(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Return {name: canonical name} where the layers of each kind are numbered consecutively.

    MXNet numbers layers built outside any ``name_scope`` this way: ``conv7_weight``. In a
    notebook, the first number need not be 0. The result is empty if no DenseNet has these kernels.
    """
    layers: dict[str, dict[str, re.Match[str]]] = {"conv": {}, "batchnorm": {}, "dense": {}}
    matches = {name: match for name in shapes if (match := NUMBERED.fullmatch(name))}
    for match in matches.values():
        layers[match["kind"]].setdefault(match["layer"], match)
    ordered = {
        kind: sorted(found, key=lambda layer: int(found[layer]["number"]))
        for kind, found in layers.items()
    }
    kernels = [(layer, shapes.get(f"{layer}_weight", ())) for layer in ordered["conv"]]
    places = names_in_order(kernels, ordered["batchnorm"], ordered["dense"]) or {}
    return {
        name: f"{places[match['layer']]}.{CANONICAL_LEAF.get(match['leaf'], match['leaf'])}"
        for name, match in matches.items()
        if match["layer"] in places
    }


def _from_structure(names: list[str]) -> dict[str, str]:
    """Return {structural name: canonical name}; names that fit no pattern are omitted."""
    top = [int(m[1]) for name in names if (m := re.match(r"features\.(\d+)\.(?:gamma|beta)", name))]
    last = max(top, default=0)
    found = {}
    for name in names:
        *place, leaf = name.split(".")
        leaf = CANONICAL_LEAF.get(leaf, leaf)
        numbers = [int(part) for part in place[1:] if part.isdigit()]
        if place == ["output"]:
            layer = "classifier"
        elif place[:1] != ["features"]:
            continue
        elif numbers in ([0], [1]):
            layer = f"features.{'conv0' if numbers == [0] else 'norm0'}"
        elif numbers == [last]:
            layer = "features.norm5"
        elif len(numbers) == 2 and numbers[1] in (0, 2) and numbers[0] % 2:
            layer = f"features.transition{(numbers[0] - 3) // 2}.{'conv' if numbers[1] else 'norm'}"
        elif len(numbers) == 4 and numbers[3] in BACK and numbers[0] % 2 == 0:
            block = f"features.denseblock{(numbers[0] - 2) // 2}"
            layer = f"{block}.denselayer{numbers[1] + 1}.{BACK[numbers[3]]}"
        else:
            continue
        found[name] = f"{layer}.{leaf}"
    return found


def _from_prefixes(names: list[str]) -> dict[str, str]:
    """Return {prefixed name: canonical name}; MXNet numbers each kind of layer separately.

    Inside ``densenet0_stage1_``, dense layer i (from 0) has the batchnorms and the convs numbered
    2i and 2i + 1. Outside the stages, number 0 is the stem's; the numbers of the transitions and
    of the last BatchNorm follow.
    """
    pattern = re.compile(r"\w*?(?:stage(\d+)_)?(batchnorm|conv|dense)(\d+)_(\w+)$")
    matches = {name: match for name in names if (match := pattern.match(name))}
    outside = [int(m[3]) for m in matches.values() if m[1] is None and m[2] == "batchnorm"]
    last = max(outside, default=0)
    found = {}
    for name, match in matches.items():
        stage, kind, number = match[1], match[2], int(match[3])
        leaf = CANONICAL_LEAF.get(match[4], match[4])
        which = "norm" if kind == "batchnorm" else "conv"
        if kind == "dense":
            layer = "classifier"
        elif stage:
            inside = f"denselayer{number // 2 + 1}.{which}{number % 2 + 1}"
            layer = f"features.denseblock{stage}.{inside}"
        elif number == 0:
            layer = f"features.{which}0"
        elif which == "norm" and number == last:
            layer = "features.norm5"
        else:
            layer = f"features.transition{number}.{which}"
        found[name] = f"{layer}.{leaf}"
    return found


# --- Bytes --------------------------------------------------------------------------------------


def _arrays(file: BufferedReader, size: int) -> Iterator[tuple[str, Any]]:
    magic, _, count = _unpack(file, "<QQQ")
    if magic != LIST_MAGIC:
        raise WeightsError("expected MXNet's list of arrays, found another kind of file")
    if count > MOST_ARRAYS:
        raise WeightsError(f"expected at most {MOST_ARRAYS:,} arrays, found a header for {count:,}")
    arrays = [_array(file, size) for _ in range(count)]
    (named,) = _unpack(file, "<Q")
    if named != count:
        raise WeightsError(f"expected a name for each of the {count} arrays, found {named}")
    seen = set()
    for array in arrays:
        (length,) = _unpack(file, "<Q")
        if length > 1000:
            raise WeightsError(f"expected a name of at most 1,000 bytes, found one of {length:,}")
        name = _take(file, length).decode("ascii", "replace")
        if name in seen:
            raise WeightsError(f"{name}: found twice")
        seen.add(name)
        yield name, array
    if file.read(1):
        raise WeightsError("expected the end of the file after the names, found more bytes")


def _array(file: BufferedReader, size: int) -> Any:
    (magic,) = _unpack(file, "<I")
    version = ARRAY_MAGIC.get(magic)
    if version is None:
        raise WeightsError(f"expected the magic number of an MXNet array, found {magic:#010x}")
    if version != "V1":
        (storage,) = _unpack(file, "<i")
        if storage != 0:
            raise WeightsError(f"expected dense arrays (storage type 0), found type {storage}")
    (ndim,) = _unpack(file, "<I")
    if not 1 <= ndim <= 4:
        raise WeightsError(f"expected arrays of 1 to 4 dimensions, found {ndim}")
    shape = _unpack(file, f"<{ndim}q")
    _, _, kind = _unpack(file, "<iii")
    if kind not in (0, 1, 2):
        known = DTYPES.get(kind, f"type {kind}")
        raise WeightsError(f"expected float16, float32 or float64, found {known}")
    dtype = np.dtype(DTYPES[kind])
    count = math.prod(shape)
    if min(shape) < 0 or count * dtype.itemsize > size:
        raise WeightsError(f"expected an array that fits in the file, found shape {tuple(shape)}")
    array = np.empty(count, dtype)  # writable, unlike the result of np.frombuffer
    if file.readinto(array.view(np.uint8).data) != array.nbytes:
        raise WeightsError(f"expected {array.nbytes:,} more bytes, found the end of the file")
    return array.reshape(shape).astype(np.float32 if kind == 2 else dtype, copy=False)


def _unpack(file: BufferedReader, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, _take(file, struct.calcsize(layout)))


def _take(file: BufferedReader, count: int) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise WeightsError(f"expected {count:,} more bytes, found the end of the file")
    return content
