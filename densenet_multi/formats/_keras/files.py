"""Read Keras' weights files (HDF5, or a zip with HDF5 inside), and map their variables to tensors.

Keras 3 numbers the layers of each class, as in ``layers/conv2d_10/vars/0``. These numbers identify
the layers, as in Keras itself. TensorFlow 2.12 wrote another word for ``layers``. Older files have
layer names, as in ``conv2_block1_1_conv/.../kernel:0``. Kernels are HWIO, but the classifier's is
(in, out). _hdf5.py opens the files.
Source: https://github.com/keras-team/keras/blob/master/keras/src/saving/saving_lib.py
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...weights import Weights, WeightsError
from .._chapter import is_chapter_in_keras, pads_same
from .._hdf5 import bytes_in, opened, read_array, walk
from .found import Declared
from .head import with_head

EPSILON, DECAY = 1.001e-5, 0.99
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
MOMENTS = {"0": "mean", "1": "variance", "2": "count"}  # variables of a Normalization
LAYERS_OF_2_12 = "_layer_checkpoint_dependencies"  # what TensorFlow 2.12 wrote for "layers"
LEFT_OUT = ("optimizer/", "optimizer_weights/", "metrics/", "compile_metrics/", "_metrics/")


@dataclass(frozen=True)
class Variable:
    """A variable. ``parts`` are the groups around it, ``place`` is its layer's group in a Keras 3
    file (None in an older file), and ``leaf`` is its canonical name in that layer."""

    parts: tuple[str, ...]
    place: str | None
    leaf: str
    dataset: Any


def read_weights(
    path: Path, canonical: Callable[[str], str | None] = lambda _: None
) -> tuple[Weights, list[str]]:
    """Return {canonical name: array in canonical layout}, and notes on what was ignored.

    A tensor that no DenseNet has keeps its own name. The only linear layer that fits becomes the
    classifier; other heads are ignored. ``canonical`` maps a layer's name in the file to its
    canonical name (None: unknown). If all names are unknown, the numbers in Keras' default names
    (``conv2d_12``) identify the layers.
    """
    numbered: dict[str, dict[str, npt.NDArray[np.floating]]] = {}
    weights: Weights = {}
    with opened(path) as (file, size):
        variables = list(_variables(file))
        if is_chapter_in_keras(["/".join(variable.parts) for variable in variables]):
            raise WeightsError(pads_same("Keras"))
        by_name = {parts: _named(parts, canonical) for parts in {v.parts for v in variables}}
        is_known = any(by_name.values())
        for variable, array in _arrays(variables, size):
            inside = "/".join(variable.parts) or "the file"
            place = variable.place or (None if is_known else _place_by_name(variable.parts))
            if place is not None:
                _put(numbered.setdefault(place, {}), variable.leaf, array, inside)
            else:
                layer = by_name[variable.parts] or inside
                _put(weights, f"{layer}.{variable.leaf}", array, inside)
    shapes = {
        place: leaves["weight"].shape for place, leaves in numbered.items() if "weight" in leaves
    }
    names = _names_by_number(shapes)
    for place, leaves in numbered.items():
        for leaf, array in leaves.items():
            _put(weights, f"{names.get(place, place)}.{leaf}", array, place)
    return with_head(weights)


def _named(parts: tuple[str, ...], canonical: Callable[[str], str | None]) -> str | None:
    """Return the canonical name of the layer in these groups; None if unknown."""
    pairs = ["/".join(pair) for pair in pairwise(parts)]  # conv1/conv is one name
    return next((layer for name in [*pairs, *parts] if (layer := canonical(name))), None)


def _place_by_name(parts: tuple[str, ...]) -> str | None:
    """Return the place of a layer with a default name in an older file; None for other names."""
    if _class_in("".join(parts[-1:])) not in LEAVES:
        return None
    outer = parts[:-1]
    while outer[-1:] == parts[-1:]:  # conv2d_12/conv2d_12
        outer = outer[:-1]
    return "/".join((*outer, parts[-1]))


def read_variables(path: Path) -> list[tuple[Variable, npt.NDArray[np.floating]]]:
    """Return every variable of a file, and its array in canonical layout."""
    with opened(path) as (file, size):
        return list(_arrays(list(_variables(file)), size))


def _put(weights: Weights, name: str, array: Any, place: str) -> None:
    if name in weights:
        raise WeightsError(f"{place}: found twice, as {name} too")
    weights[name] = array


def read_declared(path: Path, declared: Declared) -> tuple[Weights, dict[str, tuple[Any, Any]]]:
    """Return the declared layers' tensors, and {place: (mean, variance)} of each Normalization.

    Layers are found by place in a Keras 3 file, and by name in an older one. Variables of other
    layers are not read.
    """
    wanted = {layer: canonical for canonical, layer in declared.layers.items()}
    wanted |= {layer: "" for layer in declared.before if layer.kind == "Normalization"}
    places = {layer.place: layer for layer in wanted}
    tops: dict[str, list[Any]] = {}  # outermost name -> layers
    for layer in wanted:
        tops.setdefault(layer.path[0], []).append(layer)
    weights: Weights = {}
    moments: dict[str, dict[str, Any]] = {}
    with opened(path) as (file, size):
        found = []
        for variable in _variables(file):
            layer = _layer_of(variable, places, tops)
            if layer is not None and not _is_count(variable):
                found.append((variable, layer))
        arrays = _arrays([variable for variable, _ in found], size)
        for (variable, array), (_, layer) in zip(arrays, found, strict=True):
            if wanted[layer]:
                _put(weights, f"{wanted[layer]}.{variable.leaf}", array, "/".join(variable.parts))
            else:
                leaf = MOMENTS.get(variable.leaf, variable.leaf)
                moments.setdefault(layer.place, {})[leaf] = array
    stored = {place: (each.get("mean"), each.get("variance")) for place, each in moments.items()}
    return weights, stored


def _layer_of(variable: Variable, places: dict[str, Any], tops: dict[str, list[Any]]) -> Any:
    """Return the wanted layer that a variable belongs to; None if there is none."""
    if variable.place is not None:
        return places.get(variable.place)
    parts = variable.parts[1:] if variable.parts[:1] == ("model_weights",) else variable.parts
    for length in range(len(parts), 0, -1):  # names may have slashes
        layers = tops.get("/".join(parts[:length]), [])
        inside = f"/{'/'.join(parts)}"
        fitting = [la for la in layers if len(la.path) == 1 or inside.endswith(f"/{la.name}")]
        if len(fitting) > 1:  # in nested models, the longest path wins
            fitting = [la for la in fitting if inside.endswith("/" + "/".join(la.path[1:]))]
            longest = max((len(la.path) for la in fitting), default=0)
            fitting = [la for la in fitting if len(la.path) == longest]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise WeightsError(f"{inside[1:]}: expected one layer with this name, found several")
    return None


# --- Variables ----------------------------------------------------------------------------------


def _variables(file: Any) -> Iterator[Variable]:
    """Yield every variable, except those of optimizers, metrics and random states."""
    import h5py

    for inside, item in walk(file):
        *parts, leaf = inside.split("/")
        if not isinstance(item, h5py.Dataset) or inside.startswith(LEFT_OUT):
            continue
        if "seed_generator" in parts:  # a Dropout's random state
            continue
        if parts[-1:] == ["vars"] and any(f"{part}/" in LEFT_OUT for part in parts):
            continue  # a nested model's optimizer
        if parts[-1:] == ["vars"]:
            leaves = LEAVES.get(_class_in(parts[-2]), ()) if len(parts) > 1 else ()
            if re.fullmatch(r"\d", leaf) and int(leaf) < len(leaves):
                leaf = leaves[int(leaf)]
            place = "/".join(parts[:-1]).replace(LAYERS_OF_2_12, "layers")  # as Keras does
            yield Variable(tuple(parts), place, leaf, item)
        else:
            plain = re.sub(r"_\d+$", "", leaf.partition(":")[0])  # kernel_1:0
            yield Variable(tuple(parts), None, OLD_LEAVES.get(plain, plain), item)


def _arrays(
    variables: list[Variable], size: int
) -> Iterator[tuple[Variable, npt.NDArray[np.floating]]]:
    """Yield each variable with its array; raise if the arrays together exceed the file's size."""
    total = 0
    for variable in variables:
        if _is_count(variable):
            continue
        name = variable.dataset.name[1:]
        total += bytes_in(name, variable.dataset, size, scalar=_is_moment(variable))
        if total > size:
            raise WeightsError(f"{name}: expected tensors no larger in total than the file")
        yield variable, read_array(variable.dataset)


def _is_moment(variable: Variable) -> bool:
    """Return whether a variable belongs to a Normalization, whose mean may be a scalar."""
    return any(
        part.startswith("normalization") and _class_in(part) == "normalization"
        for part in variable.parts
    )


def _is_count(variable: Variable) -> bool:
    """Return whether a variable is a Normalization's integer count of the values it has seen."""
    return _is_moment(variable) and MOMENTS.get(variable.leaf, variable.leaf) == "count"


def _class_in(group: str) -> str:
    """Return ``conv2d`` for ``conv2d_10``."""
    return re.sub(r"_\d+$", "", group)


# --- Numbers -------------------------------------------------------------------------------------


def _names_by_number(shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Return {place: canonical layer} of numbered layers; the numbers follow execution order.

    A 1x1 convolution followed by a 3x3 one is the first of a dense layer; any other 1x1 belongs to
    a transition. ``shapes`` maps places to the shapes of weights.
    """
    places: dict[str, list[str]] = {kind: [] for kind in LEAVES}
    for place in sorted(shapes, key=_number_in):
        places.get(_class_in(place.rpartition("/")[2]), []).append(place)
    kernels = [shapes[place][-1] for place in places["conv2d"]]
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
    models = {place.rpartition("/")[0] for place in places["conv2d"]}
    own = [n for n in places["batch_normalization"] if n.rpartition("/")[0] in models]
    if not places["conv2d"]:  # the head of a KerasHub preset
        return {}
    if len(models) > 1 or (len(kernels), len(own)) != (len(convs), len(norms)):
        every = len(places["batch_normalization"])
        raise WeightsError(
            f"expected a DenseNet's layers, found {len(kernels)} convolutions and {every} batch "
            f"normalizations in {len(models)} model(s); if the model has other layers too, save "
            "it completely (model.save('NAME.keras')), so that the file declares them"
        )
    pairs = [*zip(places["conv2d"], convs, strict=True), *zip(own, norms, strict=True)]
    return dict(pairs)


def _number_in(place: str) -> int:
    match = re.search(r"_(\d{1,6})$", place)
    return int(match[1]) if match else 0
