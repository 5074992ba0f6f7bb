"""Bilinear resizing, the same for every backend: two small matrix products in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._checks import LARGEST_SIDE, integer
from .._inputs import ImageError, as_array


def resize(images: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """Resize images by bilinear interpolation: ``rows @ image @ columns.T`` for each image.

    Values are interpolated between pixel centers. Positions beyond the outermost centers get the
    value of the edge. Nothing is smoothed before shrinking. Other libraries call this half-pixel
    centers, ``align_corners=False``, ``antialias=False``.

    Raises ``ImageError`` if the images are integers (the result would be rounded to multiples of
    1/255), have the wrong number of dimensions or no pixels; ``ConfigError`` for an invalid size.

    Arguments:
        images: finite floating point of shape (N, H, W) or (N, C, H, W); converted to float32.
        height: the result's height in pixels, from 1 to 4,096.
        width: the result's width in pixels, from 1 to 4,096.

    Returns:
        float32 of shape (N, height, width) or (N, C, height, width).

    >>> from densenet_multi import data
    >>> data.resize(np.array([[[0.0, 1.0]]]), height=1, width=4)
    array([[[0.  , 0.25, 0.75, 1.  ]]], dtype=float32)
    """
    images = as_array("images", images)
    if not np.issubdtype(images.dtype, np.floating):
        raise ImageError(
            f"resize: expected floating point images, found {images.dtype}; "
            "convert them first, for example with images.astype('float32') / 255"
        )
    if images.ndim not in (3, 4) or 0 in images.shape[-2:]:
        raise ImageError(f"images: expected shape (N, H, W) or (N, C, H, W), found {images.shape}")
    height = integer("height", height, 1, LARGEST_SIDE)
    width = integer("width", width, 1, LARGEST_SIDE)
    rows = _interpolation(images.shape[-2], height)
    columns = _interpolation(images.shape[-1], width)
    # when a large photograph is shrunk, most of its pixels are not used
    used_rows, used_columns = rows.any(axis=0), columns.any(axis=0)
    used = images[..., used_rows, :][..., used_columns].astype(np.float32, copy=False)
    taller: NDArray[np.float32] = np.matmul(rows[:, used_rows], used)
    resized: NDArray[np.float32] = np.matmul(taller, columns[:, used_columns].T)
    return resized


def _interpolation(size_in: int, size_out: int) -> NDArray[np.float32]:
    """Return a matrix (size_out, size_in); row i weights the input pixels for output pixel i."""
    centers = (np.arange(size_out) + 0.5) * size_in / size_out - 0.5  # in input pixels
    centers = centers.clip(0, size_in - 1)
    distances = np.abs(centers[:, np.newaxis] - np.arange(size_in))
    weights: NDArray[np.float32] = np.maximum(0, 1 - distances).astype(np.float32)
    return weights
