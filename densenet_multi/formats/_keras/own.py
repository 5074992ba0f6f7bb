"""The package's own models as Keras saves them: ``save`` and ``save_weights``.

Their groups are named by attributes, ``features/conv0/vars/0``, and a complete model's declaration
holds its specification. A legacy ``.h5`` only numbers the layers, in the order in which they are
made, which is the manifest's.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ...checkpoint import Checkpoint
from ...manifest import layers
from ...spec import BatchNormSpec, ConvSpec, DenseNetConfig
from ...weights import Weights, WeightsError, check_weights, widest
from .._hdf5 import opened
from ..recognize import checkpoint_of, implied_usage
from .files import LEAVES, read_variables

PACKAGE = "densenet_multi"
UNSHOWN = "its epsilon, decay, dropout and pooling are assumed: no tensor shows them"
INFERENCE = (
    "expected a model of this package as it was built, found one that was rewritten for inference "
    "(its BatchNorms are folded into its convolutions): save the model that it was made from"
)


def own_config(declared: Any) -> DenseNetConfig | None:
    """The configuration that the declaration of one of this package's models holds.

    Raises ``WeightsError`` where it is damaged, ``ConfigError`` where it is impossible.
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
    if "Inference" in class_name or "Optimized" in class_name:  # its name before
        raise WeightsError(INFERENCE)
    known = {f.name for f in fields(DenseNetConfig)}
    given = spec.get("config")
    if not isinstance(given, dict) or given.keys() - known - {"spec"}:
        raise WeightsError("expected the configuration of a DenseNet, found a damaged one")
    return DenseNetConfig(**{name: value for name, value in given.items() if name != "spec"})


def looks_like_ours(path: Path) -> bool:
    """Whether the groups of a Keras file are named as this package's attributes."""
    with opened(path) as (file, _):
        return "features/conv0/vars" in file


def read_ours(path: Path, config: DenseNetConfig | None) -> Checkpoint:
    """The weights; ``config`` is None where the file does not declare it."""
    source = f"densenet_multi.keras: {path.name}"
    weights = _named_by_attributes(path)
    if config is None:
        note = f"weights alone of this package's Keras model; {UNSHOWN}"
        return checkpoint_of(weights, "biased", source, [note])
    spec = config.resolve()
    weights = weights or _numbered(path, config)
    weights = check_weights(spec, weights, widest(weights))
    usage = replace(implied_usage(config), running_variance="biased", source=source)
    return Checkpoint(spec, weights, usage)


def _named_by_attributes(path: Path) -> Weights:
    weights: Weights = {}
    for variable, array in read_variables(path):
        if variable.place is None:
            return {}
        layer = variable.place.replace("/", ".")
        leaf = variable.leaf
        if leaf.isdigit():
            kind = "batch_normalization" if "norm" in layer.rpartition(".")[2] else "conv2d"
            leaves = LEAVES[kind]
            leaf = leaves[int(leaf)] if int(leaf) < len(leaves) else leaf
        weights[f"{layer}.{leaf}"] = array
    return weights


def _numbered(path: Path, config: DenseNetConfig) -> Weights:
    """The weights of a legacy .h5."""
    found: dict[str, dict[str, Any]] = {}
    for variable, array in read_variables(path):
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
        raise WeightsError(f"{left[0]}: expected the layers of the declared network alone")
    return weights
