"""DenseNets whose layers put their new channels before the old ones, as pytorch-cifar's do.

``torch.cat([new, old])`` is the same function as ``torch.cat([old, new])`` of this package, once
the channels that later layers read are sorted. No tensor tells which it is, but names do:
pytorch-cifar's (``dense1.0.bn1``, ``trans1.conv``, ``linear``), which translations into Flax Linen
keep. Source: https://github.com/kuangliu/pytorch-cifar/blob/master/models/densenet.py
"""

from __future__ import annotations

import re

from ..weights import Weights
from ._found import LEAVES, Found, Shapes, is_counter, layers_of, left_out
from ._heads import BIASLESS, another_head
from ._networks import chosen
from .recognize import recognize

HEADS = ("linear", "fc", "classifier")
IN_BODY = re.compile(
    r"(?P<around>(?:.*\.)?)"
    r"(?:dense(?P<block>\d{1,2})[._](?:block|layer)?s?_?(?P<layer>\d{1,3})"
    r"\.(?P<kind>bn|conv)(?P<number>[12])"
    r"|trans(?P<transition>\d{1,2})\.(?P<part>bn|conv))"
)
INSIDE = re.compile(r"(?:dense|trans)\d")
LOSS = re.compile(r"loss|criterion|metric")  # what has weights of classes, and is no layer
NOTE = (
    "its names are pytorch-cifar's, whose dense layers put new channels before old ones: the "
    "channels were sorted, so that the network is the same function"
)


def find_new_first(shapes: Shapes, prefix: str | None = None) -> Found | None:
    """Find a network with pytorch-cifar's names; None: no such.

    Its weights then go through ``old_first``. Where other layers are around or among its own, it is
    another network. Raises ``WeightsError`` where there are several, ``ConfigError`` where none has
    the prefix.

    Arguments:
        shapes: {name in the file: shape in PyTorch's layout}.
        prefix: of the network's names, where the file holds several networks.
    """
    shapes = {name: shape for name, shape in shapes.items() if not is_counter(name)}
    places = {name.rpartition(".")[0] for name in shapes if name.rpartition(".")[2] in LEAVES}
    inside = {place: match for place in places if (match := IN_BODY.fullmatch(place))}
    arounds = [
        around
        for around in dict.fromkeys(m["around"] for m in inside.values() if m["block"])
        if shapes.get(f"{around}conv1.weight", ())[2:] == (3, 3) and f"{around}bn.weight" in shapes
    ]
    if not arounds:
        return None
    around, notes = chosen(dict.fromkeys(sorted(arounds)), prefix)
    width = shapes[f"{around}bn.weight"]
    inside = {place: match for place, match in inside.items() if match["around"] == around}
    first = min(int(match["layer"]) for match in inside.values() if match["layer"])
    layers = {place: _canonical(match, first) for place, match in inside.items()}
    layers |= {f"{around}conv1": "features.conv0", f"{around}bn": "features.norm5"}
    for head in HEADS:
        if shapes.get(f"{around}{head}.weight", ())[1:] == width:
            layers[f"{around}{head}"] = "classifier"
    names = {
        f"{place}.{leaf}": f"{canonical}.{leaf}"
        for place, canonical in layers.items()
        for leaf in LEAVES
        if f"{place}.{leaf}" in shapes
    }
    beside = [name for name in shapes if name.startswith(around) and name not in names]
    further = {
        place: leaves
        for place, leaves in layers_of(shapes, beside).items()
        if len(shapes.get(f"{place}.weight", ())) == 2
    }
    for name in beside:
        place, _, leaf = name.removeprefix(around).rpartition(".")
        is_layer = leaf in LEAVES and not LOSS.search(place)
        if around + place not in further and (is_layer or INSIDE.match(place)):
            return None
    if further:
        names = {n: c for n, c in names.items() if not c.startswith("classifier.")}
        notes = [*notes, another_head(shapes, further)]
    read = set(names.values())
    biasless = "classifier.weight" in read and "classifier.bias" not in read
    if biasless:
        notes = [*notes, BIASLESS]
    heads = {name for leaves in further.values() for name in leaves.values()}
    others = [name for name in beside if name not in heads]
    notes = [NOTE, *notes, *left_out(shapes, others)]
    return Found(names, around, biasless=biasless, new_first=True, notes=notes)


def names_of_new_first(shapes: Shapes) -> dict[str, str] | None:
    """{name in the file: canonical name}, as ``find_new_first`` finds them."""
    found = find_new_first(shapes)
    return found.names if found else None


def _canonical(match: re.Match[str], first: int) -> str:
    """A canonical layer; ``first`` is the number of a block's first layer."""
    if match["transition"]:
        kind = match["part"].replace("bn", "norm")
        return f"features.transition{int(match['transition'])}.{kind}"
    kind = match["kind"].replace("bn", "norm") + match["number"]
    layer = int(match["layer"]) - first + 1
    return f"features.denseblock{int(match['block'])}.denselayer{layer}.{kind}"


def old_first(weights: Weights) -> Weights:
    """The same function's weights for layers that put old channels first.

    Raises ``WeightsError`` where these are no DenseNet's tensors. What does not fit is left for the
    check of all tensors.
    """
    spec = recognize({name: array.shape for name, array in weights.items()}).resolve()
    growth = spec.config.growth_rate
    found = dict(weights)
    for block, transition in spec.stages:
        readers = [
            (
                f"features.{block.name}.{layer.name}.norm1",
                f"features.{block.name}.{layer.name}.conv1",
            )
            for layer in block.layers
        ]
        after = f"features.{transition.name}" if transition else ""
        readers.append(
            (f"{after}.norm", f"{after}.conv") if transition else ("features.norm5", "classifier")
        )
        for before, (norm, reader) in enumerate(readers):
            order = _order(block.in_channels, growth, before)
            for leaf in LEAVES:
                name = f"{norm}.{leaf}"
                if name in found and found[name].shape == (len(order),):
                    found[name] = found[name][order]
            name = f"{reader}.weight"
            if name in found and found[name].shape[1:2] == (len(order),):
                found[name] = found[name][:, order]
    return found


def _order(first: int, growth: int, before: int) -> list[int]:
    """Where the channels of a block are, oldest first, in a map that has the newest first.

    Arguments:
        first: channels that the block was given.
        growth: channels of each layer.
        before: layers that have already put theirs in front.
    """
    given = range(before * growth, before * growth + first)
    new = [range((before - i) * growth, (before - i + 1) * growth) for i in range(1, before + 1)]
    return [*given, *(at for layer in new for at in layer)]
