"""Read this package's own models from files that Keras' ``save`` and ``save_weights`` wrote.

Groups are named after attributes, as in ``features/conv0/vars/0``, and a complete model's
declaration contains its specification. A legacy ``.h5`` only numbers the layers in the order of
their creation, which is the order of ``manifest.layers``. Our model may be nested in another model,
after layers that preprocess pixels, and before an activation or a classifier.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..._checks import listed
from ...checkpoint import Checkpoint
from ...manifest import layers
from ...spec import BatchNormSpec, ConvSpec, DenseNetConfig
from ...weights import Weights, WeightsError, check_weights, widest
from .._hdf5 import MAGIC, opened, walk
from .._notes import assumed
from ..recognize import checkpoint_of, implied_usage
from .declared import before_network, notes_of_classes
from .files import LEAVES, read_declared, read_variables
from .found import Declared
from .graph import DAMAGE, Graph, Layer
from .head import activation_after, chain
from .layers import IDLE, only_reader
from .texts import names_in

PACKAGE = "densenet_multi"
EPSILON, DECAY = 1e-5, 0.9  # defaults of this package's models
SAVE_ALL = "to keep all layers, save the complete model: model.save('NEW.keras')"
INFERENCE = (
    "expected a model of this package as it was built, found one rewritten for inference (its "
    "BatchNorms are folded into its convolutions); save the model that it was made from"
)


def own_config(declared: Any) -> DenseNetConfig | None:
    """Return the configuration in a declaration of this package's models; None for other models.

    Raises ``WeightsError`` if it is damaged, ``ConfigError`` if its values are invalid.
    """
    if not isinstance(declared, dict):
        return None
    class_name, module = str(declared.get("class_name")), str(declared.get("module"))
    config = declared.get("config")
    spec = config.get("spec") if isinstance(config, dict) else None
    is_ours = module.partition(".")[0] == PACKAGE or PACKAGE in class_name
    if not isinstance(spec, dict) or spec.get("spec") != "DenseNetSpec":
        return None
    if "DenseNet" not in class_name or not (is_ours or module == "None"):
        return None
    if "Inference" in class_name or "Optimized" in class_name:  # "Optimized" is the former name
        raise WeightsError(INFERENCE)
    known = {f.name for f in fields(DenseNetConfig)}
    given = spec.get("config")
    if not isinstance(given, dict) or given.keys() - known - {"spec"}:
        raise WeightsError("expected the configuration of a DenseNet, found a damaged one")
    return DenseNetConfig(**{name: value for name, value in given.items() if name != "spec"})


def own_groups(path: Path) -> list[str]:
    """Return the groups with this package's attribute names inside; "" is the file itself."""
    first = "features/conv0/vars"
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
    if head == MAGIC and not names_in(path, head, (b"conv0",)):  # faster than walking all groups
        return []
    with opened(path) as (file, _):
        if first in file:
            return [""]
        return [p.removesuffix(first) for p, _ in walk(file) if p.endswith(f"/{first}")]


def read_ours(path: Path, config: DenseNetConfig) -> Checkpoint:
    """Read a complete model, whose file declares its configuration."""
    weights = _named_by_attributes(path, "") or _numbered(path, config)
    return _checkpoint(path, config, weights)


def read_our_weights(path: Path, groups: list[str], notes: list[str]) -> Checkpoint:
    """Read a weights-only file, or one whose model is not declared."""
    if len(groups) > 1:
        raise WeightsError(
            f"expected one network, found {len(groups)}: {listed(groups)}; save one of them with "
            "model.get_layer('NAME').save('NEW.keras')"
        )
    (within,) = groups
    if within:
        places = ["/".join(variable.parts) for variable, _ in read_variables(path)]
        if beside := [place for place in places if not place.startswith(within)]:
            raise WeightsError(
                f"{beside[0]}: expected only this package's model, in {within}, found other layers "
                f"with weights, which a weights-only file does not declare; {SAVE_ALL}"
            )
        around = (
            f"its model was nested in another one, at {within}; the layers around it, such as "
            f"those that preprocess pixels, are not in a weights-only file; {SAVE_ALL}"
        )
        notes = [*notes, around]
    weights = _named_by_attributes(path, within)
    notes = [*notes, assumed(EPSILON, DECAY)]
    known = {"bn_eps": EPSILON, "bn_decay": DECAY}
    return checkpoint_of(weights, "biased", _source(path), notes, **known)


def own_layer(graph: Graph) -> tuple[Layer, DenseNetConfig] | None:
    """Return the first of this package's models in another model, and its configuration."""
    for layer in graph.layers:
        config = own_config({"class_name": layer.kind, "config": layer.config})
        if config is not None:
            return layer, config
    return None


def declared_around(graph: Graph, own: Layer, config: DenseNetConfig) -> Declared:
    """Return what another model's layers do before and after this package's model.

    Raises ``WeightsError`` if they do more than preprocess pixels, classify features and apply an
    activation.
    """
    try:
        return _around(graph, own, config)
    except WeightsError:
        raise
    except DAMAGE as error:
        raise WeightsError(
            f"expected a Keras model config, found a damaged one ({error!r:.80})"
        ) from None


def _around(graph: Graph, own: Layer, config: DenseNetConfig) -> Declared:
    alone = f"save it on its own: model.get_layer({own.name!r}).save('NEW.keras')"
    found = Declared(notes=notes_of_classes(graph))
    first = only_reader(before_network(found, graph.input))
    following = chain(own)
    last = (following or [own])[-1]
    dense = [layer for layer in following if layer.kind == "Dense"]
    has_logits = config.num_classes > 0
    activation = activation_after(own, following, dense, logits=has_logits)
    problem = first if first is not own else None
    if problem is None and (last.readers or graph.outputs != [last]):
        problem = next(iter([*last.readers, *(o for o in graph.outputs if o is not last)]), own)
    if problem is None and (activation is None or (has_logits and dense)):
        problem = next((layer for layer in following if layer.kind not in IDLE), own)
    if problem is not None:
        raise WeightsError(
            f"{problem}: expected this package's model {own} with nothing around it but layers "
            f"that preprocess pixels, an activation, or a classifier of its features; {alone}"
        )
    if dense:
        found.layers["classifier"] = dense[0]
    found.activation = activation if has_logits or dense else None
    return found


def read_inside(path: Path, own: Layer, config: DenseNetConfig, declared: Declared) -> Checkpoint:
    """Read this package's model inside another model, and the classifier after it, if any."""
    more, declared.stored = read_declared(path, declared)
    weights = _named_by_attributes(path, f"{own.place}/")
    weights = (weights or _numbered(path, config, own.path[0])) | more
    if (kernel := more.get("classifier.weight")) is not None:
        config = replace(config, num_classes=len(kernel))
        weights.setdefault("classifier.bias", np.zeros(len(kernel), kernel.dtype))
    return _checkpoint(path, config, weights)


def _checkpoint(path: Path, config: DenseNetConfig, weights: Weights) -> Checkpoint:
    spec = config.resolve()
    weights = check_weights(spec, weights, widest(weights))
    usage = replace(implied_usage(config), running_variance="biased", source=_source(path))
    return Checkpoint(spec, weights, usage)


def _source(path: Path) -> str:
    return f"densenet_multi.keras: {path.name}"


def _named_by_attributes(path: Path, within: str) -> Weights:
    """Return the weights in a group of a Keras 3 file; none for an older file."""
    weights: Weights = {}
    for variable, array in read_variables(path):
        if variable.place is None:
            return {}
        if not variable.place.startswith(within):
            continue
        layer = variable.place.removeprefix(within).replace("/", ".")
        leaf = variable.leaf
        if leaf.isdigit():
            kind = "batch_normalization" if "norm" in layer.rpartition(".")[2] else "conv2d"
            leaves = LEAVES[kind]
            leaf = leaves[int(leaf)] if int(leaf) < len(leaves) else leaf
        weights[f"{layer}.{leaf}"] = array
    return weights


def _numbered(path: Path, config: DenseNetConfig, within: str | None = None) -> Weights:
    """Return the weights of a legacy .h5, or only those of its layer ``within``."""
    found: dict[str, dict[str, Any]] = {}
    for variable, array in read_variables(path):
        if within is not None and within not in variable.parts[:2]:
            continue
        found.setdefault(variable.parts[-1], {})[variable.leaf] = array
    places: dict[str, list[str]] = {kind: [] for kind in LEAVES}
    for name in sorted(found, key=lambda n: int((re.findall(r"_(\d+)$", n) or ["0"])[0])):
        places.get(re.sub(r"_\d+$", "", name), []).append(name)
    weights: Weights = {}
    numbers = {kind: iter(names) for kind, names in places.items()}
    for layer, spec in layers(config.resolve()):
        kind = "conv2d" if isinstance(spec, ConvSpec) else "dense"
        kind = "batch_normalization" if isinstance(spec, BatchNormSpec) else kind
        place = next(numbers[kind], "")
        for leaf, array in found.get(place, {}).items():
            weights[f"{layer}.{leaf}"] = array
    if left := [name for names in numbers.values() for name in names]:
        raise WeightsError(f"{left[0]}: expected only layers of the declared network, found more")
    return weights
