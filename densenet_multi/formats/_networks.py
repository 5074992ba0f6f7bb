"""Find the DenseNet among the tensors of a PyTorch file, whatever is around it or beside it.

The names of torchvision's body, ``conv0``, ``denseblock1.denselayer1.norm1``, ``transition1.conv``,
are found behind any prefix: wrappers (``module.``, ``encoder_q.``), entries of a training
checkpoint (``state_dict.``), another word for ``features.``, or nothing. What is left decides on
the last BatchNorm, which has many names, and on the classifier, which has more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .._checks import bad
from ..weights import WeightsError

Shapes = Mapping[str, tuple[int, ...]]
LEAVES = ("weight", "bias", "running_mean", "running_var")
IN_BODY = re.compile(
    r"(?P<around>(?:.*\.)?)"
    r"(?:(?P<stem>conv0|norm0)"
    r"|denseblock(?P<block>\d{1,3})\.denselayer(?P<layer>\d{1,3})\.(?:layers\.)?"
    r"(?P<kind>norm|conv)(?P<dot>\.?)(?P<number>[12])"
    r"|transition(?P<transition>\d{1,3})\.(?P<part>norm|conv))"
    rf"\.(?P<leaf>{'|'.join(LEAVES)})"
)
FIRST = "features.denseblock1.denselayer1.conv1.weight"
PREFERRED = ("state_dict", "model_state_dict", "model", "net")  # before averages of them
LISTED = 6


@dataclass
class Found:
    """Where a network's tensors are.

    Attributes:
        names: {name in the file: canonical name}.
        prefix: before the canonical names of the body, without "features.".
        biasless: whether the classifier has no bias.
        notes: sentences for the user.
    """

    names: dict[str, str]
    prefix: str
    biasless: bool = False
    notes: list[str] = field(default_factory=list)


def find_network(shapes: Shapes, prefix: str | None = None) -> Found:
    """Find the only network, or the one behind a prefix.

    Raises ``WeightsError`` where there is none, where there are several, where its convolutions
    are not over images, and where there are layers inside it that no DenseNet has;
    ``ConfigError`` where nothing has the prefix.

    Arguments:
        shapes: {name in the file: shape}, without PyTorch's counters.
        prefix: of the network's names, where the file holds several networks.
    """
    bodies: dict[str, dict[str, str]] = {}
    old = 0
    for name in shapes:
        if match := IN_BODY.fullmatch(name):
            body = bodies.setdefault(match["around"], {})
            canonical = _canonical(match)
            if canonical in body.values():
                raise WeightsError(f"{name}: found twice, as {canonical} too")
            body[name] = canonical
            old += bool(match["dot"])
    bodies = {around: body for around, body in bodies.items() if FIRST in body.values()}
    if not bodies:
        raise WeightsError(f"{_EXPECTED}; found {_counted(shapes)}")
    around, notes = _chosen(bodies, prefix)
    found = Found(dict(bodies.pop(around)), around.removesuffix("features."), notes=notes)
    if found.prefix and around.endswith("features."):
        notes.append(f"the prefix {found.prefix!r} was taken off every name")
    if old:
        notes.append(f"{old} names of before 2018 (norm.1) became today's (norm1)")
    if around and not around.endswith("features."):
        notes.append(f"{around.split('.')[-2]!r} in its names was read as 'features'")
    for name, canonical in found.names.items():
        if ".conv" in canonical and name.endswith("weight") and len(shapes[name]) == 5:
            raise WeightsError(
                f"{name}: expected a convolution over images, of 4 dimensions, found shape "
                f"{shapes[name]}: this network is 3D, and those here are 2D"
            )
    others = _beside(shapes, found.names, around, bodies)
    _find_last_norm(shapes, found, around, others)
    _refuse_inside(found.names, around, others)
    _find_classifier(shapes, found, around, others)
    if left := [name for name in others if name not in found.names]:
        notes.append(f"left out, because no part of the network: {_listed(left)}")
    return found


_EXPECTED = (
    "expected a DenseNet's tensors, such as features.conv0.weight and "
    "features.denseblock1.denselayer1.conv1.weight"
)


def _canonical(match: re.Match[str]) -> str:
    leaf = match["leaf"]
    if match["stem"]:
        return f"features.{match['stem']}.{leaf}"
    if match["transition"]:
        return f"features.transition{int(match['transition'])}.{match['part']}.{leaf}"
    place = f"features.denseblock{int(match['block'])}.denselayer{int(match['layer'])}"
    return f"{place}.{match['kind']}{match['number']}.{leaf}"


def _chosen(bodies: Mapping[str, object], prefix: str | None) -> tuple[str, list[str]]:
    """Which of several networks, and a note on the others."""
    shown = {around: around.removesuffix("features.") for around in bodies}
    if prefix is not None:
        wanted = [
            a for a, p in shown.items() if prefix.rstrip(".") in (p.rstrip("."), a.rstrip("."))
        ]
        if not wanted:
            known = " or ".join(map(repr, shown.values()))
            raise bad("prefix", prefix, f"what stands before a network's names: {known}")
        return wanted[0], []
    if len(bodies) == 1:
        return next(iter(bodies)), []
    for entry in PREFERRED:
        entries = [around for around in bodies if around.partition(".")[0] == entry]
        averages = [around for around in bodies if "ema" in around.partition(".")[0].lower()]
        if len(entries) == 1 and len(averages) == len(bodies) - 1:
            return entries[0], [
                f"the entry {around.partition('.')[0]!r}, an average of these weights, was left out"
                for around in averages
            ]
    listed = "\n  ".join(f"prefix={p!r}" for p in shown.values())
    raise WeightsError(f"expected one network, found {len(bodies)}; choose one with\n  {listed}")


def _beside(
    shapes: Shapes, names: Mapping[str, str], around: str, bodies: Iterable[str]
) -> list[str]:
    """What is no part of the body, nor of another network beside it."""
    theirs = []
    for other in bodies:
        parts, own = other.split("."), around.split(".")
        same = next((i for i, (a, b) in enumerate(zip(parts, own, strict=False)) if a != b), 0)
        theirs.append(".".join(parts[: same + 1]) + ".")
    return [
        name
        for name in shapes
        if name not in names and not any(name.startswith(other) for other in theirs)
    ]


def _find_last_norm(shapes: Shapes, found: Found, around: str, others: list[str]) -> None:
    """The only BatchNorm that is left and has the width of the last block's maps, by any name."""
    width = _width(shapes, found.names)
    for scope in dict.fromkeys((around, found.prefix)):
        places: dict[str, dict[str, str]] = {}
        for name in others:
            layer, _, leaf = name.removeprefix(scope).rpartition(".")
            if name.startswith(scope) and "." not in layer and leaf in LEAVES:
                places.setdefault(layer, {})[leaf] = name
        norms = {
            layer: leaves
            for layer, leaves in places.items()
            if len(leaves) == len(LEAVES) and {shapes[n] for n in leaves.values()} == {(width,)}
        }
        if len(norms) == 1:
            (leaves,) = norms.values()
            found.names |= {name: f"features.norm5.{leaf}" for leaf, name in leaves.items()}
            return


def _width(shapes: Shapes, names: Mapping[str, str]) -> int:
    """The channels after the last block."""
    places = {canonical: name for name, canonical in names.items()}
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


def _refuse_inside(names: Mapping[str, str], around: str, others: Iterable[str]) -> None:
    """Refuse layers between the network's own."""
    inside = re.compile(r"(?:denseblock|transition)\d+\.")
    unknown = [
        name
        for name in others
        if name not in names and name.startswith(around) and inside.match(name.removeprefix(around))
    ]
    if unknown:
        raise WeightsError(
            f"{unknown[0]}: expected the layers of a DenseNet alone, found {_listed(unknown)}"
        )


def _find_classifier(shapes: Shapes, found: Found, around: str, others: list[str]) -> None:
    """The only linear layer that fits, in the innermost module around the body that has layers."""
    parts = around.split(".")[:-1]
    for length in range(len(parts), -1, -1):
        scope = "".join(f"{part}." for part in parts[:length])
        names = [n for n in others if n.startswith(scope) and n not in found.names]
        layers = _layers(shapes, names)
        if layers:
            break
    else:
        return
    width = _width(shapes, found.names)
    linear = {
        place: shapes[leaves["weight"]]
        for place, leaves in layers.items()
        if _is_linear(shapes, leaves)
    }
    fitting = [place for place, shape in linear.items() if shape[1] == width]
    read_on = [
        p
        for p, shape in linear.items()
        if fitting and shape[1] == linear[fitting[0]][0] and p not in fitting
    ]
    if len(fitting) == 1 and len(linear) == len(layers) and not read_on:
        place = fitting[0]
        leaves = layers[place]
        found.names |= {
            leaves[leaf]: f"classifier.{leaf}" for leaf in ("weight", "bias") if leaf in leaves
        }
        found.biasless = "bias" not in leaves
        if place.removeprefix(found.prefix) != "classifier":
            found.notes.append(f"its classifier is called {place!r}")
        if found.biasless:
            found.notes.append("its classifier has no bias: it got one of zeros")
        return
    what = "a head of several layers or of several heads" if len(layers) > 1 else "a head"
    sizes = ", ".join(
        f"{place} {shapes[leaves.get('weight') or next(iter(leaves.values()))]}"
        for place, leaves in list(layers.items())[:LISTED]
    )
    found.notes.append(
        f"it has {what} that no DenseNet of this package has ({sizes}); its body was read, which "
        "gives features; num_classes=N makes a new classifier"
    )


def _layers(shapes: Shapes, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """{place: {leaf: name}} of what computes: weights of two dimensions and more, and norms."""
    places: dict[str, dict[str, str]] = {}
    for name in names:
        place, _, leaf = name.rpartition(".")
        if leaf in LEAVES:
            places.setdefault(place, {})[leaf] = name
    return {
        place: leaves
        for place, leaves in places.items()
        if ("weight" in leaves and len(shapes[leaves["weight"]]) > 1)
        or "running_mean" in leaves
        or {"weight", "bias"} <= leaves.keys()
    }


def _is_linear(shapes: Shapes, leaves: Mapping[str, str]) -> bool:
    weight = shapes.get(leaves.get("weight", ""), ())
    bias = shapes.get(leaves.get("bias", ""), weight[:1])
    return len(weight) == 2 and bias == weight[:1] and "running_mean" not in leaves


def _counted(shapes: Shapes) -> str:
    some = ", ".join([*list(shapes)[:3], *(["..."] if len(shapes) > 3 else [])]) or "none"
    return f"{len(shapes)} others: {some}"


def _listed(names: list[str]) -> str:
    more = [f"{len(names) - LISTED} more"] if len(names) > LISTED else []
    return ", ".join([*names[:LISTED], *more])
