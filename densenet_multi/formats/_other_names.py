"""Translate the layer names of widely copied DenseNets for CIFAR into torchvision's names.

These networks have no BatchNorm after the first convolution. They differ in their layer names and
in the order in which a dense layer concatenates old and new channels. No tensor shows that order,
but the names do:

- https://github.com/kuangliu/pytorch-cifar (``dense1.0.bn1``, ``trans1.conv``, ``bn``): new
  channels come first. Ports to Flax Linen keep these names.
- https://github.com/bamos/densenet.pytorch (``dense1.0.bn1``, ``trans1.conv1``, ``bn1``) and
  https://github.com/andreasveit/densenet-pytorch (``block1.layer.0.bn1``, ``trans1.conv1``,
  ``bn1``): old channels come first, as in this package.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ._found import LEAVES, Shapes


@dataclass(frozen=True)
class Names:
    """A project's naming scheme for layers.

    Attributes:
        layer: a pattern for a dense layer's prefix, with the groups ``block`` and ``layer``.
        inside: a pattern for the start of a name in a dense block or transition.
        number: the digit after ``bn`` and ``conv`` outside the dense layers, if any.
        new_first: whether its dense layers put new channels before old ones.
        note: the note for the user.
    """

    layer: str
    inside: str
    number: str
    new_first: bool
    note: str

    def place(self, name: str) -> re.Match[str] | None:
        """Match the name of a layer in the body; return None for any other name."""
        return re.fullmatch(
            rf"(?P<around>(?:.*\.)?)(?:{self.layer}\.(?P<kind>bn|conv)(?P<number>[12])"
            rf"|trans(?P<transition>\d{{1,2}})\.(?P<part>bn|conv){self.number})",
            name,
        )


PROJECTS = (
    Names(
        layer=r"dense(?P<block>\d{1,2})[._](?:block|layer)?s?_?(?P<layer>\d{1,3})",
        inside=r"(?:dense|trans)\d",
        number="",
        new_first=True,
        note=(
            "its names are pytorch-cifar's, whose dense layers put new channels before old ones: "
            "the channels were reordered, so that the network computes the same function"
        ),
    ),
    Names(
        layer=r"(?:dense|block)(?P<block>\d{1,2})\.(?:layer\.)?(?P<layer>\d{1,3})",
        inside=r"(?:dense|block|trans)\d",
        number="1",
        new_first=False,
        note=(
            "its names are those of bamos/densenet.pytorch or andreasveit/densenet-pytorch, whose "
            "dense layers put old channels before new ones; a final log_softmax in the model is "
            "ignored: softmax of the logits returns the same probabilities"
        ),
    ),
)
LOSS = re.compile(r"loss|criterion|metric")  # these may have class weights, but are not layers


def in_words(shapes: Shapes) -> dict[str, tuple[str, Names]]:
    """Return {name: (torchvision's equivalent, scheme)} for networks with a scheme of ``PROJECTS``.

    Unknown layers beside or among a network's own get names inside the body, where
    ``_networks.find_network`` refuses them.

    Arguments:
        shapes: {name in the file: shape in PyTorch's layout}.
    """
    places = {name.rpartition(".")[0] for name in shapes if name.rpartition(".")[2] in LEAVES}
    found: dict[str, tuple[str, Names]] = {}
    for names in PROJECTS:
        inside = {place: match for place in places if (match := names.place(place))}
        for around in {match["around"] for match in inside.values() if match["block"]}:
            own = {place: match for place, match in inside.items() if match["around"] == around}
            if _is_densenet(shapes, around, own, names.number):
                words = _words_of(shapes, around, own, names)
                found |= {name: (word, names) for name, word in words.items() if name not in found}
    return found


def _is_densenet(shapes: Shapes, around: str, own: dict[str, re.Match[str]], number: str) -> bool:
    """Return whether stem, last norm and transitions exist; a wide ResNet has no transitions."""
    blocks = {match["block"] for match in own.values() if match["block"]}
    transitions = any(match["transition"] for match in own.values())
    return (
        shapes.get(f"{around}conv1.weight", ())[2:] == (3, 3)
        and f"{around}bn{number}.weight" in shapes
        and (transitions or len(blocks) == 1)
    )


def _words_of(
    shapes: Shapes, around: str, own: dict[str, re.Match[str]], names: Names
) -> dict[str, str]:
    """Return {name: torchvision's equivalent} for one network."""
    first = min(int(match["layer"]) for match in own.values() if match["layer"])
    layers = {place: _canonical(match, first) for place, match in own.items()}
    last = f"{around}bn{names.number}"
    layers |= {f"{around}conv1": "features.conv0", last: "features.norm5"}
    found = {}
    for name in (name for name in shapes if name.startswith(around)):
        place, _, leaf = name.rpartition(".")
        rest = name.removeprefix(around)
        if place in layers:
            found[name] = f"{around}{layers[place]}.{leaf}"
        elif re.match(names.inside, rest) or (rest.count(".") == 1 and _is_norm(shapes, place)):
            found[name] = f"{around}features.{rest}"
    return found


def _is_norm(shapes: Shapes, place: str) -> bool:
    """Return whether a layer's weight is one-dimensional, as a BatchNorm's or a PReLU's."""
    width = shapes.get(f"{place}.weight", ())
    return len(width) == 1 and not LOSS.search(place)


def _canonical(match: re.Match[str], first: int) -> str:
    """Return a layer's canonical name; ``first`` is the number of a block's first dense layer."""
    if match["transition"]:
        kind = match["part"].replace("bn", "norm")
        return f"features.transition{int(match['transition'])}.{kind}"
    kind = match["kind"].replace("bn", "norm") + match["number"]
    layer = int(match["layer"]) - first + 1
    return f"features.denseblock{int(match['block'])}.denselayer{layer}.{kind}"
