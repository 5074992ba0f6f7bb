"""Flax has no DenseNet of its own: ``bench`` compares with none."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt


def peer(variant: str, image_size: int) -> Callable[[Any], npt.NDArray[np.floating]] | None:
    return None
