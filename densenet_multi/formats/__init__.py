"""Checkpoints of other projects, read into canonical names and written back.

One module per ecosystem. Each has ``read(path)`` and ``write(path, checkpoint)``; most have
``looks_like(path, head)`` and ``peer_logits(path, checkpoint, images)`` too. Libraries are imported
when they are needed. Nothing in a file is ever executed: pickles are read by PyTorch with
``weights_only=True`` only.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import ConfigError, check_names, integer
from ..backends import load_backend
from ..checkpoint import Checkpoint
from ..reference import predict
from ..variants import VARIANTS
from ..weights import WeightsError, check_weights, init_weights, widest
from ._safetensors import LARGEST_FILE, open_safetensors
from .portable import KEY, load_checkpoint, save_weights
from .recognize import implied_usage

FORMATS = {  # name -> (module, what it is); content is tried in this order
    "portable": ("", "the portable .safetensors file of densenet_multi"),
    "torchvision": ("torchvision", "torchvision's and timm's .pth and .safetensors"),
    "keras": ("keras_applications", "keras.applications' .weights.h5, .h5 and .keras"),
    "kerashub": ("kerashub", "KerasHub's .weights.h5, .keras and presets"),
    "nnx": ("nnx", "Flax NNX: .safetensors with its names, or an Orbax folder"),
    "gluon": ("gluon_zoo", "the MXNet Gluon zoo's .params"),
}

# layouts of Keras and Flax, by the number of dimensions: HWIO and (in, out), for OIHW and (out, in)
TO_CHANNELS_LAST = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
FROM_CHANNELS_LAST = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}


def read(
    path: str | os.PathLike[str],
    file_format: str | None = None,
    *,
    variant: str | None = None,
    **overrides: Any,
) -> Checkpoint:
    """A checkpoint of any known format, in canonical names and layout.

    Arguments:
        path: a file, or an Orbax folder.
        file_format: one of ``FORMATS``; by default the content decides.
        variant: one of ``VARIANTS``, where names and shapes shall not decide; they must fit it.
        overrides: fields of ``DenseNetConfig`` that no tensor shows (``bn_eps``, ``drop_rate``).

    Raises:
        WeightsError: it is none, is damaged, or is another network's; every problem is listed.
        ConfigError: an unknown format or field.
        OSError: it cannot be read.
        BackendNotInstalledError: the library that reads it is missing.
    """
    path = Path(path)
    name = file_format or guess(path)
    check_names("format", [name], FORMATS)
    try:
        checkpoint = load_checkpoint(path) if name == "portable" else _module(name).read(path)
    except ValueError as error:
        named = str(error).startswith(f"{path}: ")
        raise WeightsError(str(error) if named else f"{path}: {error}") from None
    if not variant and not overrides:
        return checkpoint
    config = checkpoint.spec.config
    if variant:
        check_names("variant", [variant], VARIANTS)
        kept = {f: getattr(config, f) for f in ("num_classes", "in_channels", "bn_eps", "bn_decay")}
        config = replace(VARIANTS[variant], **kept)
    spec = replace(config, **overrides).resolve()
    try:
        check_weights(spec, checkpoint.weights, widest(checkpoint.weights))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    return replace(checkpoint, spec=spec)


def write(
    path: str | os.PathLike[str], checkpoint: Checkpoint, file_format: str | None = None
) -> tuple[str, ...]:
    """Write a checkpoint in a format, by default the one that the name suggests.

    Returns what the file cannot say, or says differently: sentences for the user. The file is
    complete or absent. Raises as ``read``.
    """
    path = Path(path)
    name = file_format or guess_from_name(path)
    check_names("format", [name], FORMATS)
    if name != "portable":
        return (*_module(name).write(path, checkpoint), *_unsaid(checkpoint))
    save_weights(path, checkpoint.spec, checkpoint.weights, checkpoint.usage)
    return ()


def guess(path: Path) -> str:
    """The format of a file or folder, from its content. Raises ``WeightsError``, ``OSError``."""
    if path.is_dir():
        return "kerashub" if (path / "model.weights.h5").exists() else "nnx"
    with path.open("rb") as file:
        head = file.read(512)
    if is_safetensors(head):
        return _kind_of_safetensors(path)
    for name, (module, _) in FORMATS.items():
        looks_like = getattr(_module(name), "looks_like", None) if module else None
        try:
            if looks_like and looks_like(path, head):
                return name
        except WeightsError as error:  # it is of that kind, and damaged
            raise WeightsError(f"{path}: {error}") from None
    found = "an empty file" if not head else f"a file that starts with {head[:8].hex(' ')}"
    raise WeightsError(
        f"{path}: expected a DenseNet checkpoint ({', '.join(FORMATS)}), found {found}; if you "
        "know what it is: --from FORMAT"
    )


def guess_from_name(path: Path) -> str:
    """The format that a new file's name suggests. Raises ``ConfigError``."""
    endings = {
        ".safetensors": "portable",
        ".pth": "torchvision",
        ".pt": "torchvision",
        ".weights.h5": "keras",
        ".params": "gluon",
    }
    for ending, name in endings.items():
        if path.name.endswith(ending):
            return name
    raise ConfigError(
        f"{path}: expected a name ending in {', '.join(endings)}, or --to FORMAT; "
        f"known: {', '.join(FORMATS)}"
    )


def with_classes(checkpoint: Checkpoint, num_classes: int, seed: int = 0) -> Checkpoint:
    """The same body with a new classifier, drawn as ``init_weights`` does (0: none).

    For transfer learning. Class names are dropped. Raises ``ConfigError``.
    """
    num_classes = integer("num_classes", num_classes, 0)
    spec = replace(checkpoint.spec.config, num_classes=num_classes).resolve()
    head = {n: a for n, a in init_weights(spec, seed).items() if n.startswith("classifier.")}
    dtype = checkpoint.weights["features.conv0.weight"].dtype
    weights = {n: a for n, a in checkpoint.weights.items() if not n.startswith("classifier.")}
    weights |= {name: array.astype(dtype) for name, array in head.items()}
    was = f"the classifier for {checkpoint.spec.config.num_classes} classes"
    note = f"{was} was replaced by a new one for {num_classes} (seed {seed})"
    return Checkpoint(
        spec,
        check_weights(spec, weights, dtype.name),
        replace(checkpoint.usage, class_names=None),
        (*checkpoint.notes, note),
    )


def _module(name: str) -> Any:
    return import_module(f".{FORMATS[name][0]}", __name__)


def _kind_of_safetensors(path: Path) -> str:
    with open_safetensors(path) as file:
        if KEY in (file.metadata() or {}):
            return "portable"
        return "nnx" if any(name.endswith("kernel") for name in file.keys()) else "torchvision"  # noqa: SIM118


def differences(
    checkpoint: Checkpoint,
    models: str,
    conventions: tuple[float, float],
    framework: str,
    variance: str,
    *,
    where: str = "",
) -> list[str]:
    """A sentence for each convention of a format's models that is not these weights'.

    ``conventions`` are the models' epsilon and decay.
    """
    epsilon, decay = conventions
    config = checkpoint.spec.config
    notes = []
    if config.bn_eps != epsilon:
        notes.append(f"{models} have an epsilon of {epsilon:g}, these weights {config.bn_eps:g}")
    if config.bn_decay != decay:
        notes.append(f"{models} have a decay of {decay:g}, these weights {config.bn_decay:g}")
    if checkpoint.usage.running_variance not in (None, variance):
        given = checkpoint.usage.running_variance
        notes.append(
            f"the running variances are {given} ones; {framework} own are {variance}{where}"
        )
    return notes


def _unsaid(checkpoint: Checkpoint) -> list[str]:
    """A sentence on what of these weights' use is lost outside a portable file."""
    implied = implied_usage(checkpoint.spec.config)
    lost = [
        field.replace("_", " ")
        for field in ("image_size", "value_range", "mean", "std", "class_names")
        if getattr(checkpoint.usage, field) not in (None, getattr(implied, field))
    ]
    if checkpoint.spec.config.drop_rate:
        lost.append("drop rate")
    return [f"only a portable file can say their {', '.join(lost)}"] if lost else []


HARMLESS = 2**26  # bytes: so much may come out of anything


def is_bomb(unpacked: int, packed: int) -> bool:
    """Whether that many bytes come out of that few that nobody packed weights."""
    return unpacked > min(LARGEST_FILE, max(HARMLESS, 20 * packed))


def is_safetensors(head: bytes) -> bool:
    """Whether a file starts as safetensors do: the header's length, then its JSON."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**27


def logits(
    path: Path, file_format: str, checkpoint: Checkpoint, images: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.floating], str]:
    """What the model in a file answers, (N, classes), and who calculated it.

    The ecosystem's own model where it is installed and can hold the network; otherwise this
    project's model in that framework; otherwise the NumPy reference.
    """
    module: Any = _module(file_format) if file_format != "portable" else None
    if hasattr(module, "peer_logits"):
        with suppress(ImportError, LookupError):
            peers: tuple[npt.NDArray[np.floating], str] = module.peer_logits(
                path, checkpoint, images
            )
            return peers
    if module:
        with suppress(ImportError):
            backend = load_backend(module.BACKEND)
            model = backend.build(checkpoint.spec, dtype=widest(checkpoint.weights))
            backend.import_weights(model, checkpoint.weights)
            return backend.predict(model, images), f"densenet_multi.{backend.NAME}"
    return predict(checkpoint.spec, checkpoint.weights, images), "the NumPy reference"
