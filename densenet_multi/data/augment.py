"""Random data augmentation, the same in every backend, worker and resumed run."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from .._checks import bad, integer, truth
from .._inputs import as_array, check_floats
from .order import AUGMENTATION, stream

Floating = TypeVar("Floating", bound=np.floating[Any])


def augment(
    images: NDArray[Floating],
    seed: int,
    epoch: int,
    indices: npt.ArrayLike,
    *,
    flip: bool,
    shift: int,
    fill: npt.ArrayLike = 0.0,
) -> NDArray[Floating]:
    """Flip each image horizontally with probability 1/2, and shift it randomly in both directions.

    An image's flip and shift depend only on the seed, the epoch and the image's index.

    Raises ``ImageError`` for images of the wrong type or shape, and ``ConfigError`` if another
    argument is out of range or has the wrong shape.

    Arguments:
        images: floating point of shape (n, C, H, W).
        seed: the seed of the run, from 0 to 2**64 - 1.
        epoch: counted from 0, up to 2**32 - 1.
        indices: integers of shape (n,), each image's index in its data set.
        flip: whether to flip images.
        shift: the largest shift up, down, left or right in pixels, less than H and W; each integer
            from -shift to shift is equally likely.
        fill: the value of the pixels that a shift uncovers, or one value per channel.

    Returns:
        A new array with the shape and type of ``images``.

    >>> from densenet_multi import data
    >>> image = np.arange(3.0).reshape(1, 1, 1, 3)
    >>> data.augment(image, seed=0, epoch=0, indices=[0], flip=True, shift=0)
    array([[[[2., 1., 0.]]]])
    """
    images = check_floats("images", images, "(n, C, H, W)")
    n, channels, height, width = images.shape
    where = as_array("indices", indices)
    if where.shape != (n,) or where.dtype.kind not in "iu" or (where < 0).any():
        found = f"{where.dtype} of shape {where.shape}"
        raise bad("indices", found, f"{n} integers of at least 0, one for each image")
    truth("flip", flip)
    shift = integer("shift", shift, 0)
    if shift >= min(height, width):
        raise bad("shift", shift, f"less than both sides of an image of {height} x {width} pixels")
    color = as_array("fill", fill)
    if color.dtype.kind not in "fiu" or color.shape not in ((), (1,), (channels,)):
        raise bad("fill", fill, f"a number, or {channels} numbers")

    words = _words(seed, epoch, where)
    flipped = words[:, 0] >> np.uint64(63) if flip else np.zeros(n, np.uint64)
    moves = (words[:, 1:] % np.uint64(2 * shift + 1)).astype(np.int64) - shift
    result = np.empty(images.shape, images.dtype)
    result[:] = color.astype(images.dtype).reshape(-1, 1, 1)
    for target, image, mirrored, (down, right) in zip(result, images, flipped, moves, strict=True):
        source = image[:, :, ::-1] if mirrored else image
        target[:, _slice(down, height), _slice(right, width)] = source[
            :, _slice(-down, height), _slice(-right, width)
        ]
    return result


def _slice(move: int, size: int) -> slice:
    """Return the slice of a row that its pixels occupy after a shift by ``move`` pixels."""
    return slice(max(move, 0), size + min(move, 0))


def _words(seed: int, epoch: int, indices: NDArray[Any]) -> NDArray[np.uint64]:
    """Return three random 64-bit numbers for each index, shape (n, 3).

    The generator is SplitMix64, which computes its k-th number directly from k. Each index uses
    three consecutive values of k. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014, https://doi.org/10.1145/2660193.2660195.
    """
    (start,) = stream(seed, epoch, AUGMENTATION).generate_state(1, np.uint64)
    k = 3 * indices.astype(np.uint64)[:, np.newaxis] + np.arange(1, 4).astype(np.uint64)
    z: NDArray[np.uint64] = start + k * np.uint64(0x9E3779B97F4A7C15)  # modulo 2**64
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
