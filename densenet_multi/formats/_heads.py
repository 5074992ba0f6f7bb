"""Find the head of a PyTorch network: a classifier, or another head, reported in a note."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from ..weights import WeightsError
from ._found import LISTED, Found, Layers, Shapes, is_linear, layers_of, width_of
from ._notes import FEATURES

MARGIN = re.compile(r"(?:^|[._])(?:arc|cos|metric|sphere)|margin", re.IGNORECASE)


def find_classifier(
    shapes: Shapes, found: Found, around: str, others: list[str]
) -> Collection[str]:
    """Find the classifier, the only linear layer that fits, and add it to ``found``.

    The innermost module around the body with other layers is searched. If its head is not such a
    classifier, add a note. Returns the names of that head's tensors, or of the classifier's copies.
    """
    layers: Layers = {}
    parts = around.split(".")[:-1]
    for length in range(len(parts), -1, -1):
        scope = "".join(f"{part}." for part in parts[:length])
        if layers := layers_of(shapes, [n for n in others if n.startswith(scope)]):
            break
    for leaves in layers.values():
        _refuse_another_bias(shapes, leaves)
    width = width_of(shapes, found.names)
    linear = {
        p: shapes[leaves["weight"]] for p, leaves in layers.items() if is_linear(shapes, leaves)
    }
    fitting = [place for place, shape in linear.items() if shape[1] == width]
    further = layers_of(shapes, others)
    if len(fitting) == 1:  # layers further out may fit too, or read this one's outputs
        outputs = linear[fitting[0]][0]
        layers |= {
            place: leaves
            for place, leaves in further.items()
            if is_linear(shapes, leaves) and shapes[leaves["weight"]][1] in (width, outputs)
            if place in layers or place not in _copies(fitting[0], further)
        }
    if not layers:
        return ()
    if len(layers) == 1 and fitting and not _has_more(shapes, fitting[0], layers[fitting[0]]):
        _take_classifier(found, fitting[0], layers[fitting[0]])
        copies = _copies(fitting[0], further)
        found.notes += [f"{copy!r}, a copy outside the network, was ignored" for copy in copies]
        return {name for copy in copies for name in further[copy].values()}
    found.notes.append(another_head(shapes, layers))
    return {name for leaves in layers.values() for name in leaves.values()}


def another_head(shapes: Shapes, layers: Layers) -> str:
    """Return the note on a head that is not a classifier."""
    what = "several heads or a head of several layers" if len(layers) > 1 else "a head"
    sizes = ", ".join(
        f"{place or name} {shapes[name]}"
        for place, leaves in list(layers.items())[:LISTED]
        for name in [leaves.get("weight") or next(iter(leaves.values()))]
    )
    return f"it has {what} that no DenseNet of this package has ({sizes}); {FEATURES}"


def _copies(place: str, layers: Iterable[str]) -> list[str]:
    """Return the names under which a layer was saved again, such as b.fc and fc for a.b.fc."""
    return [other for other in layers if other and place.endswith(f".{other}")]


def _has_more(shapes: Shapes, place: str, leaves: Mapping[str, str]) -> bool:
    """Return whether a head is more than a linear layer: learned activation, scale, margin loss."""
    parent, _, number = place.rpartition(".")
    if not leaves.keys() <= {"weight", "bias"}:
        return True
    if "bias" not in leaves and MARGIN.search(place):
        return True
    beside = re.compile(rf"{re.escape(parent)}\.(\d+)\.")
    return number.isdigit() and any(
        match[1] != number for match in map(beside.match, shapes) if match
    )


def _take_classifier(found: Found, place: str, leaves: Mapping[str, str]) -> None:
    found.names |= {
        leaves[leaf]: f"classifier.{leaf}" for leaf in ("weight", "bias") if leaf in leaves
    }
    if place.removeprefix(found.prefix) != "classifier":
        found.notes.append(f"its classifier is named {place!r}")


def _refuse_another_bias(shapes: Shapes, leaves: Mapping[str, str]) -> None:
    """Raise ``WeightsError`` for a linear layer whose bias does not fit its weight."""
    weight, bias = (shapes.get(leaves.get(leaf, ""), ()) for leaf in ("weight", "bias"))
    if len(weight) == 2 and len(bias) == 1 and weight[:1] != bias:
        raise WeightsError(
            f"{leaves['bias']}: expected shape {weight[:1]}, because {leaves['weight']} has "
            f"shape {weight}, found {bias}"
        )
