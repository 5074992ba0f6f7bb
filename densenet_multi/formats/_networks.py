"""Find the DenseNet among a file's tensors, behind any prefix and beside any other tensors.

Used for PyTorch files, and for Gluon, Flax Linen and Flax NNX files whose tensors have
torchvision's names after reading.

The names of torchvision's body (``conv0``, ``denseblock1.denselayer1.norm1``, ``transition1.conv``)
are found behind any prefix: a wrapper (``module.``, ``encoder_q.``), an entry of a training
checkpoint (``state_dict.``), another word for ``features.``, or none. The remaining tensors are
searched for the last BatchNorm and for the classifier, whose names vary most.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .._checks import listed
from ..weights import WeightsError
from ._found import (
    LEAVES,
    Found,
    Layers,
    Shapes,
    is_counter,
    layers_of,
    left_out,
    listed_names,
    width_of,
)
from ._heads import find_classifier
from ._other_names import in_words
from ._stated import several, unknown_prefix

OF_TIMM = re.compile(  # timm's features_only=True joins the body's and its parts' names with _
    r"(?:^|(?<=\.))features_(?=(?:conv0|norm0|norm5|denseblock\d+|transition\d+)\.)"
)
NARROW = 16  # largest channel count of images; a layer that reads more cannot precede the network
IN_BODY = re.compile(
    r"(?P<around>(?:.*\.)?)"
    r"(?:(?P<stem>conv0|norm0)"
    r"|denseblock(?P<block>\d{1,3})[._]denselayer(?P<layer>\d{1,3})[._](?:layers\.)?"  # _: Linen
    r"(?P<kind>norm|conv)(?P<dot>\.?)(?P<number>[12])"
    r"|transition(?P<transition>\d{1,3})[._](?P<part>norm|conv))"
    rf"\.(?P<leaf>{'|'.join(LEAVES)})"
)
WRAPPERS = re.compile(r"\b((?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)")
IN_SEQUENCE = re.compile(  # the body's submodules, numbered by Sequential(*children)
    r"(?P<around>(?:.*\.)?)(?P<place>\d{1,3})"
    r"(?:\.(?P<inside>(?:denselayer\d{1,3}\.[\w.]+|norm|conv)))?\.(?P<leaf>\w+)"
)
FIRST = "features.denseblock1.denselayer1.conv1.weight"
AVERAGE = re.compile(r"(?:.*_)?(?:ema|swa|averaged?)(?:_.*)?")  # an entry of averaged weights
ATTENTION = re.compile(r"(?:^|[._])(?:se|cbam|eca|attn|attention)(?:[._\d]|$)", re.IGNORECASE)
OTHERS = {  # a name that only another kind of network has -> that network
    re.compile(r"(?:^|\.)layer1\.0\.conv1\.weight$"): "a ResNet",
    re.compile(r"\.0\.(?:attn|attention|self_attention)\."): "a transformer",
    re.compile(r"(?:^|\.)features\.1\.(?:0\.)?(?:conv|block)\.0\.0\.weight$"): (
        "a MobileNet or an EfficientNet"
    ),
    re.compile(r"(?:^|\.)classifier\.6\.weight$"): "a VGG or an AlexNet",
}
DIMENSIONS = {3: "1D", 5: "3D"}  # dimensions of a weight -> of its convolution


def find_network(shapes: Shapes, prefix: str | None = None) -> Found:
    """Find the only network in a file, or the one behind a prefix.

    Raises ``WeightsError`` if there is no network, if there are several, if its convolutions are
    not 2D, or if it contains layers that no DenseNet has; ``ConfigError`` if no name has the
    prefix.

    Arguments:
        shapes: {name in the file: shape}; PyTorch's counters are skipped.
        prefix: the prefix of the network's names, if the file holds several networks.
    """
    given: dict[str, str] = {}
    shapes = {name: shape for name, shape in shapes.items() if not is_counter(name)}
    numbered, theirs = _words_of_numbers(shapes), in_words(shapes)
    words = numbered | {name: word for name, (word, _) in theirs.items()}
    for name in shapes:
        plain = OF_TIMM.sub("features.", WRAPPERS.sub("", words.get(name, name)))
        if plain in given:
            raise WeightsError(f"{name}: found twice, as {given[plain]} too")
        given[plain] = name
    found = _find({plain: shapes[name] for plain, name in given.items()}, prefix)
    found.names = {given[plain]: canonical for plain, canonical in found.names.items()}
    for whose in {theirs[name][1] for name in found.names if name in theirs}:
        found.new_first = whose.new_first
        found.notes.insert(0, whose.note)
    if any(name in numbered for name in found.names):
        found.notes.append(
            "its layers have numbers instead of names, and were read in numerical order"
        )
    wrappers = sorted({word for name in found.names for word in WRAPPERS.findall(name)})
    found.notes += [f"PyTorch's wrapper {word!r} was removed from the names" for word in wrappers]
    return found


def _find(shapes: Shapes, prefix: str | None) -> Found:
    bodies: dict[str, dict[str, str]] = {}  # {prefix: {canonical name: name}}
    for name in shapes:
        if match := IN_BODY.fullmatch(name):
            body = bodies.setdefault(match["around"], {})
            canonical = _canonical(match)
            if canonical in body:
                raise WeightsError(f"{name}: found twice, as {canonical} too")
            body[canonical] = name
    bodies = {around: body for around, body in bodies.items() if FIRST in body}
    if not bodies:
        raise WeightsError(f"{_EXPECTED}; found {_counted(shapes)}")
    around, notes = chosen(bodies, prefix)
    names = {name: canonical for canonical, name in bodies.pop(around).items()}
    found = Found(names, around.removesuffix("features."), notes=notes)
    _tell_names(found, around)
    for name, canonical in found.names.items():
        kind = DIMENSIONS.get(len(shapes[name]))
        if kind and ".conv" in canonical and name.endswith("weight"):
            raise WeightsError(
                f"{name}: expected a 2D convolution, whose weight has 4 dimensions, found shape "
                f"{shapes[name]}, that of a {kind} network"
            )
    others = _beside(shapes, found.names, around, bodies)
    _find_last_norm(shapes, found, around, others)
    others = [name for name in others if name not in found.names]
    if prefix is None:
        _refuse_before(shapes, found, around, others)
    head = find_classifier(shapes, found, around, others)
    _refuse_inside(shapes, found, around, others)
    found.notes += left_out(shapes, [n for n in others if n not in found.names and n not in head])
    return found


_EXPECTED = (
    "expected a DenseNet's tensors, such as features.conv0.weight and "
    "features.denseblock1.denselayer1.conv1.weight"
)


def _words_of_numbers(shapes: Shapes) -> dict[str, str]:
    """Return {name: torchvision's equivalent} for bodies whose submodules are only numbered."""
    if any("denseblock" in name for name in shapes):
        return {}
    blocks: dict[str, list[int]] = {}
    for name in shapes:
        if (match := IN_SEQUENCE.fullmatch(name)) and "denselayer" in (match["inside"] or ""):
            numbers = blocks.setdefault(match["around"], [])
            if int(match["place"]) not in numbers:
                numbers.append(int(match["place"]))
    found = {}
    for name in shapes:
        match = IN_SEQUENCE.fullmatch(name)
        if match is None or match["around"] not in blocks:
            continue
        numbers, number = sorted(blocks[match["around"]]), int(match["place"])
        before = sum(block < number for block in numbers)
        inside = match["inside"] or ""
        if number in numbers:
            word = f"denseblock{before + 1}"
        elif 0 < before < len(numbers) and inside in ("norm", "conv"):
            word = f"transition{before}"
        elif before == 0 and not inside:
            is_norm = f"{match['around']}{number}.running_mean" in shapes
            word = "norm0" if is_norm else "conv0"
        else:
            continue
        rest = ".".join(part for part in (word, inside, match["leaf"]) if part)
        found[name] = match["around"] + rest
    return found


def _tell_names(found: Found, around: str) -> None:
    """Add notes on unusual names."""
    if found.prefix and around.endswith("features."):
        found.notes.append(f"the prefix {found.prefix!r} was removed from every name")
    elif around != "features.":
        start = f"start with {around!r}" if around else "have no prefix"
        found.notes.append(f"the names of its body {start}: read as if they began with 'features.'")
    old = sum(bool(match["dot"]) for match in map(IN_BODY.fullmatch, found.names) if match)
    if old:
        found.notes.append(f"{old} names from before 2018 (norm.1) became today's (norm1)")


def _canonical(match: re.Match[str]) -> str:
    leaf = match["leaf"]
    if match["stem"]:
        return f"features.{match['stem']}.{leaf}"
    if match["transition"]:
        return f"features.transition{int(match['transition'])}.{match['part']}.{leaf}"
    place = f"features.denseblock{int(match['block'])}.denselayer{int(match['layer'])}"
    return f"{place}.{match['kind']}{match['number']}.{leaf}"


def chosen(bodies: Mapping[str, object], prefix: str | None) -> tuple[str, list[str]]:
    """Choose one of several networks by its prefix; also return notes on the others."""
    shown = {around: around.removesuffix("features.") for around in bodies}
    if prefix is not None:
        wanted = [
            a for a, p in shown.items() if prefix.rstrip(".") in (p.rstrip("."), a.rstrip("."))
        ]
        if not wanted:
            raise unknown_prefix(prefix, shown.values())
        return wanted[0], []
    if len(bodies) == 1:
        return next(iter(bodies)), []
    averages = {
        around: [word for word in around.split(".") if AVERAGE.fullmatch(word.lower())]
        for around in bodies
    }
    entries = [around for around, words in averages.items() if not words]
    if len(entries) == 1:
        return entries[0], [
            f"the entry {words[0]!r}, an average of these weights, was ignored; "
            f"to read it: prefix={shown[around]!r}"
            for around, words in averages.items()
            if words
        ]
    raise several(list(shown.values()))


def _beside(
    shapes: Shapes, names: Mapping[str, str], around: str, bodies: Iterable[str]
) -> list[str]:
    """Return the names that belong neither to the body nor to another network in the file."""
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
    """Find the only remaining BatchNorm with as many channels as the last block's output."""
    width = width_of(shapes, found.names)
    for scope in dict.fromkeys((around, found.prefix)):
        places: Layers = {}
        for name in others:
            layer, _, leaf = name.removeprefix(scope).rpartition(".")
            if name.startswith(scope) and "." not in layer and leaf in LEAVES:
                places.setdefault(layer, {})[leaf] = name
        norms = {
            layer: leaves
            for layer, leaves in places.items()
            if len(leaves) == len(LEAVES) and {shapes[n] for n in leaves.values()} == {(width,)}
        }
        if "norm5" in places:  # with any width: the check of all tensors reports a wrong width
            norms = {"norm5": places["norm5"]}
        if len(norms) == 1:
            ((place, leaves),) = norms.items()
            if scope != around:
                found.notes.append(f"{scope + place!r} is assumed to be its last BatchNorm")
            found.names |= {name: f"features.norm5.{leaf}" for leaf, name in leaves.items()}
            return


def _refuse_inside(shapes: Shapes, found: Found, around: str, others: Iterable[str]) -> None:
    """Raise ``WeightsError`` for layers inside the network that no DenseNet has."""
    inside = {
        name: name.removeprefix(around)
        for name in others
        if name.startswith(around) and name not in found.names
    }
    computing = {n for leaves in layers_of(shapes, inside).values() for n in leaves.values()}
    unknown = [
        name
        for name, rest in inside.items()
        if re.match(r"(?:denseblock|transition)\d+[._]", rest)
        or around.endswith("features.")
        or ATTENTION.search(rest)
        or (name in computing and len(shapes[name]) > 2)
    ]
    if unknown:
        raise WeightsError(
            f"{unknown[0]}: expected only a DenseNet's layers, found {listed_names(unknown)}"
        )


def _refuse_before(shapes: Shapes, found: Found, around: str, others: list[str]) -> None:
    """Raise ``WeightsError`` for a layer outside the network that may compute its input."""
    stem = next((n for n, c in found.names.items() if c == "features.conv0.weight"), "")
    channels = (*shapes.get(stem, ()), 0, 0)[1]
    for place, leaves in layers_of(shapes, others).items():
        scope = f"{place}.".rpartition(f"{place.rpartition('.')[2]}.")[0]
        weight = shapes.get(leaves.get("weight", ""), ())
        reads_images = len(weight) == 4 and weight[0] == channels and weight[1] <= NARROW
        normalizes = weight == (channels,) and "running_mean" in leaves
        if around.startswith(scope) and (reads_images or normalizes):
            raise WeightsError(
                f"{place}: expected no layer before the network, found one that may precede it: "
                f"this layer has {channels} output channels, as many as the network's input; if it "
                f"does not precede the network, pass prefix={found.prefix!r}"
            )


def _counted(shapes: Shapes) -> str:
    """Return what a file holds instead of a DenseNet, and the kind of network if names show it."""
    if list(shapes) == [""]:
        return "one tensor, without a name"
    if not shapes:
        return "no tensors; save the weights themselves: torch.save(model.state_dict(), 'NEW.pth')"
    if any("dense" in name.lower() for name in shapes):  # a DenseNet with unknown names
        return f"{len(shapes)} others: {listed(shapes)}"
    what = next((what for name, what in OTHERS.items() if any(map(name.search, shapes))), None)
    return f"{len(shapes)} {f'of {what}' if what else 'others'}: {listed(shapes)}"
