"""Flax NNX's names and layouts, in ``.safetensors``, an Orbax folder, or MessagePack.

Names are a model's attribute paths, joined by dots (or slashes): ``features.conv0.kernel``. Kernels
are HWIO; the classifier's is (in, out).
Source: https://flax.readthedocs.io/en/latest/guides/checkpointing.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import Checkpoint
from ..manifest import tensors
from ..spec import DenseNetSpec
from ..weights import WeightsError
from ._flax_files import dotted, is_of_optimizer, names_of_flax, nested, read_arrays, write_orbax
from ._found import no_part
from ._layouts import FROM_CHANNELS_LAST, TO_CHANNELS_LAST
from ._networks import find_network
from ._notes import assumed, differences, unstored
from ._safetensors import to_float, write_safetensors
from ._stated import NOTHING, Stated
from .recognize import checkpoint_of

BACKEND = "flax"
EPSILON, DECAY = 1e-5, 0.9  # defaults of this package's models
LEAVES = {  # kind of tensor -> NNX's leaf
    "conv.weight": "kernel",
    "conv.bias": "bias",
    "norm.weight": "scale",
    "norm.bias": "bias",
    "norm.running_mean": "mean",
    "norm.running_var": "var",
    "linear.weight": "kernel",
    "linear.bias": "bias",
}
STATE = ("count", "key")  # leaves of random number generators
CANONICAL = {leaf: kind.partition(".")[2] for kind, leaf in LEAVES.items()}


def looks_like(path: Path, head: bytes) -> bool:
    """Return whether a file has NNX's names; accept any folder (``read`` lets Orbax check it)."""
    return path.is_dir() or bool(names_of_flax(path, head))


def read(path: Path, stated: Stated = NOTHING) -> Checkpoint:
    """Read the weights; their running variances are biased, as Flax computes them."""
    weights: dict[str, Any] = {}
    left_out = []
    for full, value in read_arrays(path).items():
        layer, _, leaf = dotted(full).rpartition(".")
        axes = FROM_CHANNELS_LAST.get(len(value.shape))
        if leaf not in CANONICAL or axes is None or is_of_optimizer(layer):
            if "denseblock" in layer and leaf not in STATE and not is_of_optimizer(layer):
                raise WeightsError(f"{full}: expected only DenseNet layers, found another layer")
            left_out.append(full)  # an optimizer's state, or dropout's random state
            continue
        array = to_float(np.asarray(value)).transpose(axes)
        weights[f"{layer}.{CANONICAL[leaf]}"] = np.array(array, order="C")
    notes = []
    if left_out:
        notes.append(no_part(left_out))
    if "features.conv0.weight" not in weights:  # nested, or another kind of network
        found = find_network({name: array.shape for name, array in weights.items()}, stated.prefix)
        weights = {canonical: weights[name] for name, canonical in found.names.items()}
        notes += found.notes
    notes.append(assumed(EPSILON, DECAY))
    known = {"bn_eps": EPSILON, "bn_decay": DECAY}
    return checkpoint_of(weights, "biased", f"Flax NNX: {path.name}", notes, **known)


def write(path: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Write safetensors if the name ends in ``.safetensors``, otherwise an Orbax folder."""
    native = to_nnx(checkpoint.spec, checkpoint.weights)
    if path.name.endswith(".safetensors"):
        write_safetensors(path, native)
    else:
        write_orbax(path, nested(native))
    models = "this package's Flax models"  # the file stores neither epsilon nor decay
    return (
        *differences(checkpoint, models, (EPSILON, DECAY), "Flax's", "biased"),
        *unstored(checkpoint),
    )


def to_nnx(spec: DenseNetSpec, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return {NNX name: array in NNX's layout} of every tensor."""
    native = {}
    for name, info in tensors(spec).items():
        array = weights[name].transpose(TO_CHANNELS_LAST[weights[name].ndim])
        native[f"{name.rpartition('.')[0]}.{LEAVES[info.kind]}"] = np.ascontiguousarray(array)
    return native
