"""Read the head of a declared Keras model: the pooling and classifier after the last ReLU.

A head that no DenseNet of this package has is ignored with a note. If a single layer other than a
convolution reads the last feature maps, it must be global pooling: this package pools features.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ...weights import Weights, WeightsError
from .._notes import FEATURES
from .found import Declared
from .graph import Layer
from .layers import IDLE, OTHER, activation_of, expect, only_reader, past_idle

ACTIVATIONS = {"linear": "none", "softmax": "softmax", "sigmoid": "sigmoid"}
GLOBAL_POOLS = {"GlobalAveragePooling2D": "avg", "GlobalMaxPooling2D": "max"}
POOLS = {"AveragePooling2D": "avg", "MaxPooling2D": "max"}
RESHAPED = ("Flatten", "Reshape")
LISTED = 4


def read_head(declared: Declared, relu: Layer, outputs: Sequence[Layer], size: int | None) -> None:
    """Find the pooling layer, the classifier and the activation.

    Raises ``WeightsError`` if the only reader of the maps is neither a global pooling layer nor a
    convolution.

    Arguments:
        declared: receives what is found.
        relu: the last ReLU, whose output is the feature maps.
        outputs: the model's output layers.
        size: pixels per side of the feature maps, if declared.
    """
    maps = past_idle(relu)[0]
    declared.end = maps
    if not maps.readers:
        return
    if len(maps.readers) > 1 or maps.readers[0].kind == "Conv2D":
        _leave_out(declared, maps, maps.readers)
        return
    pool = declared.end = only_reader(maps)
    declared.fields["global_pool"] = _pooling(declared, pool, size)
    following = chain(pool)
    if several := (following or [pool])[-1].readers:
        _leave_out(declared, pool, [*following, *several])
        return
    beside = [o for o in outputs if o is not (following or [pool])[-1]]
    dense = [layer for layer in following if layer.kind == "Dense"]
    activation = activation_after(pool, following, dense)
    if activation is None:
        _leave_out(declared, pool, following)
    elif dense:
        declared.layers["classifier"] = declared.end = dense[0]
        declared.activation = activation
    if beside:
        declared.notes.append(f"its other outputs were ignored: {', '.join(map(str, beside[:6]))}")


def is_head(conv: Layer) -> bool:
    """Return whether a convolution is part of a head: no BatchNorm or concatenation follows it."""
    inside = ("BatchNormalization", "Concatenate")
    return not any(
        reader.kind in inside for layer in [conv, *chain(conv)] for reader in layer.readers
    )


def _pooling(declared: Declared, pool: Layer, size: int | None) -> str:
    if pool.kind in GLOBAL_POOLS:
        expect(pool, "data_format", "channels_last")
        return GLOBAL_POOLS[pool.kind]
    side = f"{declared.image_size}x{declared.image_size} images, the declared size"
    if pool.kind == "Flatten" and size == 1:
        declared.notes.append(
            f"its layer {pool} reads a 1x1 map, which this package's pooling leaves unchanged: the "
            f"outputs agree for {side}"
        )
        return "avg"
    if pool.kind in POOLS:
        window, strides = (_pair(pool.config.get(name)) for name in ("pool_size", "strides"))
        padding = pool.config.get("padding", "valid")
        steps_once = strides is None or (size is not None and min(strides) >= size)
        if (
            size is None
            or window != [size, size]
            or not (padding == "valid" or steps_once)
            or pool.config.get("data_format") == "channels_first"
        ):
            how = "" if padding == "valid" else f" with strides {strides}, padding {padding!r}"
            raise WeightsError(
                f"{pool}: expected pooling over the complete map"
                f"{f', {size}x{size}' if size else ', whose size is not declared'}; found "
                f"{window}{how}: {OTHER}"
            )
        declared.notes.append(
            f"its pooling layer {pool} has a fixed window, but this package's covers the complete "
            f"map: the outputs agree for {side}"
        )
        return POOLS[pool.kind]
    raise WeightsError(
        f"{pool}: expected a global pooling layer after the last BatchNormalization, found another "
        f"layer: {OTHER}"
    )


def _pair(value: Any) -> Any:
    return [value, value] if isinstance(value, int) else value


def chain(layer: Layer) -> list[Layer]:
    """Return the layers after this one, up to and including one with no or several readers."""
    found = []
    while len(layer.readers) == 1:
        layer = layer.readers[0]
        found.append(layer)
    return found


def activation_after(
    read: Layer, following: Sequence[Layer], dense: Sequence[Layer], *, logits: bool = False
) -> str | None:
    """Return the activation after the only Dense; None for any other head or activation.

    A softmax is accepted only if its axis holds all outputs, not a group of them.

    Arguments:
        read: the layer before the head's other layers: a pooling layer, or a network.
        following: the layers after ``read``.
        dense: the Dense layers among them.
        logits: whether ``read`` already outputs logits.
    """
    if len(dense) > 1:
        return None
    activation = "linear"
    axis: int | None = 3 if read.config.get("keepdims") or read.kind in POOLS else 1  # channels
    last = axis or 1  # the last axis; axis 0 is the batch's
    for layer in following:
        if layer.kind in IDLE:
            continue
        if layer.kind in RESHAPED:
            sides = layer.config["target_shape"] if layer.kind == "Reshape" else [-1]
            axis, last = _axis_of_all(sides), len(sides)
            continue
        found = activation_of(layer.config.get("activation"))
        over = last
        if layer.kind == "Softmax":
            found, over = "softmax", _one_axis(layer.config.get("axis", -1), last)
        elif layer.kind not in ("Dense", "Activation"):
            return None
        if (layer.kind == "Dense" and axis != last) or (found == "softmax" and axis != over):
            return None
        if found == "linear":
            continue
        is_first = following.index(layer) < following.index(dense[0]) if dense else not logits
        if is_first or activation != "linear":
            return None
        activation = found
    return ACTIVATIONS.get(activation)


def _axis_of_all(sides: Sequence[int]) -> int | None:
    """Return the axis that holds all channels; None if they are split into groups."""
    long = [axis for axis, side in enumerate(sides, 1) if side != 1]
    return None if len(long) > 1 else (long or [len(sides)])[0]


def _one_axis(given: Any, last: int) -> int:
    """Return a softmax's axis as a non-negative number; -1 if it has several axes."""
    (axis, *more) = given if isinstance(given, list) else [given]
    return -1 if more else int(axis) + (last + 1 if axis < 0 else 0)


def _leave_out(declared: Declared, end: Layer, following: Sequence[Layer]) -> None:
    some = [layer for layer in following if layer.kind not in IDLE]
    more = ", ..." if len(some) > LISTED or following[-1].readers else ""
    declared.notes.append(
        f"its layer {end} is followed by a head that no DenseNet of this package has "
        f"({', '.join(map(str, some[:LISTED]))}{more}); {FEATURES}"
    )


def with_head(weights: Weights) -> tuple[Weights, list[str]]:
    """Name the classifier in a weights-only file, or drop any other head with a note.

    The only linear layer that fits the last feature maps is the classifier, whatever its name.
    Nothing is dropped if an unknown tensor is neither 1D nor 2D, because it may be in the body.
    """
    known = ("features.", "classifier.")
    groups: dict[str, dict[str, str]] = {}
    for name in weights:
        if not name.startswith(known):
            place, _, leaf = name.rpartition(".")
            groups.setdefault(place, {})[leaf] = name
    linear = [la for la, leaves in groups.items() if _is_linear(weights, leaves.values())]
    if not linear or "classifier.weight" in weights:
        return weights, []
    if not all(weights[n].ndim in (1, 2) for leaves in groups.values() for n in leaves.values()):
        return weights, []
    body = {name: array for name, array in weights.items() if name.startswith(known)}
    width = len(weights.get("features.norm5.weight", ()))
    if len(groups) == 1:
        (place,) = linear
        for name in groups[place].values():
            body[f"classifier.{'weight' if weights[name].ndim == 2 else 'bias'}"] = weights[name]
        if not width or body["classifier.weight"].shape[1] == width:
            return body, []
    matrices = [n for leaves in groups.values() for n in leaves.values() if weights[n].ndim == 2]
    shapes = ", ".join(f"{name.rpartition('.')[0]} {weights[name].shape}" for name in matrices[:6])
    note = f"it has a head that no DenseNet of this package has ({shapes}); {FEATURES}"
    return {name: a for name, a in body.items() if name.startswith("features.")}, [note]


def _is_linear(weights: Weights, names: Collection[str]) -> bool:
    shapes = sorted((weights[name].shape for name in names), key=len)
    return [len(shape) for shape in shapes] in ([2], [1, 2]) and (
        len(shapes) == 1 or shapes[0] == shapes[1][:1]
    )
