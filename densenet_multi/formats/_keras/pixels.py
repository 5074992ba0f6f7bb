"""Turn the layers before a Keras model's first convolution into the settings of a ``Usage``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ...checkpoint import Usage
from ...weights import WeightsError
from .entries import READ
from .graph import Layer

SCALING = ("Rescaling", "Normalization", "TrueDivide", "Multiply", "Add", "Subtract")
SIZING = ("Resizing", "CenterCrop", "RandomCrop")  # in inference, RandomCrop crops the center
# axes of a Normalization: the channels, or none if a single mean applies to all
AXES: tuple[object, ...] = (-1, 3, None, [-1], [3], [])
BYTES = 255.0
Numbers = list[float]


def affine(
    layers: list[Layer], stored: Mapping[str, tuple[Any, Any]]
) -> tuple[Numbers, Numbers] | None:
    """Return (a, b), per channel or for all: pixels x become a x + b. Return None without layers.

    Raises ``WeightsError`` for a layer that computes something else.

    Arguments:
        layers: layers of the classes in ``SCALING``, in order.
        stored: {place: (mean, variance)} of each Normalization whose values are stored as weights.
    """
    if not layers:
        return None
    scale, shift = [1.0], [0.0]
    for layer in layers:
        by, add = _one_step(layer, stored)
        try:
            scale = _zipped(scale, by, lambda s, f: s * f)
            shift = _zipped(_zipped(shift, by, lambda s, f: s * f), add, lambda s, a: s + a)
        except ValueError:
            raise WeightsError(f"{layer}: expected one number for each channel") from None
    return scale, shift


def _one_step(layer: Layer, stored: Mapping[str, tuple[Any, Any]]) -> tuple[Numbers, Numbers]:
    try:
        if layer.kind == "Rescaling":
            return _numbers(layer.config["scale"]), _numbers(layer.config.get("offset", 0))
        if layer.kind == "Normalization":
            return _normalization(layer, stored)
        left, right = (each for each in layer.given if each is READ or not _is_option(each))
        if left is READ and right is not READ:
            value = _numbers(right)
            return {
                "TrueDivide": lambda: ([1 / v for v in value], [0.0]),
                "Multiply": lambda: (value, [0.0]),
                "Add": lambda: ([1.0], value),
                "Subtract": lambda: ([1.0], [-v for v in value]),
            }[layer.kind]()
        value = _numbers(left)  # the number comes first: 1 - x
        return {
            "Multiply": (value, [0.0]),
            "Add": ([1.0], value),
            "Subtract": ([-1.0], value),
        }[layer.kind]
    except (KeyError, ValueError, TypeError, ZeroDivisionError, OverflowError):
        raise WeightsError(
            f"{layer}: expected numbers by which pixels are scaled and shifted, found something "
            "else: no usage of this package can express this layer"
        ) from None


def _normalization(layer: Layer, stored: Mapping[str, tuple[Any, Any]]) -> tuple[Numbers, Numbers]:
    if layer.config.get("invert") or layer.config.get("axis", -1) not in AXES:
        raise ValueError("another kind")
    mean, variance = layer.config.get("mean"), layer.config.get("variance")
    if mean is None:
        mean, variance = stored[layer.place]
    deviations = [max(v**0.5, 1e-7) for v in _numbers(variance)]  # as Keras does
    return [1 / d for d in deviations], _zipped(_numbers(mean), deviations, lambda m, d: -m / d)


def check_axis(layer: Layer) -> None:
    """Raise unless a Normalization has one mean per channel, or one for all channels."""
    axis = layer.config.get("axis", -1)
    if layer.kind == "Normalization" and axis not in AXES:
        raise WeightsError(
            f"{layer}: expected a mean for each channel (axis -1) or for all (axis None), found "
            f"axis {axis}: no usage of this package can express this layer"
        )


def _is_option(value: Any) -> bool:
    return value is None or isinstance(value, (bool, str))


def _numbers(value: Any) -> Numbers:
    while isinstance(value, dict):  # a tensor, as Keras serializes it
        value = value["config"]["value"]
    if hasattr(value, "ravel"):
        value = list(value.ravel())
    if isinstance(value, (list, tuple)):
        while len(value) == 1 and isinstance(value[0], (list, tuple)):
            value = value[0]
        return [float(v) for v in value]
    return [float(value)]


def _zipped(one: Numbers, other: Numbers, rule: Callable[[float, float], float]) -> Numbers:
    size = max(len(one), len(other))
    if {len(one), len(other)} - {1, size}:
        raise ValueError("other channels")
    return [rule(one[i % len(one)], other[i % len(other)]) for i in range(size)]


def pixels_of(
    layers: list[Layer], stored: Mapping[str, tuple[Any, Any]], channels: int
) -> tuple[dict[str, Any], str]:
    """Return the range, mean and std of a ``Usage`` equivalent to these layers, and a note.

    No layer states whether the pixels are from 0 to 255 or from 0 to 1, so this is assumed.

    Raises ``WeightsError`` if no usage is equivalent.
    """
    found = affine(layers, stored)
    if found is None:
        return {}, ""
    scale, shift = found
    names = ", ".join(map(str, layers))
    if len(set(scale)) == len(set(shift)) == 1:
        scale, shift = scale[:1], shift[:1]
    else:
        scale, shift = (_zipped(v, [0.0] * channels, lambda a, _: a) for v in (scale, shift))
    if min(scale) <= 0:
        raise WeightsError(
            f"{names}: expected pixels scaled by a positive factor, found {min(scale):g}: no usage "
            "of this package inverts images"
        )
    high = BYTES if _is_for_bytes(scale, shift) else 1.0
    note = (
        f"its layers {names} preprocess pixels, and became the range, mean and std of its usage; "
        f"input from 0 to {high:.0f} is assumed"
    )
    if len(scale) == 1:
        low, top = shift[0], shift[0] + high * scale[0]
        return {"value_range": (low, top)}, note
    means = tuple(-b / a for a, b in zip(scale, shift, strict=True))
    return {"value_range": (0.0, high), "mean": means, "std": tuple(1 / a for a in scale)}, note


def _is_for_bytes(scale: Numbers, shift: Numbers) -> bool:
    """Return whether pixels from 0 to 255, rather than 0 to 1, would be scaled to usual values."""
    return max(scale) < 0.2 or max(-b / a for a, b in zip(scale, shift, strict=True)) > 2


def with_declared_pixels(usage: Usage, given: Mapping[str, Any]) -> Usage:
    """Return the usage with these preprocessing settings; mark the range as assumed."""
    if not given:
        return usage
    stated = usage.stating(**given)
    return replace(stated, assumed=(*stated.assumed, "value_range"))
