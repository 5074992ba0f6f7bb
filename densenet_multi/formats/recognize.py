"""Recognize which DenseNet canonical tensors belong to, from their names and shapes alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import floor_of_decimal
from ..checkpoint import IMAGENET, IMAGENET_MEAN, MAY_BE_ASSUMED, Checkpoint, Usage
from ..spec import DenseNetConfig
from ..variants import VARIANTS
from ..weights import Weights, WeightsError, check_weights, widest

IMAGENET_CLASSES = 1000
# size of the stem's kernel -> whether a BatchNorm follows
KERNELS: Mapping[tuple[int, ...], bool] = {
    (7, 7): True,
    (3, 3): False,
}
LAYER = re.compile(r"features\.denseblock(\d+)\.denselayer(\d+)\.")


def recognize(shapes: Mapping[str, tuple[int, ...]], **known: Any) -> DenseNetConfig:
    """Infer a DenseNet's configuration from the names and shapes of its tensors.

    Raises ``WeightsError`` if no DenseNet can have these tensors.

    Arguments:
        shapes: {canonical name: canonical shape}.
        known: fields that no shape shows: ``bn_eps``, ``bn_decay``, ``drop_rate``.

    Returns:
        The configuration, inferred from a few tensors only: resolve it, and check all tensors
        against it.
    """
    blocks: dict[int, int] = {}
    for name in shapes:
        if match := LAYER.match(name):
            block, layer = int(match[1]), int(match[2])
            blocks[block] = max(layer, blocks.get(block, 0))
    first = "features.denseblock1.denselayer1"
    needed = ["features.conv0.weight", f"{first}.conv1.weight"]
    missing = [name for name in needed if len(shapes.get(name, ())) != 4]
    if missing or sorted(blocks) != list(range(1, len(blocks) + 1)):
        some = ", ".join([*list(shapes)[:3], *(["..."] if len(shapes) > 3 else [])]) or "none"
        raise WeightsError(
            f"expected a DenseNet's tensors, such as {' and '.join(missing or needed)}; found "
            f"{len(shapes)} others: {some}"
        )
    layers = sum(blocks.values())
    if layers > len(shapes) or 0 in chain.from_iterable(shapes.values()):
        raise WeightsError(
            f"expected non-empty tensors for {layers} dense layers, found {len(shapes)} tensors, "
            "which are too few or empty"
        )
    stem = shapes["features.conv0.weight"]
    if stem[2:] not in KERNELS or KERNELS[stem[2:]] != ("features.norm0.weight" in shapes):
        norm0 = "with" if "features.norm0.weight" in shapes else "without"
        raise WeightsError(
            "features.conv0.weight: expected a 7x7 stem with features.norm0, or a 3x3 stem without "
            f"it, found a {'x'.join(map(str, stem[2:]))} stem {norm0} it: no tensor shows the "
            "stride and the pooling of such a stem"
        )
    bottleneck = f"{first}.conv2.weight" in shapes
    growth_rate = shapes[f"{first}.{'conv2' if bottleneck else 'conv1'}.weight"][0]
    classes = shapes.get("classifier.weight", (0, 0))
    return DenseNetConfig(
        growth_rate=growth_rate,
        block_config=tuple(blocks[block] for block in sorted(blocks)),
        num_init_features=stem[0],
        bn_size=shapes[f"{first}.conv1.weight"][0] // growth_rate if bottleneck else None,
        compression=_compression(shapes, len(blocks)),
        num_classes=classes[0] if len(classes) == 2 else 0,
        in_channels=stem[1],
        stem="imagenet" if stem[2] == 7 else "cifar",
        conv_bias="features.conv0.bias" in shapes,
        **known,
    )


def checkpoint_of(
    weights: Weights, running_variance: str, source: str, notes: Iterable[str] = (), **known: Any
) -> Checkpoint:
    """Recognize the network that canonical tensors belong to, and validate all of them.

    Raises ``WeightsError`` if these are not the tensors of a DenseNet; ``ConfigError`` if a field
    in ``known`` is invalid.

    Arguments:
        weights: {canonical name: array in canonical layout}.
        running_variance: ``"biased"`` or ``"unbiased"``.
        source: where the weights come from, in words.
        notes: sentences for the user.
        known: as in ``recognize``.

    Returns:
        The checkpoint, with the usage that ``implied_usage`` assumes.
    """
    weights, completed = with_biases(weights)
    config = recognize({name: array.shape for name, array in weights.items()}, **known)
    spec = config.resolve()
    checked = check_weights(spec, weights, widest(weights))
    usage = replace(implied_usage(config), running_variance=running_variance, source=source)
    return Checkpoint(spec, checked, usage, (*notes, *completed))


def with_biases(weights: Weights, *, of_all: bool = False) -> tuple[Weights, list[str]]:
    """Add a zero bias to each layer that needs a bias but has none; also return notes.

    A classifier always needs a bias. All convolutions need one if only the stem has one, as when
    the stem has been replaced to accept another number of channels. With ``of_all``, they need one
    if any convolution has one.
    """
    found, notes = dict(weights), []
    kernels = [name for name, array in weights.items() if array.ndim == 4]
    absent = [name for name in kernels if _bias(name) not in weights]
    biased = len(kernels) - len(absent)
    is_stem_alone = biased == 1 and "features.conv0.bias" in weights
    if absent and biased and (of_all or is_stem_alone):
        which = "the first" if is_stem_alone else f"{biased} of {len(kernels)}"
        verb = "has" if biased == 1 else "have"
        notes.append(f"of its convolutions, only {which} {verb} a bias: zero biases were added")
        found |= {_bias(name): _zeros(weights[name]) for name in absent}
    head = weights.get("classifier.weight")
    if head is not None and "classifier.bias" not in weights:
        notes.append("its classifier has no bias: a zero bias was added")
        found["classifier.bias"] = _zeros(head)
    return found, notes


def _bias(name: str) -> str:
    return f"{name.removesuffix('.weight')}.bias"


def _zeros(kernel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.zeros(len(kernel), kernel.dtype)


def implied_usage(config: DenseNetConfig) -> Usage:
    """Return the usage to assume: ImageNet's for an ImageNet variant with 3 channels, else none.

    Its values are marked as assumed. A network with 1,000 classes gets ImageNet's class names too.
    """
    for_imagenet = (variant_name(config) or "").startswith("densenet") and config.stem == "imagenet"
    if not for_imagenet or config.in_channels != len(IMAGENET_MEAN):
        return Usage()
    names = imagenet_classes() if config.num_classes == IMAGENET_CLASSES else None
    return replace(IMAGENET, class_names=names, assumed=MAY_BE_ASSUMED)


@cache
def imagenet_classes() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes, in the order of torchvision, Keras and MXNet.

    Source: https://github.com/pytorch/vision/blob/main/torchvision/models/_meta.py
    """
    text = Path(__file__).with_name("imagenet_classes.txt").read_text("utf-8")
    return tuple(text.splitlines())


def variant_name(config: DenseNetConfig) -> str | None:
    """Return a network's variant, whatever its classes, channels, epsilon, decay and dropout."""
    free = ("num_classes", "in_channels", "bn_eps", "bn_decay", "drop_rate")
    for name, known in VARIANTS.items():
        if replace(known, **{field: getattr(config, field) for field in free}) == config:
            return name
    return None


def _compression(shapes: Mapping[str, tuple[int, ...]], blocks: int) -> float:
    widths = []  # channels (after, before) each transition
    for i in range(1, blocks):
        shape = shapes.get(f"features.transition{i}.conv.weight", ())
        if len(shape) != 4:
            raise WeightsError(f"features.transition{i}.conv.weight: missing")
        widths.append((shape[0], shape[1]))
    for guess in [0.5, 1.0, *(n / 100 for n in range(1, 100))]:
        if all(floor_of_decimal(guess, before) == after for after, before in widths):
            return guess
    after, before = max(widths, key=lambda pair: pair[1])
    return math.ceil(after / before * 10**6) / 10**6  # rounded up, because the product is floored
