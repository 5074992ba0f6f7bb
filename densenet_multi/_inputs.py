"""Validate images, labels and other arrays in the same way for every backend."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ._checks import LARGEST_SIDE, ConfigError, instance, integer, truth
from .manifest import AnySpec, ListedSpec, min_image_size, shape_trace
from .spec import DenseNetSpec, PoolSpec, check_spec

F = TypeVar("F", bound=Callable[..., Any])


class ImageError(ValueError):
    """Images, labels or other arrays are invalid; the message states what was expected."""


def as_array(name: str, given: Any, dtype: str | None = None) -> npt.NDArray[Any]:
    """Convert to an array. Raises ``ImageError`` if that fails, or for a masked array."""
    if isinstance(given, np.ma.MaskedArray):  # NumPy would ignore the mask
        raise ImageError(f"{name}: expected all values, found a masked array; fill it: .filled(0)")
    try:
        array = np.asarray(given)
        return array if dtype is None else array.astype(dtype, casting="same_kind", copy=False)
    except Exception as error:  # the object's own code may raise anything
        kind = type(given).__name__
        raise ImageError(f"{name}: expected an array, found {kind}: {error}") from error


def check_logits(given: Any) -> npt.NDArray[np.float64]:
    """Return logits as float64, (N, classes) with N at least 1. Raises ``ImageError``."""
    scores = as_array("logits", given, "float64")
    if scores.ndim != 2 or not len(scores):
        expected = "(N, classes) with N at least 1"
        raise ImageError(f"logits: expected shape {expected}, found {scores.shape}")
    return scores


def check_floats(
    name: str, given: Any, shape: str = "(N, C, H, W)", kinds: str = "f"
) -> npt.NDArray[Any]:
    """Return a floating-point array with as many dimensions as ``shape`` lists.

    ``kinds`` lists the accepted values of NumPy's ``dtype.kind``. Raises ``ImageError``.
    """
    array = as_array(name, given)
    if array.dtype.kind not in kinds or array.ndim != shape.count(",") + 1:
        found = f"{array.dtype} of shape {array.shape}"
        raise ImageError(f"{name}: expected floating point of shape {shape}; found {found}")
    return array


def operation(function: F) -> F:
    """Decorate an operation of reference.py: validate each argument according to its name.

    The map ``x`` (N, C, H, W) and the ``kernel`` (O, C, k, k) are floating point, or complex for
    complex-step derivatives. Raises ``ImageError`` or ``ConfigError``, also if the map is
    smaller than one window.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        arguments = {name: OPERANDS[name](name, value) for name, value in given.arguments.items()}
        _check_window(**arguments)
        return function(**arguments)

    return cast("F", checked)


def _check_window(x: Any, kernel: Any = None, pool: Any = None, **of_kernel: int) -> None:
    """Raise ``ImageError`` unless a window of the kernel or pool fits into x (N, C, H, W)."""
    if kernel is not None:
        largest = min(x.shape[2:]) + 2 * of_kernel["padding"]
        _, channels, k, width = kernel.shape
        if x.shape[1] != channels or not 0 < k == width <= largest:
            fitting = f"(O, {x.shape[1]}, k, k) with k from 1 to {largest}"
            raise ImageError(f"kernel: expected shape {fitting}, found {kernel.shape}")
    if pool is not None and min(x.shape[2:]) + 2 * pool.padding < pool.kernel_size:
        least = f"height and width of at least {pool.kernel_size}"
        raise ImageError(f"x: expected {least}, found {x.shape[2:]}")


OPERANDS: dict[str, Callable[[str, Any], Any]] = {  # arguments of the operations in reference.py
    "x": partial(check_floats, kinds="fc"),
    "kernel": partial(check_floats, kinds="fc"),
    "stride": partial(integer, least=1),
    "padding": partial(integer, least=0, most=LARGEST_SIDE),
    "pool": partial(instance, kind=PoolSpec, expected="a PoolSpec, such as PoolSpec(2, 2)"),
}


def check_listed(name: str, given: Any) -> npt.NDArray[Any]:
    """Return an array of numbers with one entry for each example. Raises ``ImageError``."""
    array = as_array(name, given)
    if not array.ndim or array.dtype.kind not in "biuf":
        found = f"{array.dtype} of shape {array.shape}"
        raise ImageError(f"{name}: expected numbers, one entry per example; found {found}")
    return array


def check_indices(indices: Any, count: int) -> npt.NDArray[np.int64]:
    """Return indices (n,) of some of ``count`` examples. Raises ``ImageError``."""
    array = as_array("indices", indices)
    if array.shape == (0,):
        return array.astype(np.int64)  # NumPy converts [] to floating point
    is_list = array.ndim == 1 and array.dtype.kind in "iu"
    if not is_list or not 0 <= array.min() <= array.max() < count:
        found = f"{array.min()} to {array.max()}" if is_list else f"{array.dtype} {array.shape}"
        raise ImageError(f"indices: expected integers (n,) from 0 to {count - 1}; found {found}")
    return array


def check_images(
    spec: DenseNetSpec,
    images: npt.ArrayLike,
    dtype: str | None = None,
    *,
    several_values: bool = False,
) -> npt.NDArray[np.floating]:
    """Return images (N, C, H, W) as a floating point array, cast to ``dtype`` if it is given.

    Raises ``ImageError`` for a wrong number of dimensions or channels, an empty batch, integers
    (scale pixels of 0..255 first) or pixels that are not finite, and ``ImageSizeError`` for too few
    pixels. With ``several_values``, every BatchNorm must get more than one value per channel, which
    an unbiased variance requires.
    """
    array = as_array("images", images)
    check_image_shape(spec, array.shape)
    if array.dtype.kind != "f":
        hint = "scale pixels first, e.g. images.astype('float32') / 255"
        raise ImageError(f"images: expected floating point, found {array.dtype}; {hint}")
    if several_values or min(array.shape[2:]) < min_image_size(spec):
        *_, (_, (_, height, width)) = shape_trace(spec, *array.shape[2:])
    if several_values and len(array) * height * width == 1:
        raise ImageError(
            "images: expected more than one value per channel, found one image whose last map is "
            "1x1 (one value has no unbiased variance); pass more or larger images"
        )
    with np.errstate(over="ignore"):  # overflow is reported below
        cast = np.ascontiguousarray(array, dtype)
    if not np.isfinite(cast).all():
        bad = int((~np.isfinite(cast)).sum())
        raise ImageError(f"images: expected finite pixels, found {bad} not finite in {cast.dtype}")
    return cast


def check_image_shape(spec: DenseNetSpec, shape: tuple[int, ...]) -> None:
    """Raise ``ImageError`` for no image, or a wrong number of dimensions or channels."""
    channels = check_spec(spec).config.in_channels
    if len(shape) != 4 or shape[1] != channels or shape[0] == 0:
        expected = f"(N, {channels}, height, width) with N at least 1"
        last = len(shape) == 4 and shape[3] == channels
        hint = "; for channels-last images: images.transpose(0, 3, 1, 2)" if last else ""
        raise ImageError(f"images: expected shape {expected}, found {shape}{hint}")


def check_map(features: Any, stage: str, channels: int) -> npt.NDArray[np.floating]:
    """Return a stage's map (N, C, H, W) from {stage: map}. Raises ``ImageError``."""
    if not isinstance(features, Mapping) or stage not in features:
        found = list(features) if isinstance(features, Mapping) else type(features).__name__
        hint = "pass what a backend's features(model, images) returns"
        raise ImageError(f"features: expected {{{stage!r}: map}}, found {found}; {hint}")
    name = f"features[{stage!r}]"
    array = check_floats(name, features[stage])
    if array.shape[1] != channels or 0 in array.shape:
        expected = f"(N, {channels}, H, W), none of them 0"
        raise ImageError(f"{name}: expected shape {expected}, found {array.shape}")
    return array


def check_complete(spec: DenseNetSpec) -> None:
    """Raise ``ConfigError`` for a spec whose BatchNorms ``optimize`` has folded."""
    if _is_folded(spec):
        raise ConfigError(
            "spec: expected all of its BatchNorms, found the spec of an inference-only model "
            "from optimize(); use spec.config.resolve()"
        )


def check_trainable(spec: AnySpec) -> None:
    """Raise ``ConfigError`` for the spec of an inference-only model from ``optimize``."""
    if _is_folded(spec):
        raise ConfigError(
            "model: expected a network with all its BatchNorms, found an inference-only copy from "
            "optimize(); train the model that you passed to optimize()"
        )


def check_without_dropout(spec: DenseNetSpec, training: bool) -> None:
    """If training, refuse folded networks (``check_trainable``) and dropout (``ValueError``)."""
    if truth("training", training):
        check_trainable(spec)
    if training and spec.config.drop_rate:
        raise ValueError(
            f"reference.forward: expected drop_rate 0 in training, found {spec.config.drop_rate}: "
            "dropout is random; compare in evaluation mode or with drop_rate=0"
        )


def _is_folded(spec: AnySpec) -> bool:
    given: AnySpec = spec if isinstance(spec, ListedSpec) else check_spec(spec)
    return bool(given != given.config.resolve())


def check_batch(
    spec: DenseNetSpec,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    dtype: str,
    *,
    several_values: bool = False,
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.int64]]:
    """Validate a training batch: see ``check_images``, ``check_labels``, ``check_trainable``."""
    check_trainable(spec)
    x = check_images(spec, images, dtype, several_values=several_values)
    return x, check_labels(labels, len(x), spec.config.num_classes)


def check_labels(labels: npt.ArrayLike, count: int, num_classes: int) -> npt.NDArray[np.int64]:
    """Return labels (N,) as int64.

    Raises ``ImageError`` unless there are ``count`` labels from 0 to ``num_classes - 1``.
    """
    array = as_array("labels", labels)
    if num_classes == 0:
        raise ImageError(
            "labels: expected a network with classes, found no classifier (num_classes=0)"
        )
    if array.shape != (count,) or array.dtype.kind not in "iu":
        expected = f"{count} integers, shape ({count},)"
        raise ImageError(f"labels: expected {expected}; found {array.dtype} of shape {array.shape}")
    if array.size and not 0 <= array.min() <= array.max() < num_classes:
        found = f"{array.min()} to {array.max()}"
        raise ImageError(f"labels: expected values from 0 to {num_classes - 1}, found {found}")
    return array.astype(np.int64)
