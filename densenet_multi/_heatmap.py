"""Draw a map over the picture that it belongs to, as PNG."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

COLORS = "viridis"  # from dark to bright, perceptually uniform: https://bids.github.io/colormap/
SHARE_OF_COLOR = 0.6  # of the map's colors; the rest is the picture, in gray


def over(picture: npt.NDArray[np.floating], values: npt.NDArray[np.floating]) -> bytes:
    """Color a picture by a map: the map's lowest value is dark, its highest is bright.

    The map is stretched to the picture's height and width by bilinear interpolation. The picture
    is gray, because its own colors could be taken for those of the map.

    Arguments:
        picture: gray values from 0 to 1, of shape (H, W).
        values: finite, of any shape (h, w). If all are equal, the color is the darkest.

    Returns:
        a PNG of H x W pixels.
    """
    from matplotlib import colormaps
    from PIL import Image

    height, width = picture.shape
    lowest, highest = values.min(), values.max()
    shares = (values - lowest) / (highest - lowest or 1)
    stretched = Image.fromarray(shares.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    colors = colormaps[COLORS](np.asarray(stretched), bytes=True)[..., :3]
    gray = Image.fromarray((picture * 255).round().astype(np.uint8)).convert("RGB")
    drawn = Image.blend(gray, Image.fromarray(colors), SHARE_OF_COLOR)
    file = io.BytesIO()
    drawn.save(file, format="PNG")
    return file.getvalue()
