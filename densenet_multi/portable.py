"""The portable file: a network, its weights, and what is needed to use them rightly.

It is a safetensors file (https://github.com/huggingface/safetensors) with torchvision's tensor
names in PyTorch's layout, so that anyone's ``safetensors`` loads it into torchvision's or timm's
model. Its metadata has one entry, ``densenet_multi``: JSON with a schema version, the
configuration, and the usage.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import bad, check_names, integer
from ._files import replacing
from .spec import DenseNetConfig, DenseNetSpec
from .weights import Weights, WeightsError, check_weights, widest

if version("safetensors") == "0.8.0":
    raise ImportError(
        "safetensors 0.8.0 saves arrays that are not contiguous with other values "
        "(https://github.com/huggingface/safetensors/issues/825); type: "
        "pip install 'safetensors!=0.8.0'"
    )

KEY, RUN_KEY = "densenet_multi", "densenet_multi_run"  # RUN_KEY: of checkpoint.py
LARGEST_FILE = 2**32  # bytes; densenet264 in float64 has 0.3 * 10**9
LARGEST_HEADER = 2**23  # bytes; densenet264's has 0.2 * 10**6, one of 10,000 layers 7 * 10**6
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a user of the weights must know and no tensor says; None where it is not known.

    Attributes:
        image_size: pixels per side that the network was trained or is meant to be used at.
        value_range: of pixels before ``mean`` and ``std``: (0, 1) or (0, 255).
        mean, std: per channel; the network gets ``(pixels - mean) / std``.
        class_names: one for each output, in order.
        running_variance: ``"biased"`` or ``"unbiased"``, the convention behind the statistics.
        split_seed: of the split of a folder of images into those they were trained on and the rest.
        source: where the weights come from, in words.
    """

    image_size: int | None = None
    value_range: tuple[float, float] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    class_names: tuple[str, ...] | None = None
    running_variance: str | None = None
    split_seed: int | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        for name, minimum in (("image_size", 1), ("split_seed", 0)):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, integer(name, value, minimum))
        if not isinstance(self.source, str | None):
            raise bad("source", self.source, "a text or None")
        for name in ("value_range", "mean", "std", "class_names"):
            value = getattr(self, name)
            if value is not None:
                kind, what = (str, "names") if name == "class_names" else ((int, float), "numbers")
                listed = isinstance(value, (tuple, list))
                if not listed or not all(isinstance(item, kind) for item in value):
                    raise bad(name, value, f"a list of {what}")
                if kind is not str and not all(math.isfinite(item) for item in value):
                    raise bad(name, value, "finite numbers")
                if name == "std" and not all(item > 0 for item in value):
                    raise bad(name, value, "numbers above 0")
                if name == "value_range" and not (len(value) == 2 and value[0] < value[1]):
                    raise bad(name, value, "two numbers, the lower first")
                object.__setattr__(self, name, tuple(value))
        if self.running_variance not in (None, "biased", "unbiased"):
            raise bad("running_variance", self.running_variance, "'biased', 'unbiased' or None")

    def fits(self, spec: DenseNetSpec) -> Usage:
        """The same, if every list has the length that the network needs; else ``ConfigError``."""
        config = spec.config
        lengths = {"mean": config.in_channels, "std": config.in_channels}
        if config.num_classes:
            lengths["class_names"] = config.num_classes
        for name, length in lengths.items():
            value = getattr(self, name)
            if value is not None and len(value) != length:
                raise bad(name, value, f"{length} values for this network")
        return self


IMAGENET = Usage(image_size=224, value_range=(0.0, 1.0), mean=IMAGENET_MEAN, std=IMAGENET_STD)


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds, in canonical names and layout, whatever its format is.

    Attributes:
        spec: the network.
        weights: {canonical name: array}, float32 or float64, in the manifest's order.
        usage: how to use them.
        notes: what is unusual, or was changed to get here: sentences for the user.
    """

    spec: DenseNetSpec
    weights: Weights
    usage: Usage = field(default_factory=Usage)
    notes: tuple[str, ...] = ()


def save_weights(
    path: str | os.PathLike[str],
    spec: DenseNetSpec,
    weights: Mapping[str, npt.NDArray[np.generic]],
    usage: Usage | None = None,
) -> None:
    """Write the portable ``.safetensors`` file: checked float32 or float64 tensors (float16 becomes
    float32, which holds it exactly), the spec and the usage.

    The file is complete or absent, never partial, and the same weights give the same bytes.
    Raises ``WeightsError``, ``ConfigError``, ``OSError``.
    """
    if spec != spec.config.resolve():
        expected = "expected a spec as its config resolves to, found a changed one"
        raise WeightsError(f"{path}: {expected}")
    usage = (usage or Usage()).fits(spec)
    if not isinstance(weights, Mapping):
        raise WeightsError(f"weights: expected {{name: array}}, found {type(weights).__name__}")
    arrays = {name: to_float(array) for name, array in weights.items()}
    checked = check_weights(spec, arrays, widest(arrays))
    header = {**json.loads(spec.to_json()), "usage": asdict(usage)}
    write_safetensors(path, checked, {KEY: json.dumps(header, sort_keys=True)})


def load_weights(path: str | os.PathLike[str]) -> tuple[DenseNetSpec, Weights]:
    """The spec and the weights of a file that ``save_weights`` wrote, checked against each other.

    Raises ``WeightsError`` for anything else, ``OSError`` where it cannot be read.
    """
    checkpoint = load_checkpoint(path)
    return checkpoint.spec, checkpoint.weights


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The same with the usage. Raises ``WeightsError``, ``OSError``."""
    other = f"for another project's checkpoint: densenet-multi convert {path} NEW.safetensors"
    try:
        metadata, weights = read_safetensors(path)
    except WeightsError as error:
        raise WeightsError(f"{error}; {other}") from None
    if RUN_KEY in metadata:
        raise WeightsError(
            f"{path}: expected weights alone, found where a training run stands; its weights are "
            "in last.safetensors beside it"
        )
    if KEY not in metadata:
        raise WeightsError(
            f"{path}: expected a file of save_weights, found no spec in its metadata; {other}"
        )
    try:
        config, usage = _from_header(metadata[KEY])
        layers = sum(config.block_config)
        if layers > len(weights):  # before a short file makes a huge network
            raise WeightsError(
                f"expected tensors for {layers} dense layers, found {len(weights)} tensors"
            )
        spec = config.resolve()
        return Checkpoint(spec, check_weights(spec, weights, widest(weights)), usage.fits(spec))
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None


def write_safetensors(
    path: str | os.PathLike[str],
    arrays: Mapping[str, npt.NDArray[Any]],
    metadata: dict[str, str] | None = None,
) -> None:
    """Any arrays, whole or not at all. Raises ``OSError``."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # an array's memory is written as it lies, so each must lie in C order
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with replacing(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata=metadata)
        except SafetensorError as error:  # which is no OSError, not even on a full disk
            raise OSError(f"{path}: could not be written ({error})") from None


@contextmanager
def open_safetensors(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Safetensors' own reader, which checks the header and every offset.

    Raises ``WeightsError`` for another kind of file, one that is damaged or larger than 4 GiB, or
    whose header is larger than 8 MiB; ``OSError``.
    """
    from safetensors import SafetensorError, safe_open

    size = check_size(path)
    with Path(path).open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if LARGEST_HEADER < header < size:  # names of a million tensors take a gigabyte of memory
        found = f"found one of {header:,} bytes"
        raise WeightsError(
            f"{path}: expected a header of at most {LARGEST_HEADER:,} bytes, {found}"
        )
    try:
        with safe_open(path, framework="numpy") as opened:
            yield opened
    except SafetensorError as error:
        expected = "expected a safetensors file, found another or a damaged one"
        raise WeightsError(f"{path}: {expected} ({error})") from None


def check_size(path: str | os.PathLike[str]) -> int:
    """The size of a file in bytes. Raises ``WeightsError`` if it is larger than 4 GiB, ``OSError``
    if it cannot be read."""
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
    if size > LARGEST_FILE:
        raise WeightsError(f"{path}: expected at most {LARGEST_FILE:,} bytes, found {size:,}")
    return size


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, str], Weights]:
    """Metadata and float tensors of any safetensors file; float16 and bfloat16 become float32.

    PyTorch's counters are left out. Raises ``WeightsError`` as ``open_safetensors``, and for other
    tensors that are not floating point.
    """
    with open_safetensors(path) as file:
        metadata = dict(file.metadata() or {})
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        others = [f"{n}: found {kind}" for n, kind in kinds.items() if not _is_readable(n, kind)]
        if others:
            listed = "\n  ".join(others)
            raise WeightsError(f"{path}: expected {', '.join(FLOATS)}\n  {listed}")
        kinds = {name: kind for name, kind in kinds.items() if kind in FLOATS}
        arrays = {n: file.get_tensor(n) for n, kind in kinds.items() if kind != "BF16"}
    if "BF16" in kinds.values():
        arrays |= _read_bfloat16(Path(path))
    return metadata, {name: to_float(arrays[name]) for name in kinds}


FLOATS = ("F64", "F32", "F16", "BF16")


def to_float(array: Any) -> Any:
    """float16 and bfloat16 as float32, which holds both exactly; anything else as it is."""
    array = np.asarray(array)
    narrow = array.dtype == np.float16 or array.dtype.name == "bfloat16"
    return array.astype(np.float32) if narrow else array


def from_bfloat16(halves: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """As float32, of which the 16 bits of a bfloat16 are the upper half."""
    wide: npt.NDArray[np.float32] = (halves.astype(np.uint32) << 16).view(np.float32)
    return wide


def _is_readable(name: str, kind: str) -> bool:
    return kind in FLOATS or name.endswith("num_batches_tracked")


def _read_bfloat16(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """NumPy has no such type, and so no reader of it. The header was checked before."""
    found = {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        for name, entry in header.items():
            if entry.get("dtype") == "BF16":
                start, end = entry["data_offsets"]
                file.seek(8 + length + start)
                halves = np.frombuffer(file.read(end - start), "<u2")
                found[name] = from_bfloat16(halves).reshape(entry["shape"])
    return found


def _from_header(text: str) -> tuple[DenseNetConfig, Usage]:
    try:
        header = json.loads(text)
        given = header.pop("usage", {})
    except (ValueError, TypeError, AttributeError, RecursionError):
        given, header = {}, text  # DenseNetConfig says what is wrong with it
    if not isinstance(given, dict):
        raise bad("usage", given, "an object")
    check_names("usage", given, [f.name for f in fields(Usage)])
    config = DenseNetConfig.from_json(header if isinstance(header, str) else json.dumps(header))
    return config, Usage(**given)
