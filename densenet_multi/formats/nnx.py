"""Flax NNX: a ``.safetensors`` file with its names and layouts, or an Orbax folder.

Names are a model's attribute paths, joined by dots (or slashes): ``features.conv0.kernel``. Kernels
are HWIO, the classifier's is (in, out).
Source: https://flax.readthedocs.io/en/latest/guides/checkpointing.html
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._installed import framework
from ..checkpoint import Checkpoint
from ..manifest import tensors
from ..spec import DenseNetSpec
from ..weights import WeightsError
from ._layouts import FROM_CHANNELS_LAST, TO_CHANNELS_LAST
from ._limits import is_bomb
from ._notes import differences, unsaid
from ._safetensors import (
    is_safetensors,
    names_in_safetensors,
    read_safetensors,
    to_float,
    write_safetensors,
)
from ._told import NOTHING, Told
from .recognize import checkpoint_of

BACKEND = "flax"
LEAVES = {  # kind of tensor -> NNX' leaf
    "conv.weight": "kernel",
    "conv.bias": "bias",
    "norm.weight": "scale",
    "norm.bias": "bias",
    "norm.running_mean": "mean",
    "norm.running_var": "var",
    "linear.weight": "kernel",
    "linear.bias": "bias",
}
CANONICAL = {leaf: kind.partition(".")[2] for kind, leaf in LEAVES.items()}


def looks_like(path: Path, head: bytes) -> bool:
    """Whether it is safetensors with NNX' names, or a folder (``read`` lets Orbax check it)."""
    if is_safetensors(head):
        return any(name.endswith("kernel") for name in names_in_safetensors(path))
    return path.is_dir()


def read(path: Path, told: Told = NOTHING) -> Checkpoint:  # told nothing else
    """The weights; their running variances are biased, as Flax' are."""
    found = _read_orbax(path) if path.is_dir() else read_safetensors(path)[1]
    weights: dict[str, Any] = {}
    left_out = []
    for full, value in found.items():
        layer, _, leaf = full.replace("/", ".").removesuffix(".value").rpartition(".")
        if leaf not in CANONICAL or value.ndim not in FROM_CHANNELS_LAST:
            left_out.append(full)  # an optimizer's, or dropout's random state
            continue
        array = to_float(np.asarray(value)).transpose(FROM_CHANNELS_LAST[value.ndim])
        weights[f"{layer}.{CANONICAL[leaf]}"] = np.ascontiguousarray(array)
    notes = [f"left out, because no DenseNet has them: {', '.join(left_out)}"] if left_out else []
    return checkpoint_of(weights, "biased", f"Flax NNX: {path.name}", notes)


def write(path: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Write safetensors if the name ends in ``.safetensors``, otherwise an Orbax folder."""
    native = to_nnx(checkpoint.spec, checkpoint.weights)
    if path.name.endswith(".safetensors"):
        write_safetensors(path, native)
    else:
        _write_orbax(path, native)
    assumed = "models that are read from such a file"  # it stores neither epsilon nor decay
    return (
        *differences(checkpoint, assumed, (1e-5, 0.9), "Flax'", "biased"),
        *unsaid(checkpoint),
    )


def to_nnx(spec: DenseNetSpec, weights: Mapping[str, Any]) -> dict[str, Any]:
    """{NNX name: array in NNX' layout} of every tensor."""
    native = {}
    for name, info in tensors(spec).items():
        array = weights[name].transpose(TO_CHANNELS_LAST[weights[name].ndim])
        native[f"{name.rpartition('.')[0]}.{LEAVES[info.kind]}"] = np.ascontiguousarray(array)
    return native


# --- Orbax --------------------------------------------------------------------------------------


def _read_orbax(path: Path) -> dict[str, Any]:
    with framework("flax", "orbax"):
        import orbax.checkpoint as ocp
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            known = checkpointer.metadata(path.resolve()).item_metadata
            leaves = [leaf for _, leaf in _leaves(getattr(known, "tree", known))]
            needed = sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in leaves)
            packed = sum(file.stat().st_size for file in path.rglob("*"))
            too_much = is_bomb(needed, packed)
            tree = {} if too_much else checkpointer.restore(path.resolve())
    except Exception as error:  # noqa: BLE001  # whatever Orbax meets in another folder
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"expected an Orbax checkpoint, found another folder ({first})"
        ) from None
    if too_much:
        raise WeightsError(
            f"expected arrays of the folder's size, found {needed:,} bytes of them in {packed:,}"
        )
    return {".".join(keys): value for keys, value in _leaves(tree)}


def _leaves(tree: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, (*keys, str(key)))
    elif hasattr(tree, "shape"):
        yield keys, tree


def _write_orbax(path: Path, native: Mapping[str, Any]) -> None:
    with framework("flax", "orbax"):
        import orbax.checkpoint as ocp
    tree: dict[str, Any] = {}
    for name, array in native.items():
        *layers, leaf = name.split(".")
        branch = tree
        for layer in layers:
            branch = branch.setdefault(layer, {})
        branch[leaf] = array
    if path.exists():
        raise FileExistsError(f"{path}: expected a folder that does not exist yet")
    target = path.resolve()
    with (  # Orbax leaves what it began where the disk is full
        tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder,
        ocp.StandardCheckpointer() as checkpointer,
    ):
        checkpointer.save(Path(folder, target.name), tree)
        checkpointer.wait_until_finished()
        Path(folder, target.name).rename(target)
