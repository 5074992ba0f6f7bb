"""What is found among a file's tensors: a network, layers, counters; and how they are told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .._checks import COUNTED, listed

Shapes = Mapping[str, tuple[int, ...]]
Layers = dict[str, dict[str, str]]  # {place: {leaf: name in the file}}
LEAVES = ("weight", "bias", "running_mean", "running_var")
COUNTERS = ("num_batches_tracked", "total_ops", "total_params")  # the last two are thop's
COMPUTED = ("weight_g", "weight_v", "weight_orig", "original", "original0", "original1")
# leaves of layers that are no convolution, norm or linear layer: of recurrent and attention layers,
# of generalized-mean pooling, of cosine classifiers, of transformers
OTHER_LEAVES = re.compile(
    r"(?:weight|bias)_(?:ih|hh)_l\d+(?:_reverse)?|in_proj_\w+|query|p|sigma|cls_token|pos_embed\w*"
)
LISTED = 6


@dataclass
class Found:
    """Where a network's tensors are.

    Attributes:
        names: {name in the file: canonical name}.
        prefix: before the canonical names of the body, without "features.".
        new_first: whether its layers put new channels before old ones: see _new_first.py.
        notes: sentences for the user.
    """

    names: dict[str, str]
    prefix: str
    new_first: bool = False
    notes: list[str] = field(default_factory=list)


def layers_of(shapes: Shapes, names: Iterable[str]) -> Layers:
    """What computes: weights of two dimensions and more, computed weights, norms, and others."""
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
    """Whether a tensor counts something, batches or operations, and computes nothing."""
    return name.rpartition(".")[2] in COUNTERS


def width_of(shapes: Shapes, names: Mapping[str, str]) -> int:
    """The channels after the last block."""
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
    """The notes on tensors that are not read: on layers, and on others."""
    notes, left = [], list(names)
    computing = [name for leaves in layers_of(shapes, left).values() for name in leaves.values()]
    if computing:
        notes.append(
            "left out, because no DenseNet has such layers (answers that they help to compute are "
            f"different here): {listed_names(computing)}"
        )
    if left := [name for name in left if name not in computing]:
        notes.append(no_part(left))
    return notes


def no_part(names: Iterable[str]) -> str:
    """The note on what is left out, and computes nothing in the network."""
    return f"left out, because they are no part of the network: {listed_names(list(names))}"


def listed_names(names: list[str]) -> str:
    """The first names, and how many more there are."""
    return listed(names, LISTED, COUNTED)
