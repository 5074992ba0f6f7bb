"""Separate a network's tensors from counters and other layers; write notes on what is omitted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .._checks import COUNTED, listed

Shapes = Mapping[str, tuple[int, ...]]
Layers = dict[str, dict[str, str]]  # {place: {leaf: name in the file}}
LEAVES = ("weight", "bias", "running_mean", "running_var")
COUNTERS = ("num_batches_tracked", "total_ops", "total_params")  # last two: thop, a profiler
COMPUTED = ("weight_g", "weight_v", "weight_orig", "original", "original0", "original1")
# parameters of layers other than convolutions, norms and linear layers: recurrent and attention
# layers, generalized-mean pooling, cosine classifiers, transformers
OTHER_LEAVES = re.compile(
    r"(?:weight|bias)_(?:ih|hh)_l\d+(?:_reverse)?|in_proj_\w+|query|p|sigma|cls_token|pos_embed\w*"
)
LISTED = 6


@dataclass
class Found:
    """The location of a network's tensors in a file.

    Attributes:
        names: {name in the file: canonical name}.
        prefix: what precedes "features." in the file's names, or replaces it.
        new_first: whether dense layers put new channels before old ones: see _new_first.py.
        notes: sentences for the user.
    """

    names: dict[str, str]
    prefix: str
    new_first: bool = False
    notes: list[str] = field(default_factory=list)


def layers_of(shapes: Shapes, names: Iterable[str]) -> Layers:
    """Group names by layer, and keep the layers that compute something.

    A layer computes something if it has a weight of at least two dimensions, a weight and a bias,
    a reparametrized weight, running statistics, or one of ``OTHER_LEAVES``.
    """
    places: Layers = {}
    for name in names:
        place, _, leaf = name.rpartition(".")
        if leaf in LEAVES + COMPUTED or OTHER_LEAVES.fullmatch(leaf):
            places.setdefault(place, {})[leaf] = name
    return {
        place: leaves
        for place, leaves in places.items()
        if ("weight" in leaves and len(shapes[leaves["weight"]]) > 1)
        or {"weight", "bias"} <= leaves.keys()
        or not leaves.keys().isdisjoint(("running_mean", *COMPUTED))
        or any(OTHER_LEAVES.fullmatch(leaf) for leaf in leaves)
    }


def is_linear(shapes: Shapes, leaves: Mapping[str, str]) -> bool:
    weight = shapes.get(leaves.get("weight", ""), ())
    bias = shapes.get(leaves.get("bias", ""), weight[:1])
    return len(weight) == 2 and bias == weight[:1] and "running_mean" not in leaves


def is_counter(name: str) -> bool:
    """Return whether a tensor only counts something, such as batches or operations."""
    return name.rpartition(".")[2] in COUNTERS


def width_of(shapes: Shapes, names: Mapping[str, str]) -> int:
    """Return the number of channels after the last dense block."""
    places = {canonical: name for name, canonical in names.items()}
    if last := places.get("features.norm5.bias"):
        return (shapes[last] or (0,))[0]
    numbers = [
        tuple(map(int, found.groups()))
        for canonical in places
        if (
            found := re.fullmatch(
                r"features\.denseblock(\d+)\.denselayer(\d+)\.norm1\.bias", canonical
            )
        )
    ]
    if not numbers:
        return 0
    block, layer = max(numbers)
    last = f"features.denseblock{block}.denselayer{layer}"
    new = places.get(f"{last}.conv2.weight") or places.get(f"{last}.conv1.weight")
    before = shapes[places[f"{last}.norm1.bias"]]
    return before[0] + (shapes[new] or (0,))[0] if new and before else 0


def left_out(shapes: Shapes, names: Iterable[str]) -> list[str]:
    """Return notes on the ignored tensors: one on layers, and one on other tensors."""
    notes, left = [], list(names)
    computing = [name for leaves in layers_of(shapes, left).values() for name in leaves.values()]
    if computing:
        notes.append(
            "ignored, because a DenseNet has no such layers (outputs that depend on them will "
            f"differ): {listed_names(computing)}"
        )
    if left := [name for name in left if name not in computing]:
        notes.append(no_part(left))
    return notes


def no_part(names: Iterable[str]) -> str:
    """Return the note on ignored tensors that compute nothing in the network."""
    return f"ignored, because they are not part of the network: {listed_names(list(names))}"


def listed_names(names: list[str]) -> str:
    """List the first names, and count the others."""
    return listed(names, LISTED, COUNTED)
