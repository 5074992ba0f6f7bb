"""Draw a map over the picture that it belongs to, as PNG."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

COLORS = "viridis"  # from dark to bright, perceptually uniform: https://bids.github.io/colormap/
SHARE_OF_COLOR = 0.6  # of the map's colors; the rest is the picture, in gray


def over(picture: npt.NDArray[np.floating], values: npt.NDArray[np.floating]) -> bytes:
    """Color a picture by a map: the map's lowest value is dark, its highest is bright.

    The map is stretched to the picture's height and width by bilinear interpolation. The picture
    becomes gray, because its own colors could be taken for those of the map.

    Arguments:
        picture: from 0 to 1, gray of shape (1, H, W) or RGB of shape (3, H, W).
        values: finite, of any shape (h, w). If all are equal, the color is the darkest.

    Returns:
        a PNG of H x W pixels.
    """
    from matplotlib import colormaps
    from PIL import Image

    _, height, width = picture.shape
    lowest, highest = values.min(), values.max()
    shares = (values - lowest) / (highest - lowest or 1)
    stretched = Image.fromarray(shares.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    colors = colormaps[COLORS](np.asarray(stretched), bytes=True)[..., :3]
    drawn = Image.blend(_gray(picture), Image.fromarray(colors), SHARE_OF_COLOR)
    file = io.BytesIO()
    drawn.save(file, format="PNG")
    return file.getvalue()


def _gray(picture: npt.NDArray[np.floating]) -> Any:
    from PIL import Image

    pixels = (picture * 255).round().astype(np.uint8).transpose(1, 2, 0)
    colored = pixels if len(picture) == 3 else pixels.repeat(3, axis=2)
    return Image.fromarray(colored).convert("L").convert("RGB")
