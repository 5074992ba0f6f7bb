"""The portable file: a network, its weights, and how to use them.

It is a safetensors file (https://github.com/huggingface/safetensors) with torchvision's tensor
names and PyTorch's layout. torchvision's or timm's model can load it with ``safetensors`` alone.
Its metadata has one entry, ``densenet_multi``: JSON with a schema version, the configuration and
the usage. A network for tables (tabular.py) has ``"preprocessing"`` in place of the usage.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import ConfigError
from .._files import as_path
from ..checkpoint import Checkpoint, Usage
from ..manifest import AnySpec
from ..spec import DenseNetSpec, check_spec
from ..tabular import TabularSpec
from ..weights import (
    Weights,
    WeightsError,
    check_depth,
    check_mapping,
    check_weights,
    widest,
)
from ._header import about_images, from_header, to_header
from ._other_files import other_weights, refuse_others
from ._safetensors import (
    PORTABLE_ENTRY,
    TRAINING_STATE_ENTRY,
    is_safetensors,
    open_safetensors,
    read_safetensors,
    to_float,
    write_safetensors,
)
from ._stated import NOTHING, Stated

BACKEND = None  # no framework owns this format
OTHER_ENDINGS = (".pth", ".pt", ".h5", ".hdf5", ".keras", ".params", ".msgpack")


def looks_like(path: Path, head: bytes) -> bool:
    """Return whether the file is a safetensors file with a spec in its metadata."""
    if not is_safetensors(head):
        return False
    with open_safetensors(path) as file:
        return PORTABLE_ENTRY in (file.metadata() or {})


def read(path: Path, stated: Stated = NOTHING) -> Checkpoint:  # ``stated`` is unused
    """Read the network, its weights and its usage."""
    return load_checkpoint(path)


def write(path: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Write the checkpoint except its notes; return no notes: the file stores everything else."""
    _save(path, checkpoint.spec, checkpoint.weights, checkpoint.usage)
    return ()


def save_weights(
    path: str | os.PathLike[str],
    spec: AnySpec,
    weights: Mapping[str, npt.NDArray[np.generic]],
    usage: Usage | None = None,
    *,
    preprocessing: Mapping[str, Any] | None = None,
) -> None:
    """Write a network and its weights as a portable ``.safetensors`` file.

    The write is atomic: the file is complete or absent. The same weights give the same bytes.

    Raises ``WeightsError`` if a tensor does not fit the spec or has values that are not finite;
    ``ConfigError`` if the usage does not fit the network, or the name's suffix belongs to another
    format; ``OSError`` if the file cannot be written.

    Arguments:
        path: the file; ``.safetensors`` is the usual suffix.
        spec: the network, as ``DenseNetConfig.resolve`` or ``TabularConfig.resolve`` returns it.
        weights: {canonical name: array}; float16 is stored as float32, without loss.
        usage: how to use the weights; only for images.
        preprocessing: how rows are prepared, as JSON objects and lists; only for tables.

    >>> import pathlib, tempfile
    >>> spec = dm.get_spec("d2l")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "NEW.safetensors")
    ...     dm.save_weights(path, spec, dm.init_weights(spec))
    ...     dm.load_weights(path)[0] == spec
    True
    """
    path = as_path(path)
    ending = path.suffix.lower()
    if ending in OTHER_ENDINGS:
        raise ConfigError(
            f"{path}: expected a name for a portable file, such as NEW.safetensors, found the "
            f"suffix {ending}; for another project's format: "
            f"formats.write({_other_name(path)!r}, Checkpoint(spec, weights))"
        )
    _save(path, spec, weights, usage, preprocessing)


def _other_name(path: Path) -> str:
    """Return a file name that selects another project's format; Keras' ends in ``.weights.h5``."""
    if path.suffix.lower() not in (".h5", ".hdf5", ".keras"):
        return str(path)
    return str(path.with_name(f"{path.name.partition('.')[0]}.weights.h5"))


def _save(
    path: str | os.PathLike[str],
    spec: AnySpec,
    weights: Mapping[str, npt.NDArray[np.generic]],
    usage: Usage | None,
    preprocessing: Mapping[str, Any] | None = None,
) -> None:
    is_tabular = isinstance(spec, TabularSpec)
    if (spec if is_tabular else check_spec(spec)) != spec.config.resolve():
        expected = "expected a spec that config.resolve() returned, found a modified one"
        raise WeightsError(f"{path}: {expected}")
    if (usage if is_tabular else preprocessing) is not None:
        name, kind = ("usage", "tables") if is_tabular else ("preprocessing", "images")
        raise ConfigError(f"{name}: expected None for a network for {kind}")
    about: dict[str, Any] = {"preprocessing": dict(preprocessing or {})}
    if isinstance(spec, DenseNetSpec):
        about = about_images(spec, usage)
    try:
        header = to_header(spec, about)
    except TypeError as error:
        raise ConfigError(f"preprocessing: expected what JSON can store, found {error}") from None
    check_mapping(weights)
    arrays = {name: to_float(array) for name, array in weights.items()}
    checked = check_weights(spec, arrays, widest(arrays))
    write_safetensors(path, checked, {PORTABLE_ENTRY: header})


def load_weights(path: str | os.PathLike[str]) -> tuple[AnySpec, Weights]:
    """Read the spec and the weights from a portable file, and check that they match.

    The spec is a ``DenseNetSpec``, or a ``TabularSpec`` if the network is for tables. Raises
    ``WeightsError`` for anything but a complete portable file; ``OSError`` if it cannot be read.
    """
    return _load(path)[:2]


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a portable file: spec, weights and usage. Raises the same errors as ``load_weights``.

    Raises ``WeightsError`` also for a network for tables: use ``load_tabular``.
    """
    spec, weights, usage = _load(path)
    if isinstance(usage, Usage) and isinstance(spec, DenseNetSpec):
        return Checkpoint(spec, weights, usage)
    raise WeightsError(
        f"{path}: expected a network for images, found one for tables; read it with "
        "densenet_multi.formats.portable.load_tabular, or predict with "
        "densenet_multi.tasks.house_prices.predict_prices"
    )


def load_tabular(path: str | os.PathLike[str]) -> tuple[TabularSpec, Weights, dict[str, Any]]:
    """Read a network for tables: spec, weights and preprocessing. Raises as ``load_weights``."""
    spec, weights, preprocessing = _load(path)
    if isinstance(spec, TabularSpec) and isinstance(preprocessing, dict):
        return spec, weights, preprocessing
    raise WeightsError(f"{path}: expected a network for tables, found one for images")


def _load(path: str | os.PathLike[str]) -> tuple[AnySpec, Weights, Usage | dict[str, Any]]:
    path = as_path(path)
    refuse_others(path, "a safetensors file")
    other = f"for another project's checkpoint: convert({str(path)!r}, 'NEW.safetensors')"
    if found := other_weights(path):
        raise WeightsError(f"{path}: expected a safetensors file, found {found}; {other}")
    metadata, weights = read_safetensors(path)
    if TRAINING_STATE_ENTRY in metadata:
        raise WeightsError(
            f"{path}: expected weights only, found the state of a training run; its weights "
            "are in last.safetensors in the same folder"
        )
    if PORTABLE_ENTRY not in metadata:
        raise WeightsError(
            f"{path}: expected a portable file, found no spec in its metadata; {other}"
        )
    try:
        config, about = from_header(metadata[PORTABLE_ENTRY])
        check_depth(config, weights)
        spec = config.resolve()
        about = about.fits(spec) if isinstance(about, Usage) else about
        return spec, check_weights(spec, weights, widest(weights)), about
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None
