"""Flax Linen's variables: trees called ``params`` and ``batch_stats``, as any file that Flax reads.

Linen names a layer as its author does, or by class and number in the order of calls. Two layouts
are known, and are read: torchvision's names (``params.features.conv0.kernel``), and those of the
UvA Deep Learning Tutorials (``DenseBlock_0.DenseLayer_0.Conv_1``), which many projects copied. A
file holds no settings: what is assumed is told. Kernels are HWIO, the classifier's (in, out).
Sources: https://flax-linen.readthedocs.io/en/latest/guides/training_techniques/batch_norm.html
and https://uvadlc-notebooks.readthedocs.io (JAX, tutorial 5)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import bad
from .._files import replacing
from ..checkpoint import Checkpoint
from ..weights import Weights, WeightsError
from ._chapter import check_fraction
from ._flax_files import dotted, is_of_optimizer, names_of_flax, nested, read_arrays, write_orbax
from ._layouts import FROM_CHANNELS_LAST
from ._msgpack import to_msgpack
from ._networks import IN_BODY, LISTED, find_network
from ._notes import differences, unsaid
from ._safetensors import to_float, write_safetensors
from ._told import NOTHING, Told
from .nnx import CANONICAL, to_nnx
from .recognize import checkpoint_of

BACKEND = "flax"
COLLECTIONS = ("params", "batch_stats")
EPSILON, DECAY = 1e-5, 0.99  # of Linen's BatchNorm, where its author says nothing
KNOWN = re.compile(r"DenseBlock_\d+\.DenseLayer_\d+|Transition(Layer)?_\d+")  # whose code we know
NUMBERED = re.compile(  # class and number, in a block, a transition, or around them
    r"(?P<around>(?:.*\.)?)"
    r"(?:(?P<block>[A-Za-z]\w*?_\d+)\.(?P<layer>[A-Za-z]\w*?_\d+)\.|(?P<transition>[A-Za-z]\w*?_\d+)\.)"
    r"(?P<kind>BatchNorm|Conv)_(?P<number>[01])"
)
AROUND = re.compile(r"(?P<kind>BatchNorm|Conv|Dense)_(?P<number>\d{1,4})")
IN_CHAPTER = re.compile(r"(?:.*\.)?layers_\d+\.net\.layers_\d+\.(?:BatchNorm|Conv)_0\.\w+")


def looks_like(path: Path, head: bytes) -> bool:
    """Whether its names are Linen's, or a tree of kernels without statistics."""
    names = names_of_flax(path, head)
    kernels = [name for name in names if name.endswith(".kernel") and not is_of_optimizer(name)]
    if any(_split(name) for name in kernels):
        return True
    return bool(kernels) and not path.is_dir() and not any(name.endswith(".mean") for name in names)


def read(path: Path, told: Told = NOTHING) -> Checkpoint:
    """The weights; their running variances are biased, as Flax' are."""
    weights, left_out, inner = _variables(read_arrays(path), told.prefix)
    shapes = {name: array.shape for name, array in weights.items()}
    is_asserted = told.file_format and told.variant is not None
    if any(IN_CHAPTER.fullmatch(name) for name in shapes):
        raise WeightsError(_of_the_chapter(shapes))
    if any(IN_BODY.fullmatch(name) for name in shapes):
        network = find_network(shapes, inner)
        names, notes = network.names, network.notes
        assumed = "padding and pooling as in torchvision"
    else:
        names, notes = _numbered_names(shapes, is_asserted)
        assumed = "ReLU, average pooling in transitions, and old channels before new ones"
    found = {canonical: weights[name] for name, canonical in names.items()}
    check_fraction({name: array.shape for name, array in found.items()})
    notes = [
        *notes,
        *_complete(found),
        f"Linen stores no settings: assumed are an epsilon of {EPSILON:g}, a decay of {DECAY:g}, "
        + assumed,
    ]
    if left_out:
        notes.append(f"left out, because no part of the network: {_listed(left_out)}")
    source = f"Flax Linen: {path.name}"
    return checkpoint_of(found, "biased", source, notes, bn_eps=EPSILON, bn_decay=DECAY)


def write(path: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Write torchvision's names: MessagePack if the name ends in ``.msgpack``, safetensors if in
    ``.safetensors``, otherwise an Orbax folder."""
    native = to_nnx(checkpoint.spec, checkpoint.weights)
    names = {n: COLLECTIONS[n.rpartition(".")[2] in ("mean", "var")] for n in native}
    variables = {f"{names[name]}.{name}": array for name, array in native.items()}
    if path.name.endswith(".safetensors"):
        write_safetensors(path, variables)
    elif path.name.endswith(".msgpack"):
        with replacing(path) as temporary:
            temporary.write_bytes(to_msgpack(nested(variables)))
    else:
        write_orbax(path, nested(variables))
    assumed = "models that are read from such a file"  # it stores neither epsilon nor decay
    return (
        *differences(checkpoint, assumed, (EPSILON, DECAY), "Flax'", "biased"),
        *unsaid(checkpoint),
    )


# --- Variables ----------------------------------------------------------------------------------


def _split(name: str) -> tuple[str, str] | None:
    """What stands before the last collection's name, and what after it."""
    keys = name.split(".")
    places = [i for i, key in enumerate(keys[:-1]) if key in COLLECTIONS]
    if not places or is_of_optimizer(name):
        return None
    return ".".join(keys[: places[-1]]), ".".join(keys[places[-1] + 1 :])


def _variables(
    arrays: Mapping[str, Any], prefix: str | None
) -> tuple[Weights, list[str], str | None]:
    """The layers of both trees in canonical leaves and layouts, and the names of other arrays.

    Where there is one pair of trees, the prefix is for a network inside it, and returned.
    """
    found: dict[str, dict[str, Any]] = {}
    left_out = []
    for name, array in arrays.items():
        split = _split(dotted(name))
        layer, _, leaf = (split[1] if split else "").rpartition(".")
        if split is None or leaf not in CANONICAL:
            left_out.append(name)
            continue
        axes = FROM_CHANNELS_LAST.get(len(array.shape))
        value = to_float(np.asarray(array))
        if axes is not None:
            value = np.ascontiguousarray(value.transpose(axes))
        found.setdefault(split[0], {})[f"{layer}.{CANONICAL[leaf]}"] = value
    found = {around: layers for around, layers in found.items() if _has_kernels(layers)}
    if not found:
        raise WeightsError(
            "expected Flax Linen's variables, {'params': ..., 'batch_stats': ...}, found "
            f"{_listed(list(arrays)) or 'no arrays'}; save both trees, because a DenseNet also "
            "needs its running statistics"
        )
    around = _only(list(found), prefix)
    if not any(name.endswith(".running_mean") for name in found[around]):
        raise WeightsError(
            "expected the running statistics of Flax Linen's BatchNorms too, found params without "
            "batch_stats; save {'params': ..., 'batch_stats': ...}"
        )
    return found[around], left_out, prefix if len(found) == 1 else None


def _has_kernels(layers: Mapping[str, Any]) -> bool:
    return any(name.endswith(".weight") and array.ndim > 1 for name, array in layers.items())


def _only(arounds: list[str], prefix: str | None) -> str:
    known = " or ".join(map(repr, arounds))
    if prefix is not None and len(arounds) > 1:
        if prefix.rstrip(".") not in arounds:
            raise bad("prefix", prefix, f"what stands before a network's params: {known}")
        return prefix.rstrip(".")
    if len(arounds) > 1:
        raise WeightsError(
            f"expected one network, found {len(arounds)}; choose one with prefix={known}"
        )
    return arounds[0]


def _complete(found: Weights) -> list[str]:
    """Give every convolution a bias where some have one, and the classifier; tell so."""
    notes = []
    convs = [n for n, array in found.items() if n.endswith(".weight") and array.ndim == 4]
    biased = [name for name in convs if _bias(name) in found]
    if biased and len(biased) < len(convs):
        notes.append(
            f"{len(biased)} of {len(convs)} convolutions have a bias: the others got one of zeros"
        )
    if biased:
        for name in convs:
            found.setdefault(_bias(name), np.zeros(len(found[name]), found[name].dtype))
    head = found.get("classifier.weight")
    if head is not None and "classifier.bias" not in found:
        found["classifier.bias"] = np.zeros(len(head), head.dtype)
        notes.append("its classifier has no bias: it got one of zeros")
    return notes


def _bias(name: str) -> str:
    return f"{name.removesuffix('.weight')}.bias"


# --- Names --------------------------------------------------------------------------------------


def _numbered_names(
    shapes: Mapping[str, tuple[int, ...]], is_asserted: bool
) -> tuple[dict[str, str], list[str]]:
    """{name: canonical name} where layers are called by class and number, and notes."""
    matches = {}
    for name in shapes:
        layer = name.rpartition(".")[0]
        if match := NUMBERED.fullmatch(layer):
            matches[name] = match
    blocks = _ordered({match["block"] for match in matches.values()})
    transitions = _ordered({match["transition"] for match in matches.values()})
    around = {match["around"] for match in matches.values()}
    if not blocks or len(around) != 1:
        raise WeightsError(_unknown(shapes))
    found = {}
    for name, match in matches.items():
        kind, number = match["kind"].replace("Batch", "").lower(), int(match["number"])
        if match["block"]:
            layers = _ordered(
                {m["layer"] for m in matches.values() if m["block"] == match["block"]}
            )
            at = f"{blocks.index(match['block']) + 1}.denselayer{layers.index(match['layer']) + 1}"
            place = f"features.denseblock{at}.{kind}{number + 1}"
        else:
            place = f"features.transition{transitions.index(match['transition']) + 1}.{kind}"
        found[name] = f"{place}.{name.rpartition('.')[2]}"
    notes = _around(shapes, found, next(iter(around)))
    stem = shapes[next(name for name, c in found.items() if c == "features.conv0.weight")]
    known = all(KNOWN.fullmatch(_classes(match)) for match in matches.values())
    if not is_asserted and (not known or stem[2:] != (3, 3)):
        what = "names that are not known here" if not known else "a stem that may pad SAME"
        raise WeightsError(
            f"expected a layout of Flax Linen that is known here, found {what}: no tensor shows "
            "padding, pooling or the order of concatenation; where they are those of this "
            "package (docs/conventions.md), say so with file_format='linen' and variant=NAME"
        )
    return found, notes


def _classes(match: re.Match[str]) -> str:
    return match["transition"] or f"{match['block']}.{match['layer']}"


def _ordered(names: set[str | None]) -> list[str]:
    """In the order of their numbers."""
    return sorted(filter(None, names), key=lambda name: int(name.rpartition("_")[2]))


def _around(shapes: Mapping[str, tuple[int, ...]], found: dict[str, str], around: str) -> list[str]:
    """Name the stem, the last BatchNorm and the classifier; notes on another head."""
    outside: dict[str, dict[int, list[str]]] = {"Conv": {}, "BatchNorm": {}, "Dense": {}}
    others = []
    for name in shapes:
        layer = name.removeprefix(around).rpartition(".")[0]
        match = AROUND.fullmatch(layer) if name.startswith(around) else None
        if match:
            outside[match["kind"]].setdefault(int(match["number"]), []).append(name)
        elif name not in found:
            others.append(name)
    convs, norms, dense = (sorted(outside[k].items()) for k in ("Conv", "BatchNorm", "Dense"))
    if len(convs) != 1 or len(norms) not in (1, 2):
        raise WeightsError(_unknown(shapes))
    layers = [(convs[0], "features.conv0"), (norms[-1], "features.norm5")]
    layers += [(norms[0], "features.norm0")] * (len(norms) == 2)
    layers += [(dense[0], "classifier")] * (len(dense) == 1)
    for (_, names), place in layers:
        found |= {name: f"{place}.{name.rpartition('.')[2]}" for name in names}
    if len(dense) > 1:
        others += [name for _, names in dense for name in names]
    return [f"left out, because no part of the network: {_listed(others)}"] if others else []


def _unknown(shapes: Mapping[str, tuple[int, ...]]) -> str:
    some = _listed([name.rpartition(".")[0] for name in shapes if name.endswith(".weight")])
    return (
        "expected a DenseNet of Flax Linen with torchvision's names (features.conv0, "
        "features.denseblock1.denselayer1.norm1) or classes and numbers "
        f"(DenseBlock_0.DenseLayer_0.BatchNorm_0), found another Linen network: {some}"
    )


def _of_the_chapter(shapes: Mapping[str, tuple[int, ...]]) -> str:
    transitions = {
        tuple(map(int, re.findall(r"\d+", name))): shape
        for name, shape in shapes.items()
        if len(shape) == 4 and shape[2:] == (1, 1)
    }
    kept = ", ".join(f"{shape[0]} of {shape[1]}" for _, shape in sorted(transitions.items()))
    return (
        "expected a DenseNet of this package, found the Flax Linen network of the chapter in Dive "
        "into Deep Learning: it pads SAME in the stem's convolution and max pooling, which is "
        "another function at most image sizes"
        + (f", and its transitions keep {kept} channels" if kept else "")
        + "; train the variant d2l instead"
    )


def _listed(names: list[str]) -> str:
    more = [f"{len(names) - LISTED} more"] if len(names) > LISTED else []
    return ", ".join([*names[:LISTED], *more])
