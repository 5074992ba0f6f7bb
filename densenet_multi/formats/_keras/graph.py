"""Build the graph of layers that a Keras model's file declares, without running any code.

A ``.keras`` archive stores the declaration as ``config.json``, a complete model's ``.h5`` file as
an attribute. Nested models are declared in place; here, all models' layers become one graph.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ...weights import WeightsError
from .entries import (
    MODELS,
    READ,
    dictionary,
    has_layers,
    is_model,
    kind_of,
    placed,
    read_by,
    references,
)

MOST_LAYERS = 20_000
SAVE = "{}.save('NAME.keras')"  # a model, in Keras
DAMAGE = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    RecursionError,
    OverflowError,
)


class UndeclaredError(Exception):
    """A model whose file does not declare its layers, because it is of a custom class."""


@dataclass(eq=False)
class Layer:
    """One layer, or one operation between layers, and what it reads.

    Attributes:
        kind: the class, such as "Conv2D"; with its module or package if it is not Keras' own.
        path: its name, after the names of the models that contain it.
        place: its group in a Keras 3 file, such as "layers/conv2d_1".
        config: its arguments.
        reads: the layers whose outputs it reads, in order.
        given: the arguments of its call, in order: ``READ`` for each of ``reads``, or other values.
        readers: the layers that read its output.
    """

    kind: str
    path: tuple[str, ...]
    place: str
    config: dict[str, Any]
    reads: list[Layer] = field(default_factory=list)
    given: list[Any] = field(default_factory=list)
    readers: list[Layer] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The layer's own name."""
        return self.path[-1]

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})"


@dataclass
class Graph:
    """All layers of a model.

    Attributes:
        layers: the layers, each after the layers that it reads; the first is the input.
        outputs: the layers whose outputs the model returns.
        own: the names of models' custom classes, where the file declares the layers anyway.
    """

    layers: list[Layer]
    outputs: list[Layer]
    own: list[str] = field(default_factory=list)

    @property
    def input(self) -> Layer:
        """The layer that outputs the images."""
        return self.layers[0]


def graph_of(declared: Any) -> Graph:
    """Return the layer graph of a Keras model config.

    Raises ``WeightsError`` if it is damaged, has several inputs, or uses a layer twice;
    ``UndeclaredError`` if the model is of a custom class whose layers are not declared.
    """
    reader = _Reader()
    try:
        outputs = reader.model(declared, "", (), None)
    except WeightsError:
        raise
    except DAMAGE as error:
        found = "nested too deeply" if isinstance(error, RecursionError) else f"{error!r:.80}"
        raise WeightsError(
            f"expected a Keras model config, found a damaged one ({found})"
        ) from None
    for layer in reader.layers:
        for read in layer.reads:
            read.readers.append(layer)
    inputs = [layer for layer in reader.layers if not layer.reads]
    if len(inputs) != 1:
        found = ", ".join(map(str, inputs[:6])) or "none"
        raise WeightsError(f"expected a model with one input, the images; found {found}")
    if not outputs:
        raise WeightsError("expected a model with an output, found one without")
    ordered = _ordered(inputs[0], reader.layers)
    for layer in ordered:
        if not layer.readers and layer not in outputs:
            raise WeightsError(
                f"{layer}: expected a layer that leads to an output, found an unused one"
            )
    return Graph(ordered, outputs, reader.own)


@dataclass
class _Entry:
    """A layer of a functional model, waiting for its inputs."""

    place: str
    declared: dict[str, Any]
    keys: list[tuple[str, int]]
    given: list[Any]
    missing: int = 0


class _Reader:
    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.own: list[str] = []

    def model(
        self, declared: dict[str, Any], place: str, path: tuple[str, ...], source: Layer | None
    ) -> list[Layer]:
        """Return the output layers of a model that reads ``source`` (None: the images)."""
        config = declared["config"]
        if isinstance(config, list):  # a Sequential of Keras before 2.2
            config = {"layers": config}
        kind = kind_of(declared)
        if not has_layers(kind, config):
            raise UndeclaredError(kind)
        if kind not in MODELS:
            self.own.append(kind)
        if len(config["layers"]) > MOST_LAYERS - len(self.layers):
            raise WeightsError(f"expected at most {MOST_LAYERS:,} layers, found more")
        if "input_layers" in config:
            return self._functional(config, place, path, source)
        return self._sequential(config, place, path, source)

    def _functional(
        self, config: dict[str, Any], place: str, path: tuple[str, ...], source: Layer | None
    ) -> list[Layer]:
        entries: dict[str, _Entry] = {}
        readers: dict[str, list[str]] = {}
        for inside, entry in placed(config["layers"], place):
            name = str(entry.get("name") or entry["config"]["name"])
            nodes = entry.get("inbound_nodes") or []
            if len(nodes) > 1 or name in entries:
                times = max(len(nodes), 2)
                raise WeightsError(
                    f"{name}: expected a layer that is used once, found one that is used {times} "
                    f"times: a DenseNet never reuses a layer{_alone(path, entry)}"
                )
            keys, given = read_by(name, entry, nodes[0]) if nodes else ([], [])
            entries[name] = _Entry(inside, entry, keys, given, len(keys))
            for key, _ in keys:
                readers.setdefault(key, []).append(name)
        starts = [key for key, _ in references(config["input_layers"])]
        if len(starts) != 1:
            raise WeightsError(
                f"expected a model with one input, the images; found {', '.join(starts[:6])}"
            )
        made: dict[str, list[Layer]] = {}
        ready = deque(name for name, entry in entries.items() if not entry.missing)
        while ready:
            name = ready.popleft()
            described = entries[name]
            if source is not None and name == starts[0] and not described.keys:
                made[name] = [source]
            else:
                reads = [_output(made, key) for key in described.keys]
                made[name] = self._one(described, (*path, name), reads)
            for reader in readers.get(name, ()):
                entries[reader].missing -= 1
                if entries[reader].missing == 0:
                    ready.append(reader)
        if len(made) != len(entries):
            left = next(name for name in entries if name not in made)
            raise WeightsError(f"{left}: expected valid inputs, found a missing or circular one")
        return [_output(made, key) for key in references(config["output_layers"])]

    def _one(self, entry: _Entry, path: tuple[str, ...], reads: list[Layer]) -> list[Layer]:
        if is_model(entry.declared):
            if len(reads) != 1:
                raise WeightsError(f"{path[-1]}: expected a model with one input (a feature map)")
            return self.model(entry.declared, f"{entry.place}/", path, reads[0])
        config = dictionary(entry.declared["config"])
        layer = Layer(kind_of(entry.declared), path, entry.place, config, reads, entry.given)
        self.layers.append(layer)
        return [layer]

    def _sequential(
        self, config: dict[str, Any], place: str, path: tuple[str, ...], source: Layer | None
    ) -> list[Layer]:
        last = source
        for inside, entry in placed(config["layers"], place):
            named = entry["config"] if isinstance(entry["config"], dict) else {}
            name = str(named.get("name", ""))
            if is_model(entry):
                ends = self.model(entry, f"{inside}/", (*path, name), last)
                if len(ends) != 1:
                    raise WeightsError(f"{name}: expected a model with one output in a Sequential")
                last = ends[0]
                continue
            if entry["class_name"] == "InputLayer" and last is not None:
                continue
            if last is None and entry["class_name"] != "InputLayer":
                shape = entry["config"].get("batch_input_shape") or config.get("build_input_shape")
                last = Layer("InputLayer", (*path, "input"), "", {"batch_shape": shape})
                self.layers.append(last)
            reads = [] if last is None else [last]
            last = Layer(kind_of(entry), (*path, name), inside, entry["config"], reads, [READ])
            self.layers.append(last)
        if last is None:
            raise WeightsError("expected a model with layers, found one without")
        return [last]


def _ordered(start: Layer, layers: list[Layer]) -> list[Layer]:
    """Sort the layers so that each follows all layers that it reads."""
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
        raise WeightsError("expected layers that read earlier layers, found a cycle")
    return found


def typed(path: Iterable[str]) -> str:
    """Return the Keras expression for a layer of a model."""
    return "model" + "".join(f".get_layer({name!r})" for name in path)


def _alone(path: tuple[str, ...], entry: dict[str, Any]) -> str:
    """Return the advice at the end of an error about a layer that is used several times."""
    if not is_model(entry):
        return ""
    inside = typed((*path, str(entry.get("name"))))
    return f". If it is the DenseNet, save it on its own: {SAVE.format(inside)}"


def _output(made: dict[str, list[Layer]], key: tuple[str, int]) -> Layer:
    name, number = key
    if not 0 <= number < len(made[name]):
        raise WeightsError(f"{name}: expected a layer with one output, found several")
    return made[name][number]
