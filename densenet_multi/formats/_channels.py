"""Adapt a pretrained network to images with a different number of channels."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .._checks import integer
from ..checkpoint import Checkpoint, Usage, check_checkpoint
from ..data.images import LUMINANCE, MOST_REPEATED
from ..spec import DenseNetSpec
from ..weights import Weights, check_weights

Floats: TypeAlias = npt.NDArray[np.float64]

STEM = "features.conv0"


def with_channels(checkpoint: Checkpoint, in_channels: int) -> Checkpoint:
    """Adapt the stem so that the network accepts images with a different number of channels.

    A gray image, whose channels are equal, keeps its logits. For fewer channels, kernels are
    summed; for a single channel, all of them. For more, they are repeated cyclically, and each copy
    is divided by the number of copies. From 1 channel to 3, each copy is instead multiplied by its
    color's luminance weight, so that a color image gets the logits of its gray version.

    The pixel normalization is adapted too. Merged channels get the average of their means and the
    average of their standard deviations. To compensate, the kernels are rescaled, and the
    convolution's bias is shifted (or, if it has none, the running means of the BatchNorms that
    follow). If the merged means were equal, logits do not change. Otherwise they change slightly:
    at the image's border, zero padding represents the mean, and the mean has changed.

    Raises ``ConfigError`` unless ``in_channels`` is a valid number of channels.

    Arguments:
        checkpoint: the network.
        in_channels: the number of channels of the images to be read.

    >>> from densenet_multi import formats
    >>> spec = dm.get_spec("d2l")
    >>> checkpoint = dm.Checkpoint(spec, dm.init_weights(spec))
    >>> formats.with_channels(checkpoint, 3).weights["features.conv0.weight"].shape
    (64, 3, 7, 7)
    """
    check_checkpoint(checkpoint)
    in_channels = integer("in_channels", in_channels, 1, MOST_REPEATED)
    before = checkpoint.spec.config.in_channels
    if in_channels == before:
        return checkpoint
    spec = replace(checkpoint.spec.config, in_channels=in_channels).resolve()
    kernels = checkpoint.weights[f"{STEM}.weight"].astype(np.float64)
    shift = np.zeros(len(kernels))
    if in_channels < before:
        kernels, usage, shift = _summed(kernels, checkpoint.usage, in_channels)
        notes = [f"the stem's kernels were summed, from {before} to {_count(in_channels)}"]
    else:
        kernels, usage = _repeated(kernels, checkpoint.usage, in_channels)
        notes = [f"the stem's kernels were repeated, from {before} to {_count(in_channels)}"]
    notes[0] += ": a gray image keeps its logits"
    if shift.any():
        notes[0] += (
            ", except for small differences near the border, because the channels' means differed"
        )
    weights = _moved({**checkpoint.weights, f"{STEM}.weight": kernels}, spec, shift)
    dtype = checkpoint.weights[f"{STEM}.weight"].dtype
    cast = {name: array.astype(dtype, copy=False) for name, array in weights.items()}
    return Checkpoint(
        spec, check_weights(spec, cast, dtype.name), usage, (*checkpoint.notes, *notes)
    )


def _count(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"


def _summed(kernels: Floats, usage: Usage, in_channels: int) -> tuple[Floats, Usage, Floats]:
    """Return kernels (O, C, k, k) for fewer channels, the new usage, and the outputs' excess (O,).

    If each channel has kernel w, mean m and std s, the sum of w (x - m) / s is w' (x - m') / s'
    plus the sum of w (m' - m) / s. Here m' and s' are averages, and w' / s' is the sum of w / s.
    """
    count = kernels.shape[1]
    groups = [range(channel, count, in_channels) for channel in range(in_channels)]
    mean, std = usage.mean, usage.std
    if mean is None or std is None:  # then pixels are not normalized: see data/images.py
        summed = [kernels[:, list(group)].sum(axis=1) for group in groups]
        usage = replace(usage, mean=None, std=None)
        return np.stack(summed, axis=1), usage, np.zeros(len(kernels))
    means = [_average([mean[c] for c in group]) for group in groups]
    stds = [_average([std[c] for c in group]) for group in groups]
    scaled = kernels / np.reshape(std, (-1, 1, 1))
    new = [s * scaled[:, list(group)].sum(axis=1) for s, group in zip(stds, groups, strict=True)]
    differences = np.array([mean[c] - means[c % in_channels] for c in range(count)])
    shift: Floats = scaled.sum(axis=(2, 3)) @ differences
    return np.stack(new, axis=1), replace(usage, mean=tuple(means), std=tuple(stds)), shift


def _average(values: list[float]) -> float:
    """Return the mean; if all values are equal, exactly that value."""
    return values[0] if len(set(values)) == 1 else sum(values) / len(values)


def _repeated(kernels: Floats, usage: Usage, in_channels: int) -> tuple[Floats, Usage]:
    """Return kernels (O, C, k, k) for more channels, and the new usage."""
    count = kernels.shape[1]
    sources = [channel % count for channel in range(in_channels)]
    shares = [1 / sources.count(source) for source in sources]
    if count == 1 and in_channels == len(LUMINANCE):
        shares = list(LUMINANCE)
    mean, std = (
        None if values is None else tuple(values[source] for source in sources)
        for values in (usage.mean, usage.std)
    )
    repeated: Floats = kernels[:, sources] * np.reshape(shares, (-1, 1, 1))
    return repeated, replace(usage, mean=mean, std=std)


def _moved(weights: Weights, spec: DenseNetSpec, shift: Floats) -> Weights:
    """Subtract ``shift`` (O,) from the stem convolution's output: adapt its bias or later norms."""
    if not shift.any():
        return weights
    if spec.config.conv_bias:
        name = f"{STEM}.bias"
        return {**weights, name: weights[name].astype(np.float64) - shift}
    if spec.stem.norm0 is not None:
        readers = ["features.norm0"]
    else:  # every norm whose first input channels are the stem's output
        block, transition = spec.stages[0]
        readers = [f"features.{block.name}.{layer.name}.norm1" for layer in block.layers]
        readers.append(f"features.{transition.name}.norm" if transition else "features.norm5")
    moved = dict(weights)
    for reader in readers:
        name = f"{reader}.running_mean"
        values = weights[name].astype(np.float64)
        values[: len(shift)] += shift
        moved[name] = values
    return moved
