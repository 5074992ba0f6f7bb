"""Parse a layer's entry in a Keras model's declaration: its class, its group and its inputs.

Keras 3 writes calls as dictionaries, Keras 2 as lists. Source:
https://github.com/keras-team/keras/blob/master/keras/src/models/functional.py
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ...weights import WeightsError

MODELS = ("Functional", "Model", "Sequential")
KERAS = ("keras", "tensorflow", "tf_keras")  # modules of stock classes start with one of these
READ = "a map"  # marks an input among a layer's arguments
RENAMED = {  # older names of classes, and TensorFlow functions in Keras 2
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "Divide": "TrueDivide",
    "math.truediv": "TrueDivide",
    "math.divide": "TrueDivide",
    "math.multiply": "Multiply",
    "math.add": "Add",
    "__operators__.add": "Add",
    "nn.bias_add": "Add",
    "math.subtract": "Subtract",
    "nn.relu": "Relu",
    "cast": "Cast",
}


def kind_of(declared: dict[str, Any]) -> str:
    """Return a layer's class, with its module or package if it is not Keras' own."""
    name, module = str(declared["class_name"]), declared.get("module")
    registered = declared.get("registered_name")
    if name == "TFOpLambda":
        return RENAMED.get(str(declared["config"].get("function")), name)
    if module is not None and str(module).partition(".")[0] not in KERAS:
        return str(registered) if registered not in (None, name) else f"{module}.{name}"
    if registered not in (None, name):
        return str(registered)
    return RENAMED.get(name, name)


def is_model(declared: dict[str, Any]) -> bool:
    """Return whether an entry is a nested model whose layers are declared."""
    kind = kind_of(declared)
    return kind in MODELS or has_layers(kind, declared["config"])


def has_layers(kind: str, config: Any) -> bool:
    """Return whether a model's layers are declared; in a custom class, "layers" may be anything."""
    if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
        return False
    return kind in MODELS or not {"input_layers", "build_input_shape"}.isdisjoint(config)


def dictionary(config: Any) -> dict[str, Any]:
    """Return the value itself; raise ``TypeError`` unless it is a dictionary."""
    if not isinstance(config, dict):
        raise TypeError("a layer without arguments")
    return config


def placed(entries: list[dict[str, Any]], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (group in the file, entry). Keras 3 numbers each class's layers, but not operations."""
    counts: Counter[str] = Counter()
    for entry in entries:
        if ".ops." in str(entry.get("module")):
            yield "", entry
            continue
        word = _snake_case(entry["class_name"])
        yield f"{place}layers/{word}{f'_{counts[word]}' if counts[word] else ''}", entry
        counts[word] += 1


def _snake_case(name: str) -> str:
    """Convert a class name to Keras' snake case, such as ``zero_padding2d``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def references(listed: Any) -> list[tuple[str, int]]:
    """Return (layer, output index) of each reference; a single one need not be in a list."""
    if isinstance(listed, dict):
        return [key for each in listed.values() for key in references(each)]
    if listed and isinstance(listed[0], str):
        return [_key(listed)]
    return [key for each in listed for key in references(each)]


def _key(reference: Any) -> tuple[str, int]:
    return str(reference[0]), int(reference[2])


def read_by(name: str, entry: Any, node: Any) -> tuple[list[tuple[str, int]], list[Any]]:
    """Return the inputs of a call, in order, and all of its arguments."""
    keys: list[tuple[str, int]] = []
    given: list[Any] = []
    if isinstance(node, dict):  # Keras 3, whose predict() overrides training=True
        for each in _flat([*node.get("args", []), *node.get("kwargs", {}).values()]):
            if isinstance(each, dict) and each.get("class_name") == "__keras_tensor__":
                keys.append(_key(each["config"]["keras_history"]))
                given.append(READ)
            else:
                given.append(each)
        return keys, given
    for call in [node] if node and isinstance(node[0], str) else node:
        keys.append(_key(call))
        named = dict(call[3]) if len(call) > 3 else {}
        given += [READ, *named.values()]
        if named.get("training") is True and not kind_of(entry).startswith("Random"):
            raise WeightsError(
                f"{name} ({kind_of(entry)}): expected a layer called in inference mode, found "
                "training=True: the same weights would compute a different function"
            )
    return keys, given


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
            yield from _flat(value)
        else:
            yield value
