"""A Keras model as its file declares it: layers, and which reads what. Data, never code.

A ``.keras`` archive has a ``config.json``, a whole model in ``.h5`` an attribute of the same kind.
Keras 3 writes what a layer reads as dictionaries, Keras 2 as lists; models inside models are
written in place. Here they become one graph. Source:
https://github.com/keras-team/keras/blob/master/keras/src/models/functional.py
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..weights import WeightsError

MODELS = ("Functional", "Model", "Sequential")
MOST_LAYERS = 20_000


class UndeclaredError(Exception):
    """A model whose file does not say what is inside: a class of its own."""


@dataclass(eq=False)
class Layer:
    """One layer, or one operation between layers, and what it reads.

    Attributes:
        kind: the class, such as "Conv2D".
        name: the layer's own name.
        place: its group in a file of Keras 3, such as "layers/conv2d_1".
        config: its arguments.
        reads: the layers before it, in order.
        others: what else it was called with, such as numbers.
        readers: the layers after it.
    """

    kind: str
    name: str
    place: str
    config: dict[str, Any]
    reads: list[Layer] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)
    readers: list[Layer] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})"


@dataclass
class Graph:
    """All layers in an order in which each comes after what it reads; the input is the first."""

    layers: list[Layer]
    output: Layer

    @property
    def input(self) -> Layer:
        """The images."""
        return self.layers[0]


def graph_of(declared: Any) -> Graph:
    """The graph of a model's declaration.

    Raises ``WeightsError`` where it is damaged, has several inputs or outputs, or a layer that is
    used twice; ``UndeclaredError`` where a model is a class of its own.
    """
    try:
        _, layers, ends = _model(declared, "", None)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"expected a model's declaration, found a damaged one ({error})"
        ) from None
    if len(ends) != 1:
        raise WeightsError(f"expected a model with one output, found {len(ends)}")
    inputs = [layer for layer in layers if not layer.reads]
    if len(inputs) != 1 or len(layers) > MOST_LAYERS:
        raise WeightsError(
            f"expected a model with one input and at most {MOST_LAYERS:,} layers, found "
            f"{len(inputs)} and {len(layers):,}"
        )
    for layer in layers:
        for read in layer.reads:
            read.readers.append(layer)
    ordered = _ordered(inputs[0], layers)
    return Graph(ordered, ends[0])


def _model(
    declared: dict[str, Any], place: str, source: Layer | None
) -> tuple[Layer, list[Layer], list[Layer]]:
    """First layer, all layers and outputs of a model that reads ``source`` (None: images)."""
    if declared["class_name"] not in MODELS or "layers" not in _layers_of(declared):
        raise UndeclaredError(declared.get("registered_name") or declared["class_name"])
    config = _layers_of(declared)
    if declared["class_name"] == "Sequential":
        return _sequential(config, place, source)
    made: dict[str, list[Layer]] = {}  # name -> what reading it gives
    layers: list[Layer] = []
    waiting = list(_placed(config["layers"], place))
    start = [_key(entry) for entry in _references(config["input_layers"])]
    if len(start) != 1:
        raise WeightsError(f"expected a model with one input, found {len(start)}")
    while waiting:
        later = []
        for inside, entry in waiting:
            name = entry.get("name") or entry["config"]["name"]
            nodes = entry.get("inbound_nodes") or []
            if len(nodes) > 1:
                raise WeightsError(
                    f"{name}: expected a layer that is used once, found {len(nodes)}"
                )
            keys, others = _read_by(nodes[0]) if nodes else ([], [])
            if any(key not in made for key in keys):
                later.append((inside, entry))
                continue
            reads = [made[key][0] for key in keys]
            if not nodes and source is not None and name == start[0]:
                made[name] = [source]
                continue
            if entry["class_name"] in MODELS:
                if len(reads) != 1:
                    raise WeightsError(f"{name}: expected a model that reads one map")
                _, within, ends = _model(entry, f"{inside}/", reads[0])
                layers += within
                made[name] = ends
                continue
            layer = Layer(entry["class_name"], name, inside, entry["config"], reads, others)
            layers.append(layer)
            made[name] = [layer]
        if len(later) == len(waiting):
            raise WeightsError(f"expected layers that read layers before them, found {later[0][0]}")
        waiting = later
    ends = [made[_key(entry)][0] for entry in _references(config["output_layers"])]
    first = source if source is not None else layers[0]
    return first, layers, ends


def _sequential(
    config: dict[str, Any], place: str, source: Layer | None
) -> tuple[Layer, list[Layer], list[Layer]]:
    layers: list[Layer] = []
    last = source
    for inside, entry in _placed(config["layers"], place):
        if entry["class_name"] in MODELS:
            _, within, ends = _model(entry, f"{inside}/", last)  # None: it brings its own input
            layers += within
            (last,) = ends
            continue
        if entry["class_name"] == "InputLayer" and last is not None:
            continue
        name = entry["config"]["name"]
        if last is None and entry["class_name"] != "InputLayer":
            shape = entry["config"].get("batch_input_shape") or config.get("build_input_shape")
            last = Layer("InputLayer", "input", "", {"batch_shape": shape})
            layers.append(last)
        reads = [] if last is None else [last]
        last = Layer(entry["class_name"], name, inside, entry["config"], reads)
        layers.append(last)
    if last is None:
        raise WeightsError("expected a model with layers, found one without")
    return layers[0] if layers else last, layers, [last]


def _layers_of(declared: dict[str, Any]) -> dict[str, Any]:
    config = declared["config"]
    if isinstance(config, list):  # a Sequential of Keras before 2.2
        return {"layers": config, "name": "sequential"}
    found: dict[str, Any] = config
    return found


def _placed(entries: list[dict[str, Any]], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(group in the file, layer): Keras 3 numbers the layers of each class, operations aside."""
    counts: Counter[str] = Counter()
    for entry in entries:
        if ".ops." in str(entry.get("module")):
            yield "", entry
            continue
        word = _snake_case(entry["class_name"])
        yield f"{place}layers/{word}{f'_{counts[word]}' if counts[word] else ''}", entry
        counts[word] += 1


def _snake_case(name: str) -> str:
    """As Keras writes it: ``conv2d``, ``batch_normalization``, ``zero_padding2d``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _references(listed: Any) -> list[Any]:
    """The references in ``input_layers``: one alone is not always in a list."""
    return [listed] if listed and isinstance(listed[0], str) else list(listed)


def _key(reference: Any) -> str:
    return str(reference[0])


def _read_by(node: Any) -> tuple[list[str], list[Any]]:
    """The names of the layers that a call reads, in order, and its other arguments."""
    if isinstance(node, dict):  # Keras 3
        keys: list[str] = []
        others: list[Any] = []
        for each in _flat([*node.get("args", []), *node.get("kwargs", {}).values()]):
            if isinstance(each, dict) and each.get("class_name") == "__keras_tensor__":
                keys.append(str(each["config"]["keras_history"][0]))
            elif isinstance(each, dict) and each.get("class_name") == "__tensor__":
                others.append(each["config"]["value"])
            else:
                others.append(each)
        return keys, others
    entries = [node] if node and isinstance(node[0], str) else list(node)
    found = [str(entry[0]) for entry in entries]
    more = [v for entry in entries if len(entry) > 3 for v in entry[3].values()]
    return found, more


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
            yield from _flat(value)
        else:
            yield value


def _ordered(start: Layer, layers: list[Layer]) -> list[Layer]:
    """The layers that the images reach, each after all that it reads."""
    missing = {id(layer): len(layer.reads) for layer in layers}
    ready, found = [start], []
    while ready:
        layer = ready.pop()
        found.append(layer)
        for reader in layer.readers:
            missing[id(reader)] -= 1
            if missing[id(reader)] == 0:
                ready.append(reader)
    if len(found) != len(layers):
        raise WeightsError("expected layers that read layers before them, found a circle")
    return found
