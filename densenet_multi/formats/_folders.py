"""Read folders from the Hugging Face Hub, and describe folders without readable weights.

A folder from the Hub has the weights in ``model.safetensors`` or ``pytorch_model.bin``, and a
``config.json`` that states how to use them, in the format of timm or of transformers.
Source: https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/_hub.py
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from .._checks import COUNTED, POOLS, listed
from .._files import open_file, quoted
from ..checkpoint import Checkpoint, names_in_order
from ..weights import WeightsError

Found = tuple[str, str]  # (what it is, what to do)
OF_THE_HUB = ("model.safetensors", "pytorch_model.bin")
LARGEST_CONFIG = 2**22  # bytes; descriptions of 22,000 classes take 2 * 10**6
MOST_FILES = 10_000  # files examined in a folder
SHARD = re.compile(r"\.data-\d{5}-of-\d{5}$")  # of a TensorFlow checkpoint
WEIGHTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".h5", ".hdf5", ".keras", ".params")
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
OF_ORBAX = {"_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "_sharding", "checkpoint"}
STEP = "_CHECKPOINT_METADATA"  # also in a training step's folder, with a subfolder per item
OF_ZARR = (".zarray", "zarr.json")  # in the folder of an array

IGNORED = (  # arguments of timm's models that tensors reveal, or that only affect training
    *("num_classes", "in_chans", "growth_rate", "block_config", "bn_size", "memory_efficient"),
    *("drop_rate", "proj_drop_rate", "pretrained", "checkpoint_path"),
)
WITHOUT = "to ignore this file, pass the weights file instead of the folder"
USUAL = {"act_layer": ("relu",), "norm_layer": ("batchnorm2d",), "global_pool": ("avg", "max", "")}

JOIN = (
    "merge the shards; type in Python: from safetensors.numpy import load_file, save_file; "
    "save_file({**load_file('FIRST.safetensors'), **load_file('SECOND.safetensors')}, "
    "'NEW.safetensors')"
)
FROM_TENSORFLOW = (
    "load it with the code that built the model, and save it with Keras: "
    "model.save_weights('NEW.weights.h5')"
)


# --- From the Hub -------------------------------------------------------------------------------


def file_in(path: Path) -> Path:
    """Return the weights file in a folder from the Hub; return any other path unchanged."""
    inside = [path / name for name in OF_THE_HUB] if path.is_dir() else []
    return next((file for file in inside if file.is_file()), path)


def as_configured(checkpoint: Checkpoint, folder: Path, file: Path) -> Checkpoint:
    """Add the settings in a Hub folder's ``config.json`` to the checkpoint read from ``file``.

    Raises ``WeightsError`` if ``config.json`` is invalid, or describes a different network.
    """
    path = folder / "config.json"
    notes = [*checkpoint.notes, f"read from {file.name} in this folder"]
    if not os.path.lexists(path):
        return replace(checkpoint, notes=tuple(notes))
    config = _read_json(path)
    if problem := _other_function(config):
        raise WeightsError(f"{path}: {problem}")
    network = checkpoint.spec.config
    arguments = config.get("model_args")
    given = {**config, **arguments} if isinstance(arguments, dict) else config
    if given.get("global_pool") == "max":
        network = replace(network, global_pool="max")
    spec = network.resolve()
    values: dict[str, Any] = {}
    names = _class_names(config)
    if names and len(names) == (network.num_classes or len(names)):
        values["class_names"] = names
    elif names:
        notes.append(
            f"its config.json names {len(names):,} classes, but the network has "
            f"{network.num_classes:,} outputs: the names were ignored"
        )
    values |= _preparation(config, network.in_channels)
    try:
        usage = checkpoint.usage.stating(**values).fits(spec)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None
    return replace(checkpoint, spec=spec, usage=usage, notes=tuple(notes))


def _read_json(path: Path) -> dict[str, Any]:
    with open_file(path, error=WeightsError, advice=WITHOUT) as file:
        content = file.read(LARGEST_CONFIG + 1)
    try:
        found = json.loads(content) if len(content) <= LARGEST_CONFIG else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise WeightsError(
            f"{path}: expected a JSON object of at most {LARGEST_CONFIG:,} bytes, found something "
            f"else; {WITHOUT}"
        )
    return found


def _other_function(config: Mapping[str, Any]) -> str | None:
    """Return the error if timm's configuration describes an unsupported network; else None."""
    named = str(config.get("architecture")).lower()
    if re.match(r"densenet(blur|\d+d)", named):  # timm's, with another stem, pool or activation
        return f"expected torchvision's network, found {named!r}, which computes another function"
    arguments = config.get("model_args")
    for name, value in (arguments if isinstance(arguments, dict) else {}).items():
        if name not in IGNORED and value is not None and value not in USUAL.get(name, ()):
            return f"expected torchvision's network, found one with {name} {value!r}"
    pool = config.get("global_pool") or "avg"
    return None if pool in POOLS else f"expected global pooling by avg or max, found {pool!r}"


def _class_names(config: Mapping[str, Any]) -> list[str]:
    """Return the class names in output order; none if they are only LABEL_0, LABEL_1, ..."""
    names = names_in_order(config.get("label_names") or config.get("id2label")) or []
    return [] if all(re.fullmatch(r"LABEL_\d+", name) for name in names) else names


def _preparation(config: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """Return timm's image size, mean and std; mean and std only if the channels match."""
    stated = config.get("pretrained_cfg")
    stated = {**config, **stated} if isinstance(stated, dict) else config
    found: dict[str, Any] = {}
    size = stated.get("input_size")
    if isinstance(size, list) and len(size) == 3 and size[1] == size[2]:
        found["image_size"] = size[1]
    moments = {name: stated.get(name) for name in ("mean", "std")}
    if all(isinstance(value, list) and len(value) == channels for value in moments.values()):
        found |= {"value_range": (0.0, 1.0), **moments}
    return found


# --- Others -------------------------------------------------------------------------------------


def what_folder(path: Path) -> Found | None:
    """Return what a folder without readable weights is, and what to do. None if Orbax or Keras
    may read the folder. Raises ``OSError``."""
    names = _names(path)
    if "saved_model.pb" in names:
        return "a TensorFlow SavedModel", _from_saved_model(path, names)
    if ".orbax-checkpoint-tmp" in path.name:
        return "an Orbax checkpoint that was not written completely", "use an earlier one"
    if any(SHARD.search(name) for name in names):
        return "a TensorFlow checkpoint", FROM_TENSORFLOW
    if "model.weights.h5" in names and _is_unpacked_keras(path):
        command = f"cd {quoted(path)} && zip -r ../NEW.keras ."
        return "a .keras file that was unpacked", f"pack it again; type: {command}"
    items = len(_items_in(path, names))
    if "model.weights.h5" in names or items == 1 or (_is_orbax(path, names) and not items):
        return None
    return _known(path, names) or _sharded(names) or _by_content(path, names)


def _from_saved_model(path: Path, names: Collection[str]) -> str:
    if "keras_metadata.pb" in names:
        return (
            "only Keras 2, which wrote it, can read it; with tf_keras installed, type in Python: "
            f"tf_keras.models.load_model({str(path)!r}).save_weights('NEW.h5')"
        )
    return (  # an exported function, not a model
        "if you still have the model, save it again with Keras: model.save('NEW.keras') or "
        "model.save_weights('NEW.weights.h5')"
    )


def _is_unpacked_keras(path: Path) -> bool:
    """Return whether ``config.json`` describes a Keras model, not one of KerasHub's presets."""
    if not (path / "config.json").is_file():
        return False
    with (path / "config.json").open("rb") as file:
        return b"DenseNetBackbone" not in file.read(LARGEST_CONFIG)


def _known(path: Path, names: Collection[str]) -> Found | None:
    if {"history.jsonl", "config.json"} <= set(names):
        kept = [file for n in ("final", "best", "last") if (file := f"{n}.safetensors") in names]
        advice = f"use {kept[0]} in it" if kept else "it has no weights yet"
        return "the folder of a training run", advice
    if "data.pkl" in names:
        whole = path.absolute()
        command = f"cd {quoted(whole.parent)} && zip -0 -r NEW.pth {quoted(Path(whole.name))}"
        return "a PyTorch file that was unpacked", f"pack it again; type: {command}"
    if "Manifest.json" in names and path.suffix == ".mlpackage":
        return "a Core ML network", "convert the file that it was made from"
    if {"snapshots", "blobs"} <= set(names):
        within = listed((str(child) for child in _children(path / "snapshots")), more=COUNTED)
        return "a Hugging Face cache folder", f"use the snapshot in it: {within}"
    return None


def _sharded(names: Collection[str]) -> Found | None:
    """Recognize a sharded network by the Hub's index of its shards."""
    indices = [name for name in names if name.endswith(".index.json")]
    return (f"a sharded network ({listed(indices)})", JOIN) if indices else None


def _weights_in_folders(path: Path) -> list[str]:
    """Return the weights files in a folder's subfolders."""
    folders = [child for child in sorted(_children(path))[:100] if child.is_dir()]
    within = [each for folder in folders for each in islice(folder.iterdir(), 100)]
    return [str(each) for each in within if each.name.lower().endswith((*WEIGHTS, ".msgpack"))]


def _by_content(path: Path, names: Collection[str]) -> Found:
    within = [str(found) for found in _items_in(path, names) or _steps_in(path)]
    files = sorted(name for name in names if name.lower().endswith((*WEIGHTS, ".msgpack")))
    if within:
        return "a folder of checkpoints", f"use one of them: {listed(within, more=COUNTED)}"
    if files:
        return f"a folder with {listed(files, more=COUNTED)}", "use one of these files"
    if _has_images(path):
        return "a folder of images", "images are data, not weights"
    if inside := _weights_in_folders(path):
        return (
            "a folder whose subfolders hold weights",
            f"use one of them: {listed(inside, more=COUNTED)}",
        )
    if names:
        return (
            f"a folder of {listed(sorted(names), more=COUNTED)}",
            "it holds no weights in a known format",
        )
    return "an empty folder", "download or copy it again"


def _children(path: Path) -> list[Path]:
    return list(islice(path.iterdir(), MOST_FILES))


def _names(path: Path) -> set[str]:
    return {child.name for child in _children(path)}


def _is_orbax(path: Path, names: Collection[str]) -> bool:
    """Return whether a folder looks like Orbax's: with Orbax metadata, or a subfolder per array."""
    if OF_ORBAX & set(names):
        return True
    return any((path / name / mark).exists() for name in islice(names, 20) for mark in OF_ZARR)


def orbax_item(path: Path) -> Path:
    """Return the only checkpoint in a training step's folder; return any other path unchanged."""
    items = _items_in(path, _names(path))
    return items[0] if len(items) == 1 else path


def _items_in(path: Path, names: Collection[str]) -> list[Path]:
    """Return the Orbax checkpoints in a step's folder; none if it is a checkpoint itself."""
    if not (STEP in names or path.name.isdigit()) or _is_orbax(path, {*names} - {STEP}):
        return []
    children = (child for child in sorted(_children(path)) if child.is_dir())
    return [child for child in children if _is_orbax(child, _names(child) - {STEP})]


def _steps_in(path: Path) -> Iterator[Path]:
    """Yield the Orbax checkpoints in a folder that has a subfolder for each step."""
    for step in sorted(c for c in _children(path) if c.name.isdigit() and c.is_dir())[:100]:
        inside = [c for c in _children(step) if c.is_dir() and _is_orbax(c, _names(c))]
        yield from inside or ([step] if _is_orbax(step, _names(step)) else [])


def _has_images(path: Path) -> bool:
    """Return whether a folder, or one of its subfolders, contains an image."""
    for child in _children(path)[:100]:
        inside = islice(child.iterdir(), 20) if child.is_dir() else (child,)
        if any(each.name.lower().endswith(IMAGES) for each in inside):
            return True
    return False
