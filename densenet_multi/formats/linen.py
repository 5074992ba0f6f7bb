"""Flax Linen's variables: the trees ``params`` and ``batch_stats``, in any of Flax's file formats.

A Linen layer's name is its author's choice, or its class and a number in call order (``Conv_1``).
Two naming schemes are read: torchvision's (``params.features.conv0.kernel``), and that of the UvA
Deep Learning Tutorials (``DenseBlock_0.DenseLayer_0.Conv_1``), which many projects copied. Other
schemes are read only if the user states the variant. A file stores no settings, such as epsilon: a
note of the checkpoint states the assumed ones. Kernels are HWIO; the classifier's is (in, out).
Sources: https://flax-linen.readthedocs.io/en/latest/guides/training_techniques/batch_norm.html
and https://uvadlc-notebooks.readthedocs.io (JAX, tutorial 5)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._files import replacing
from ..checkpoint import Checkpoint
from ..manifest import tensors
from ..weights import Weights, WeightsError
from ._chapter import check_fraction, names_in_order
from ._flax_files import KERNEL, dotted, is_of_optimizer, names_of_flax, nested, read_arrays
from ._found import listed_names, no_part
from ._layouts import FROM_CHANNELS_LAST
from ._msgpack import to_msgpack
from ._networks import IN_BODY, find_network
from ._new_first import old_first
from ._notes import assumed, differences, unstored
from ._other_names import in_words
from ._safetensors import to_float, write_safetensors
from ._stated import NOTHING, Stated, only
from .nnx import CANONICAL, to_nnx
from .recognize import checkpoint_of, recognize, variant_name, with_biases

BACKEND = "flax"
COLLECTIONS = ("params", "batch_stats")
EPSILON, DECAY = 1e-5, 0.99  # defaults of Linen's BatchNorm
KNOWN = re.compile(r"DenseBlock_\d+\.DenseLayer_\d+|Transition(Layer)?_\d+")  # known classes
NUMBERED = re.compile(r"[A-Za-z]\w*_\d{1,4}")
LAYER = re.compile(r"(?P<kind>BatchNorm|Conv|Dense)_(?P<number>\d{1,4})")
OTHER_NORM = re.compile(r"(?:Group|Layer|Instance|RMS|Weight|Spectral)Norm(?:_\d+)?$")
IN_CHAPTER = re.compile(r"(?:.*\.)?layers_\d+\.net\.layers_\d+\.(?:BatchNorm|Conv)_0\.\w+")


def looks_like(path: Path, head: bytes) -> bool:
    """Return whether kernels are in ``params``, or in layers named by class and number."""
    kernels = [name for name in names_of_flax(path, head) if name.endswith(f".{KERNEL}")]
    return any(_split(name) or LAYER.fullmatch(name.split(".")[-2]) for name in kernels)


def read(path: Path, stated: Stated = NOTHING) -> Checkpoint:
    """Read the weights; their running variances are biased, as Flax computes them."""
    weights, left_out, inner = _variables(read_arrays(path), stated.prefix)
    shapes = {name: array.shape for name, array in weights.items()}
    is_new_first, doubt = False, None
    if any(IN_CHAPTER.fullmatch(name) for name in shapes):
        names, notes, doubt = _names_in_chapter(shapes)
        more = "padding and average pooling as in this package"
    elif (words := in_words(shapes)) or any(IN_BODY.fullmatch(name) for name in shapes):
        network = find_network(shapes, inner)
        names, notes, is_new_first = network.names, network.notes, network.new_first
        more = "padding and average pooling as in torchvision"
        if any(name in words for name in names):
            more = "ReLU, and average pooling in transitions"
    else:
        names, notes, doubt = _numbered_names(shapes)
        more = "ReLU, average pooling in transitions, and old channels before new ones"
    found = {canonical: weights[name] for name, canonical in names.items()}
    found = old_first(found) if is_new_first else found
    found, completed = with_biases(found, of_all=True)
    if doubt and not (stated.file_format and stated.variant is not None):
        raise WeightsError(_in_doubt(doubt, found, shapes))
    check_fraction({name: array.shape for name, array in found.items()})
    notes = [*notes, *completed, assumed(EPSILON, DECAY, more)]
    if left_out:
        notes.append(no_part(left_out))
    source = f"Flax Linen: {path.name}"
    return checkpoint_of(found, "biased", source, notes, bn_eps=EPSILON, bn_decay=DECAY)


def write(path: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Write tensors with torchvision's names: safetensors, or MessagePack for other suffixes."""
    native = to_nnx(checkpoint.spec, checkpoint.weights)
    names = {n: COLLECTIONS[n.rpartition(".")[2] in ("mean", "var")] for n in native}
    variables = {f"{names[name]}.{name}": array for name, array in native.items()}
    if path.name.endswith(".safetensors"):
        write_safetensors(path, variables)
    else:
        with replacing(path) as temporary:
            temporary.write_bytes(to_msgpack(nested(variables)))
    models = "this package's Flax models"  # the file stores neither epsilon nor decay
    return (
        *differences(checkpoint, models, (EPSILON, DECAY), "Flax's", "biased"),
        *unstored(checkpoint),
    )


# --- Variables ----------------------------------------------------------------------------------


def _split(name: str) -> tuple[str, str] | None:
    """Split a name at its last collection: return the keys before it, and those after it.

    Return None if no key is a collection, or if the name is an optimizer's.
    """
    keys = name.split(".")
    places = [i for i, key in enumerate(keys[:-1]) if key in COLLECTIONS]
    if not places or is_of_optimizer(name):
        return None
    return ".".join(keys[: places[-1]]), ".".join(keys[places[-1] + 1 :])


def _variables(
    arrays: Mapping[str, Any], prefix: str | None
) -> tuple[Weights, list[str], str | None]:
    """Return both trees' tensors in canonical layout, the names of other arrays, and a prefix.

    If there are several pairs of trees, ``prefix`` selects one, and the returned prefix is None. If
    there is only one pair, ``prefix`` belongs to a network inside it, and is returned.
    """
    found: dict[str, dict[str, Any]] = {}
    left_out, unknown = [], {}
    for name, array in arrays.items():
        split = _split(dotted(name))
        layer, _, leaf = (split[1] if split else "").rpartition(".")
        if split is None:
            left_out.append(name)
            continue
        if leaf not in CANONICAL:
            unknown[name] = split[0]
            continue
        axes = FROM_CHANNELS_LAST.get(len(array.shape))
        value = to_float(np.asarray(array))
        if axes is not None:
            value = np.array(value.transpose(axes), order="C")
        found.setdefault(split[0], {})[f"{layer}.{CANONICAL[leaf]}"] = value
    found = {around: layers for around, layers in found.items() if _has_kernels(layers)}
    if not found:
        raise WeightsError(
            "expected Flax Linen's variables, {'params': ..., 'batch_stats': ...}, found "
            f"{listed_names(list(arrays)) or 'no arrays'}; save both trees, because a DenseNet "
            "also needs its running statistics"
        )
    around = only(list(found), prefix if len(found) > 1 else None)
    if not any(name.endswith(".running_mean") for name in found[around]):
        if others := _other_norms(found[around]):
            raise WeightsError(
                "expected the BatchNorms of a DenseNet, found a different normalization in this "
                f"Flax Linen network: {listed_names(others)}; no DenseNet of this package has it"
            )
        raise WeightsError(
            "expected params and batch_stats (the running statistics of Flax Linen's BatchNorms), "
            "found only params; save {'params': ..., 'batch_stats': ...}"
        )
    if inside := [name for name, where in unknown.items() if where == around]:
        raise WeightsError(
            "expected only convolutions, BatchNorms and linear layers, as in a DenseNet, found "
            f"another kind of parameter in this Flax Linen network: {listed_names(inside)}"
        )
    return found[around], [*left_out, *unknown], prefix if len(found) == 1 else None


def _other_norms(layers: Mapping[str, Any]) -> list[str]:
    """Return the layers whose names show a normalization other than BatchNorm."""
    names = dict.fromkeys(name.rpartition(".")[0] for name in layers)
    return [name for name in names if OTHER_NORM.match(name.rpartition(".")[2])]


def _has_kernels(layers: Mapping[str, Any]) -> bool:
    return any(name.endswith(".weight") and array.ndim > 1 for name, array in layers.items())


# --- Names --------------------------------------------------------------------------------------


def _numbered_names(
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[dict[str, str], list[str], str | None]:
    """Return {name: canonical name} of layers named by class and number, notes, and any doubt.

    Submodules are dense blocks, which contain 3x3 kernels, and transitions; the stem, the last
    BatchNorm and the head are beside them. Alternatively, all layers are in one module. A doubt is
    the error message for an unknown layout: no tensor shows what such a network computes.
    """
    paths = {name: tuple(name.split(".")[:-1]) for name in shapes}
    paths = {name: path for name, path in paths.items() if path and LAYER.fullmatch(path[-1])}
    above = _common([path[:-1] for path in paths.values()])
    paths = {name: path[above:] for name, path in paths.items()}
    if not all(NUMBERED.fullmatch(key) for path in paths.values() for key in path):
        raise WeightsError(_unknown(shapes))
    kernels = {
        path: shapes[name]
        for name, path in paths.items()
        if name.endswith(".weight") and path[-1].startswith("Conv_")
    }
    blocks = {_class(path) for path, kernel in kernels.items() if path[1:] and kernel[2:] > (1, 1)}
    layers = sorted(set(paths.values()), key=lambda path: _order(path, blocks, paths.values()))
    convs = [(path, kernels[path]) for path in layers if path in kernels]
    norms = [path for path in layers if path[-1].startswith("BatchNorm_")]
    dense = [path for path in layers if path[-1].startswith("Dense_")]
    in_order = names_in_order(convs, norms, dense if len(dense) == 1 else [])
    if in_order is None or len(blocks) > 1 or any(path[1:] for path in dense):
        raise WeightsError(_unknown(shapes))
    is_known = bool(blocks) and all(
        KNOWN.fullmatch(".".join(path[:-1])) for path in layers if path[1:]
    )
    doubt = None
    if not is_known or convs[0][1][2:] != (3, 3):
        doubt = (
            "expected a known layout of Flax Linen, found "
            f"{'a stem that may use SAME padding' if is_known else 'unknown classes or modules'}: "
            "no tensor shows padding, pooling or the order of concatenation"
        )
    found = {
        name: f"{in_order[path]}.{name.rpartition('.')[2]}"
        for name, path in paths.items()
        if path in in_order
    }
    others = [name for name in shapes if name not in found]
    if any(paths.get(name, ("",))[0].partition("_")[0] != "Dense" for name in others):
        raise WeightsError(_unknown(shapes))
    left_out = no_part(others)
    return found, [left_out] if others else [], doubt


def _common(paths: Collection[tuple[str, ...]]) -> int:
    """Return how many leading keys all paths share."""
    ends = (min(paths), max(paths)) if paths else ((), ())
    return next(
        (i for i, keys in enumerate(zip(*ends, strict=False)) if len(set(keys)) > 1),
        min(map(len, ends)),
    )


def _class(path: tuple[str, ...]) -> str:
    return path[0].rpartition("_")[0]


def _order(
    path: tuple[str, ...], blocks: Collection[str], paths: Collection[tuple[str, ...]]
) -> tuple[int, ...]:
    """Return a sort key: a layer's place in the order of calls, among layers of its kind."""
    first, *inside = (int(key.rpartition("_")[2]) for key in path)
    if inside:  # block 0, transition 0, block 1, ...
        return (2 * first + (_class(path) not in blocks), *inside)
    if not blocks:  # all in one module
        return (first,)
    is_last = path[0].startswith("BatchNorm_") and (f"BatchNorm_{first + 1}",) not in paths
    return (10**6,) if is_last else (-1, first)


def _unknown(shapes: Mapping[str, tuple[int, ...]]) -> str:
    some = listed_names([name.rpartition(".")[0] for name in shapes if name.endswith(".weight")])
    return (
        "expected a DenseNet of Flax Linen with torchvision's names (features.conv0, "
        "features.denseblock1.denselayer1.norm1) or Linen's default names "
        f"(DenseBlock_0.DenseLayer_0.BatchNorm_0), found another Linen network: {some}"
    )


def _names_in_chapter(
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[dict[str, str], list[str], str]:
    """Return {name: canonical name} of Dive into Deep Learning's network, notes, and the doubt.

    All layers are in one Sequential, so the numbers in a layer's path are the order of calls.
    """
    layers = dict.fromkeys(name.rpartition(".")[0] for name in shapes)
    ordered = sorted(layers, key=lambda layer: tuple(map(int, re.findall(r"\d+", layer))))
    kernels = {layer: shapes.get(f"{layer}.weight", ()) for layer in ordered}
    in_order = names_in_order(
        [(layer, kernel) for layer, kernel in kernels.items() if len(kernel) == 4],
        [layer for layer in ordered if f"{layer}.running_mean" in shapes],
        [layer for layer, kernel in kernels.items() if len(kernel) == 2],
    )
    if in_order is None or in_order.keys() != layers.keys():
        raise WeightsError(_unknown(shapes))
    found = {
        name: f"{in_order[layer]}.{leaf}"
        for name in shapes
        for layer, _, leaf in [name.rpartition(".")]
    }
    check_fraction({canonical: shapes[name] for name, canonical in found.items()})
    doubt = (
        "expected a DenseNet of this package, found the network of the chapter in Dive into Deep "
        "Learning in Flax Linen: the chapter's own code uses SAME padding in the stem's "
        "convolution and max pooling, which is a different function at most image sizes; no "
        "tensor shows it"
    )
    note = "read as the network of the chapter in Dive into Deep Learning, as you stated"
    return found, [note], doubt


def _in_doubt(doubt: str, found: Weights, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the error message for a doubt, with what to type to read the network anyway."""
    canonical = {name: array.shape for name, array in found.items()}
    try:
        config = recognize(canonical)
        expected = {name: info.shape for name, info in tensors(config.resolve()).items()}
    except ValueError:
        return _unknown(shapes)
    if expected != canonical:
        return _unknown(shapes)
    if variant := variant_name(config):
        advice = (
            "state its variant: convert('SOURCE', 'NEW.safetensors', source_format='linen', "
            f"variant={variant!r})"
        )
    else:
        advice = (
            "name its layers as torchvision does (features.denseblock1.denselayer1.conv1) and save "
            "it again"
        )
    return f"{doubt}; if the network computes as this package does (docs/conventions.md), {advice}"
