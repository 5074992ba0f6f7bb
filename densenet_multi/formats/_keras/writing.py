"""Write Keras 3's weights files with h5py, without building a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from ..._checks import ConfigError
from ..._files import replacing
from ..._installed import framework
from ...checkpoint import Checkpoint
from ...manifest import layers
from ...spec import BatchNormSpec, ConvSpec
from .._layouts import TO_CHANNELS_LAST
from .._notes import differences
from .files import DECAY, EPSILON, LEAVES


def write_weights(
    path: Path,
    checkpoint: Checkpoint,
    native: Callable[[str], str],
    within: str = "",
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write a file as Keras 3's ``save_weights`` does, but without its empty groups.

    Raises ``ConfigError`` if Keras would not recognize the file by its name;
    ``BackendNotInstalledError`` if h5py is missing; ``OSError`` if the file cannot be written.

    Arguments:
        path: must end in ``.weights.h5``.
        checkpoint: the weights.
        native: converts a canonical layer name to Keras' name.
        within: the group of a nested model that holds all layers but the classifier; "": none.
        more: {place: value} of additional datasets.
    """
    if not path.name.endswith(".weights.h5"):
        raise ConfigError(
            f"{path}: expected a name that ends in .weights.h5, by which Keras recognizes the "
            f"file; use {path.name.partition('.')[0]}.weights.h5"
        )
    with framework("keras", "h5py"):
        import h5py
    numbers: dict[str, Iterator[int]] = {name: count() for name in LEAVES}
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for layer, spec in layers(checkpoint.spec):
            kind = _class_of(spec)
            number = next(numbers[kind])
            place = f"layers/{kind}{f'_{number}' if number else ''}/vars"
            group = file.create_group(place if kind == "dense" else within + place)
            group.attrs["name"] = native(layer)
            for i, leaf in enumerate(LEAVES[kind]):
                if (array := checkpoint.weights.get(f"{layer}.{leaf}")) is not None:
                    group[str(i)] = array.transpose(TO_CHANNELS_LAST[array.ndim])
        for place, value in (more or {}).items():
            file[place] = value


def different_conventions(checkpoint: Checkpoint, models: str) -> list[str]:
    """Return a note for each convention in which Keras' models differ from these weights."""
    return differences(checkpoint, models, (EPSILON, DECAY), "Keras'", "biased")


def _class_of(spec: object) -> str:
    if isinstance(spec, ConvSpec):
        return "conv2d"
    return "batch_normalization" if isinstance(spec, BatchNormSpec) else "dense"
