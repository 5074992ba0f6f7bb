"""Seeded initial weights, the strict check of any weights, and the portable file.

Weights are ``{canonical name: array}``; names and shapes are those of ``manifest.tensors``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ._checks import bad, integer
from ._files import replace_file
from .manifest import TensorInfo, tensors
from .spec import DenseNetConfig, DenseNetSpec

Weights = dict[str, npt.NDArray[np.floating]]

INITIALIZATIONS = ("he_fan_out", "he_fan_in")


class WeightsError(ValueError):
    """Weights or a weights file do not fit; the message lists every problem by tensor name."""


def init_weights(spec: DenseNetSpec, seed: int = 0, initialization: str = "he_fan_out") -> Weights:
    """Initial weights, {canonical name: float32 array}, the same on every machine.

    Convolutions are normal with variance 2 / fan; ``"he_fan_out"`` (the paper's) takes fan = k * k
    * out_channels, ``"he_fan_in"`` (torchvision's and timm's) k * k * in_channels. The classifier
    is uniform within 1 / sqrt(in_features). BatchNorm starts as the identity; biases are 0. Each
    tensor has its own stream, from the seed and its name: another head or another growth in depth
    leaves the rest as it was.

    Raises ``ConfigError``. Source: https://arxiv.org/abs/1502.01852; the paper, section 4.2.
    """
    seed = integer("seed", seed, 0)
    if initialization not in INITIALIZATIONS:
        raise bad("initialization", initialization, " or ".join(map(repr, INITIALIZATIONS)))
    return {
        name: _initial(info, [seed, *name.encode()], initialization)
        for name, info in tensors(spec).items()
    }


def check_weights(
    spec: DenseNetSpec, weights: Mapping[str, npt.NDArray[np.generic]], dtype: str = "float64"
) -> Weights:
    """The weights as ``dtype`` arrays in the manifest's order, or one error with every problem.

    Missing, unexpected and misshapen tensors, dtypes that do not convert to ``dtype`` without loss,
    not-a-number, infinity and negative variances are refused. Raises ``WeightsError``.
    """
    expected = tensors(spec)
    if not isinstance(weights, Mapping):
        raise WeightsError(f"weights: expected {{name: array}}, found {type(weights).__name__}")
    problems = [f"{name}: unexpected{_hint(name)}" for name in weights if name not in expected]
    for name, info in expected.items():
        if name not in weights:
            problems.append(f"{name}: missing, expected shape {info.shape}")
            continue
        array = np.asarray(weights[name])
        if array.shape != info.shape:
            problems.append(f"{name}: expected shape {info.shape}, found {array.shape}")
        elif array.dtype.kind != "f" or not np.can_cast(array.dtype, dtype):
            problems.append(f"{name}: expected {dtype} (or narrower floats), found {array.dtype}")
        elif not np.isfinite(array).all():
            found = int((~np.isfinite(array)).sum())
            problems.append(f"{name}: expected finite values, found {found} that are not")
        elif info.kind == "norm.running_var" and (array < 0).any():
            problems.append(f"{name}: expected variances of at least 0, found {array.min():g}")
    if problems:
        lines = "\n  ".join(problems)
        raise WeightsError(
            f"weights do not fit the network, {len(problems)} problem(s):\n  {lines}"
        )
    return {name: np.asarray(weights[name]).astype(dtype, copy=False) for name in expected}


def _hint(name: str) -> str:
    counter = name.endswith("num_batches_tracked")
    return " (PyTorch's counter is no weight: leave it out)" if counter else ""


def save_weights(
    path: str | os.PathLike[str], spec: DenseNetSpec, weights: Mapping[str, npt.NDArray[np.generic]]
) -> None:
    """Write the portable ``.safetensors`` file: checked float32 or float64 tensors under their
    canonical names, the spec as metadata. The file is complete or absent, never partial, and the
    same weights give the same bytes. Raises ``WeightsError``, ``OSError``.
    """
    from safetensors.numpy import save

    if spec != spec.config.resolve():
        raise WeightsError(
            f"{path}: expected a spec as its config resolves to, found a changed one"
        )
    dtypes = {np.asarray(array).dtype for array in weights.values()}
    dtype = "float32" if dtypes == {np.dtype("float32")} else "float64"
    checked = check_weights(spec, weights, dtype)
    # safetensors writes an array's memory as it lies, so each must lie in C order
    contiguous = {name: np.ascontiguousarray(array) for name, array in checked.items()}
    replace_file(path, save(contiguous, metadata={"densenet_multi": spec.to_json()}))


def load_weights(path: str | os.PathLike[str]) -> tuple[DenseNetSpec, Weights]:
    """The spec and the weights of a file that ``save_weights`` wrote, checked against each other.

    Raises ``WeightsError`` for anything else, ``OSError`` where it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    with Path(path).open("rb"):  # a missing or unreadable file is an OSError that names it
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("densenet_multi")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, AttributeError) as error:  # unknown dtypes
        expected = "expected a safetensors file of floats, found another or a damaged one"
        raise WeightsError(f"{path}: {expected} ({error})") from None
    if text is None:
        raise WeightsError(
            f"{path}: expected a file of save_weights, found no spec in its metadata"
        )
    try:
        config = DenseNetConfig.from_json(text)
        if sum(config.block_config) > len(weights):  # before a short file makes a huge network
            expected = f"tensors for {sum(config.block_config)} dense layers"
            raise WeightsError(f"expected {expected}, found {len(weights)} tensors")
        spec = config.resolve()
        wide = any(array.dtype == np.float64 for array in weights.values())
        return spec, check_weights(spec, weights, "float64" if wide else "float32")
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None


# --- Drawing ------------------------------------------------------------------------------------


def _initial(info: TensorInfo, entropy: list[int], initialization: str) -> npt.NDArray[np.float32]:
    if info.kind == "conv.weight":
        fan = info.size // info.shape[1 if initialization == "he_fan_out" else 0]
        values = math.sqrt(2 / fan) * _normal(entropy, info.size)
    elif info.kind == "linear.weight":
        values = (2 * _uniform(entropy, info.size) - 1) / math.sqrt(info.shape[1])
    else:
        ones = info.kind in ("norm.weight", "norm.running_var")
        values = np.full(info.size, 1.0 if ones else 0.0)
    return values.reshape(info.shape).astype(np.float32)


def _uniform(entropy: list[int], count: int) -> npt.NDArray[np.float64]:
    """Uniform in (0, 1]. NumPy promises the bits of PCG64 for ever, its distributions' not."""
    bits = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(count)
    return ((bits >> np.uint64(11)).astype(np.float64) + 1) * 2.0**-53


def _normal(entropy: list[int], count: int) -> npt.NDArray[np.float64]:
    """Box-Muller: two uniform numbers give two independent normal ones."""
    half = (count + 1) // 2
    radius, angle = _uniform(entropy, 2 * half).reshape(2, half)
    radius, angle = np.sqrt(-2 * np.log(radius)), 2 * np.pi * angle
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
