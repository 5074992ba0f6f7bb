"""Seeded random initial weights, and strict validation of weights.

Weights are ``{canonical name: array}``, with the names and shapes of ``manifest.tensors``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import DTYPES, INITIALIZATIONS, ConfigError, check_names, check_seed, one_of
from ._inputs import ImageError, as_array
from .manifest import AnySpec, TensorInfo, count_parameters, tensors

Weights = dict[str, npt.NDArray[np.floating]]
LARGEST = 2**40  # elements in a network; no memory holds more
COUNTER = "num_batches_tracked"  # an entry of each BatchNorm in a PyTorch state_dict


class WeightsError(ValueError):
    """Weights or a weights file are invalid; the message lists each problem with its tensor."""


def init_weights(spec: AnySpec, seed: int = 0, initialization: str = "he_fan_out") -> Weights:
    """Return random initial weights, {canonical name: float32 array}, the same on every machine.

    Kernels are normally distributed with variance 2 / fan: fan is k * k * out_channels for
    ``"he_fan_out"`` (the paper's), k * k * in_channels for ``"he_fan_in"`` (torchvision's, timm's).
    The classifier's weight is uniform within +-1 / sqrt(in_features). With ``"xavier"`` (as in the
    chapter and Keras' "glorot uniform"), both are uniform within +-sqrt(6 / (fan in + fan out)).
    BatchNorms start as the identity; biases are 0. Each tensor has its own random stream, seeded by
    ``seed`` and its name: tensors of the same name and shape are the same in every network.

    Raises ``ConfigError``. Source: https://arxiv.org/abs/1502.01852; the paper, section 4.2;
    https://proceedings.mlr.press/v9/glorot10a.html, equation 16.

    >>> weights = dm.init_weights(dm.get_spec("d2l"), seed=1)
    >>> weights["features.conv0.weight"].shape
    (64, 1, 7, 7)
    """
    seed = check_seed(seed)
    check_names("initialization", [initialization], INITIALIZATIONS)
    total = count_parameters(spec).total
    too_large = ConfigError(
        f"spec: expected a network that fits into memory, found one with {total:,} elements; "
        "choose fewer channels or classes"
    )
    if total > LARGEST:
        raise too_large
    try:
        return {
            name: _initial(info, [seed, *name.encode()], initialization)
            for name, info in tensors(spec).items()
        }
    except MemoryError:
        raise too_large from None


def check_weights(
    spec: AnySpec, weights: Mapping[str, npt.NDArray[np.generic]], dtype: str = "float64"
) -> Weights:
    """Validate weights, and return ``dtype`` arrays in the order of ``tensors(spec)``.

    Raises ``WeightsError``, which lists every problem: missing and unexpected tensors, wrong
    shapes, dtypes that do not convert to ``dtype`` without loss, NaN, infinity, and negative
    variances. PyTorch's counters (``num_batches_tracked``), which inference ignores, are omitted.

    >>> spec = dm.get_spec("d2l")
    >>> dm.check_weights(spec, dm.init_weights(spec) | {"extra": np.zeros(1)})
    Traceback (most recent call last):
    densenet_multi.weights.WeightsError: weights do not fit the network, 1 problem(s):
      extra: unexpected
    """
    expected = tensors(spec)
    one_of("dtype", dtype, DTYPES)
    check_mapping(weights)
    problems = [
        f"{name}: unexpected"
        for name in weights
        if name not in expected and not str(name).endswith(f".{COUNTER}")
    ]
    arrays = {}
    for name, info in expected.items():
        if name not in weights:
            problems.append(f"{name}: missing, expected shape {info.shape}")
            continue
        try:
            array = arrays[name] = as_array(name, weights[name])
        except ImageError as error:
            problems.append(str(error))
            continue
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
    return {name: array.astype(dtype, copy=False) for name, array in arrays.items()}


def check_depth(config: Any, weights: Mapping[str, object]) -> None:
    """Raise ``WeightsError`` if a configuration has more dense layers than its file has tensors.

    Such a configuration may come from a tiny file, and resolving it could exhaust memory.
    """
    layers = sum(config.block_config)
    if layers > len(weights):
        raise WeightsError(
            f"expected tensors for {layers} dense layers, found {len(weights)} tensors"
        )


def check_mapping(weights: object, name: str = "weights") -> None:
    """Raise ``WeightsError`` unless ``weights`` is a mapping (of names to arrays)."""
    if not isinstance(weights, Mapping):
        raise WeightsError(f"{name}: expected {{name: array}}, found {type(weights).__name__}")


def widest(arrays: Mapping[str, npt.NDArray[np.generic]]) -> str:
    """Return "float64" if any of the arrays is float64, otherwise "float32"."""
    return (
        "float64"
        if any(getattr(a, "dtype", None) == np.float64 for a in arrays.values())
        else "float32"
    )


# --- Random numbers -----------------------------------------------------------------------------


def _initial(info: TensorInfo, entropy: list[int], initialization: str) -> npt.NDArray[np.float32]:
    if initialization == "xavier" and info.kind in ("conv.weight", "linear.weight"):
        fans = info.size // info.shape[0] + info.size // info.shape[1]
        values = (2 * _uniform(entropy, info.size) - 1) * math.sqrt(6 / fans)
    elif info.kind == "conv.weight":
        fan = info.size // info.shape[1 if initialization == "he_fan_out" else 0]
        values = math.sqrt(2 / fan) * _normal(entropy, info.size)
    elif info.kind == "linear.weight":
        values = (2 * _uniform(entropy, info.size) - 1) / math.sqrt(info.shape[1])
    else:
        ones = info.kind in ("norm.weight", "norm.running_var")
        values = np.full(info.size, 1.0 if ones else 0.0)
    return values.reshape(info.shape).astype(np.float32)


def _uniform(entropy: list[int], count: int) -> npt.NDArray[np.float64]:
    """Draw uniformly from (0, 1].

    PCG64 yields the same raw bits in every NumPy version; NumPy's distributions may change.
    """
    bits = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(count)
    return ((bits >> np.uint64(11)).astype(np.float64) + 1) * 2.0**-53


def _normal(entropy: list[int], count: int) -> npt.NDArray[np.float64]:
    """Draw normal numbers by Box-Muller, which turns two uniform numbers into two normal ones."""
    half = (count + 1) // 2
    radius, angle = _uniform(entropy, 2 * half).reshape(2, half)
    radius, angle = np.sqrt(-2 * np.log(radius)), 2 * np.pi * angle
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
