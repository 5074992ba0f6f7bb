"""Find the network of Dive into Deep Learning's DenseNet chapter in files that readers saved.

The chapter's code numbers layers instead of naming them. A dense block's names contain ``net.0.0``
and ``net.0.2``, a transition's ``0`` and ``2``. The prefix depends on edition and framework:
``0.0.weight``, ``1.net.0.0.weight`` (PyTorch, first edition); ``net.dense_blk1.net.0.0.weight``
(second); ``0.weight``, ``4.net.0.0.gamma`` (MXNet). So dense blocks are recognized by the numbers
in their names, and all other layers by kind and position.
Source: https://d2l.ai/chapter_convolutional-modern
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ..weights import COUNTER, WeightsError
from ._stated import only
from .recognize import LAYER

Layer = TypeVar("Layer", bound=Hashable)  # whatever identifies a layer in a file
Shapes = Mapping[str, tuple[int, ...]]
LEAVES = {  # parameter in a file (PyTorch or MXNet) -> canonical
    "weight": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "running_mean": "running_mean",
    "running_var": "running_var",
}
IN_BLOCK = re.compile(
    r"(?P<around>(?:.*\.)?)(?P<block>[^.]*\d)\.net\.(?P<layer>\d{1,3})\.(?P<part>[02])"
)
IN_KERAS = re.compile(r"(?:^|/)dense_block(?:_\d+)?/(?:.*/)?conv_block(?:_\d+)?/")
PARTS = {"0": "norm1", "2": "conv1"}  # between them is a ReLU
NOTE = (
    "read as the network of the chapter in Dive into Deep Learning: padding, pooling, epsilon and "
    "decay are assumed to be the chapter's, because no tensor shows them"
)


@dataclass
class _Layer:
    """A layer in a file: the names and shapes of its tensors there, by canonical leaf."""

    names: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        dimensions = len(self.shapes.get("weight", ()))
        named = {1: "norm", 2: "linear", 4: "conv"}.get(dimensions, "")
        return named if named != "norm" or "running_mean" in self.names else ""


def chapter_names(shapes: Shapes, prefix: str | None = None) -> dict[str, str] | None:
    """Return {name in the file: canonical name} of the chapter's network; None if not found.

    Names missing from the result do not belong to the network. The classifier must be the only
    linear layer, and read the last BatchNorm's channels. Any other head is ignored.

    Raises ``WeightsError`` if there are several such networks, if the layers outside the dense
    blocks are not the chapter's, or if the transitions' channel counts fit no single compression
    factor; ``ConfigError`` if no network has the prefix.

    Arguments:
        shapes: {name in the file: shape in PyTorch's layout} of the float tensors.
        prefix: the prefix of the network's names, if the file holds several networks.
    """
    layers: dict[str, _Layer] = {}
    for name, shape in shapes.items():
        place, _, leaf = name.rpartition(".")
        if leaf in LEAVES:
            layer = layers.setdefault(place, _Layer())
            layer.names[LEAVES[leaf]] = name
            layer.shapes[LEAVES[leaf]] = shape
    inside = {p: m for p in layers if (m := IN_BLOCK.fullmatch(p))}
    inside = {
        place: match
        for place, match in inside.items()
        if layers[place].kind == PARTS[match["part"]][:4]
    }
    if not any(match["part"] == "2" for match in inside.values()):
        return None
    around = only(sorted({match["around"] for match in inside.values()}), prefix)
    inside = {place: match for place, match in inside.items() if match["around"] == around}
    blocks = sorted({match["block"] for match in inside.values()}, key=_number)
    found: dict[str, str] = {}
    for place, match in inside.items():
        block, layer_number = blocks.index(match["block"]) + 1, int(match["layer"]) + 1
        _put(
            found,
            layers[place],
            f"features.denseblock{block}.denselayer{layer_number}.{PARTS[match['part']]}",
        )
    outside = {
        place.removeprefix(around): layer
        for place, layer in layers.items()
        if place.startswith(around) and place not in inside
    }
    _find_outside(found, outside, len(blocks))
    _refuse_others_inside(shapes, found, around)
    canonical = {name: shapes[file_name] for file_name, name in found.items()}
    check_fraction(canonical)
    return found


def is_chapter_in_keras(paths: Collection[str]) -> bool:
    """Return whether a Keras file has paths of the chapter's classes, which use SAME padding."""
    return any(map(IN_KERAS.search, paths)) and any("transition_block" in path for path in paths)


def pads_same(framework: str) -> str:
    """Return the error for the chapter's network in a framework whose default padding is SAME."""
    return (
        f"expected a DenseNet of this package, found the {framework} network of the chapter in "
        "Dive into Deep Learning: SAME padding in its stem changes its outputs at most image "
        "sizes; train the variant d2l, which pads like the chapter's PyTorch and MXNet code"
    )


def check_fraction(shapes: Shapes) -> None:
    """Raise ``WeightsError`` if no single compression factor fits all transitions."""
    widths: list[tuple[int, int]] = []  # channels (before, after) a transition
    while (name := f"features.transition{len(widths) + 1}.conv.weight") in shapes:
        widths.append((shapes[name][1], shapes[name][0]))
    least = max((after / before for before, after in widths), default=0.0)
    most = min(((after + 1) / before for before, after in widths), default=1.0)
    if least < most:
        return
    kept = ", ".join(f"{after} of {before}" for before, after in widths)
    restarts = _restarted(shapes) == [after for _, after in widths]
    why = (
        "; the chapter's newest JAX edition has these widths, because it restarts counting "
        "channels at each block"
        if restarts
        else ""
    )
    raise WeightsError(
        "expected all transitions to keep the same fraction of their channels, found "
        f"{kept}{why}; no DenseNet of this package can have these widths"
    )


def _restarted(shapes: Shapes) -> list[int]:
    """Return the channels after each transition, if each block counts from the stem's channels."""
    layers: dict[int, int] = {}
    for name in shapes:
        if match := LAYER.match(name):
            layers[int(match[1])] = max(int(match[2]), layers.get(int(match[1]), 0))
    stem = shapes["features.conv0.weight"][0]
    last = "conv2" if "features.denseblock1.denselayer1.conv2.weight" in shapes else "conv1"
    growth = shapes[f"features.denseblock1.denselayer1.{last}.weight"][0]
    return [(stem + layers[block] * growth) // 2 for block in sorted(layers)[:-1]]


def _find_outside(found: dict[str, str], outside: dict[str, _Layer], blocks: int) -> None:
    """Find the stem, the transitions, the last BatchNorm and the classifier; add their names."""
    left = {place: layer for place, layer in outside.items() if layer.kind}
    kernels = {p: la.shapes["weight"] for p, la in left.items() if la.kind == "conv"}
    stems = [place for place, kernel in kernels.items() if kernel[2] != 1]
    if len(stems) != 1:
        raise WeightsError(
            "expected the chapter's stem (the only convolution larger than 1x1 outside the dense "
            f"blocks), found {len(stems)}{': ' if stems else ''}{', '.join(stems)}"
        )
    _put(found, left.pop(stems[0]), "features.conv0")
    parent, _, place = stems[0].rpartition(".")
    after = f"{parent}." * bool(parent) + str(int(place) + 1) if place.isdigit() else ""
    if after in left and left[after].kind == "norm":
        _put(found, left.pop(after), "features.norm0")
    transitions = sorted(
        (p.removesuffix(".2") for p in kernels if p not in stems and p.endswith(".2")), key=_number
    )
    for number, transition in enumerate(transitions, 1):
        norm = left.get(f"{transition}.0")
        if norm is not None and norm.kind == "norm":
            _put(found, left.pop(f"{transition}.0"), f"features.transition{number}.norm")
            _put(found, left.pop(f"{transition}.2"), f"features.transition{number}.conv")
    norms = [place for place, layer in left.items() if layer.kind == "norm"]
    others = [place for place, layer in left.items() if layer.kind == "conv"]
    if len(norms) != 1 or others or len(transitions) != blocks - 1:
        raise WeightsError(
            f"expected the chapter's network ({blocks} dense blocks, transitions between them, and "
            f"one BatchNorm after the last block), found {len(transitions)} transitions and "
            f"{', '.join([*norms, *others][:6]) or 'no BatchNorm'}"
        )
    width = left[norms[0]].shapes["weight"][0]
    _put(found, left.pop(norms[0]), "features.norm5")
    linear = [layer for layer in left.values() if layer.kind == "linear"]
    if len(linear) == 1 and linear[0].shapes["weight"][1] == width:
        _put(found, linear[0], "classifier")


def _refuse_others_inside(shapes: Shapes, found: Mapping[str, str], around: str) -> None:
    """Raise ``WeightsError`` for other kinds of layers, such as a PReLU, in the body."""
    used = {name.removeprefix(around).partition(".")[0] for name in found}
    for name, shape in shapes.items():
        first, _, rest = name.removeprefix(around).partition(".")
        is_inside = name.startswith(around) and bool(rest) and (first in used or first.isdigit())
        heads = len(shape) == 2 or len(shapes.get(f"{name.rpartition('.')[0]}.weight", ())) == 2
        if is_inside and name not in found and not heads and not name.endswith(COUNTER):
            raise WeightsError(
                f"{name}: expected only the chapter's layers, found another kind of layer"
            )


def _put(found: dict[str, str], layer: _Layer, canonical: str) -> None:
    for leaf, name in layer.names.items():
        found[name] = f"{canonical}.{leaf}"


def _number(name: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", name)))[-1:]


# --- Layers in call order -----------------------------------------------------------------------


def names_in_order(
    convs: Sequence[tuple[Layer, tuple[int, ...]]], norms: Sequence[Layer], linear: Sequence[Layer]
) -> dict[Layer, str] | None:
    """Return {layer in the file: canonical layer} for numbered layers; None if not a DenseNet's.

    A 1x1 convolution followed by a 3x3 one is a bottleneck; any other 1x1 belongs to a transition.
    A BatchNorm precedes each convolution except the stem's. Another BatchNorm follows the last
    convolution, and an ImageNet stem has one too. Channel counts are checked
    later, with all tensors.

    Arguments:
        convs: (layer, kernel's shape as OIHW), in call order.
        norms: BatchNorms, in call order.
        linear: linear layers.
    """
    shapes = [shape for _, shape in convs]
    if len(convs) < 2 or any(len(shape) != 4 for shape in shapes) or len(linear) > 1:
        return None
    if len(norms) not in (len(convs), len(convs) + 1):
        return None
    is_pointwise = [shape[2] == 1 for shape in shapes] + [True]
    bottleneck = is_pointwise[1]
    places, block, layer = ["features.conv0"], 1, 0
    for at in range(1, len(convs)):
        if is_pointwise[at] and (not bottleneck or is_pointwise[at + 1]):
            places.append(f"features.transition{block}.conv")
            block, layer = block + 1, 0
            continue
        second = bottleneck and not is_pointwise[at]
        layer += not second
        places.append(f"features.denseblock{block}.denselayer{layer}.conv{1 + second}")
    found = {name: place for (name, _), place in zip(convs, places, strict=True)}
    before = ["features.norm0"] * (len(norms) == len(convs) + 1)
    before += [place.replace("conv", "norm") for place in places[1:]]
    found |= dict(zip(norms, [*before, "features.norm5"], strict=True))
    return found | dict.fromkeys(linear, "classifier")
