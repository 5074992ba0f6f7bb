"""DenseNets whose layers put their new channels before the old ones, as pytorch-cifar's do.

``torch.cat([new, old])`` is the same function as ``torch.cat([old, new])`` of this package, once
the channels that later layers read are sorted. No tensor tells which it is, but names do:
pytorch-cifar's (``dense1.0.bn1``, ``trans1.conv``, ``linear``), which translations into Flax Linen
keep. Source: https://github.com/kuangliu/pytorch-cifar/blob/master/models/densenet.py
"""

from __future__ import annotations

import re

from ..weights import Weights
from ._found import LEAVES, Shapes
from .recognize import recognize

IN_BODY = re.compile(
    r"(?P<around>(?:.*\.)?)"
    r"(?:dense(?P<block>\d{1,2})[._](?:block|layer)?s?_?(?P<layer>\d{1,3})"
    r"\.(?P<kind>bn|conv)(?P<number>[12])"
    r"|trans(?P<transition>\d{1,2})\.(?P<part>bn|conv))"
)
INSIDE = re.compile(r"(?:dense|trans)\d")
LOSS = re.compile(r"loss|criterion|metric")  # these may have class weights, but are no layers
NOTE = (
    "its names are pytorch-cifar's, whose dense layers put new channels before old ones: the "
    "channels were sorted, so that the network is the same function"
)


def in_words(shapes: Shapes) -> dict[str, str]:
    """{name: the same in torchvision's words} of the networks with pytorch-cifar's names.

    What else computes beside or among their layers is put inside the body, where it is refused.

    Arguments:
        shapes: {name in the file: shape in PyTorch's layout}.
    """
    places = {name.rpartition(".")[0] for name in shapes if name.rpartition(".")[2] in LEAVES}
    inside = {place: match for place in places if (match := IN_BODY.fullmatch(place))}
    found = {}
    for around in {match["around"] for match in inside.values() if match["block"]}:
        stem, last = shapes.get(f"{around}conv1.weight", ()), shapes.get(f"{around}bn.weight")
        if stem[2:] != (3, 3) or last is None:
            continue
        own = {place: match for place, match in inside.items() if match["around"] == around}
        first = min(int(match["layer"]) for match in own.values() if match["layer"])
        layers = {place: _canonical(match, first) for place, match in own.items()}
        layers |= {f"{around}conv1": "features.conv0", f"{around}bn": "features.norm5"}
        beside = [name for name in shapes if name.startswith(around)]
        for name in beside:
            place, _, leaf = name.rpartition(".")
            rest = name.removeprefix(around)
            if place in layers:
                found[name] = f"{around}{layers[place]}.{leaf}"
            elif INSIDE.match(rest) or (rest.count(".") == 1 and _is_norm(shapes, place)):
                found[name] = f"{around}features.{rest}"
    return found


def _is_norm(shapes: Shapes, place: str) -> bool:
    """Whether a layer's weights are those of a BatchNorm or of an activation."""
    width = shapes.get(f"{place}.weight", ())
    return len(width) == 1 and not LOSS.search(place)


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
