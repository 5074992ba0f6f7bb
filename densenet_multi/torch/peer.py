"""The DenseNet of PyTorch's own project, torchvision: ``bench`` compares with it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


def peer(variant: str, image_size: int) -> Callable[[Any], npt.NDArray[np.floating]] | None:
    try:
        from torchvision import models
    except ImportError:
        return None
    make = getattr(models, variant, None)
    if make is None:
        return None
    model = make(weights=None).eval()

    def logits(x: Any) -> npt.NDArray[np.floating]:
        with torch.inference_mode():
            return model(torch.tensor(x)).numpy()

    return logits
