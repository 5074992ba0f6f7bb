"""The DenseNet of PyTorch's own project, torchvision: ``bench`` compares with it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .chapter import train

__all__ = ["bfloat16", "logits", "peer_net", "train"]


def peer_net(variant: str, image_size: int) -> torch.nn.Module | None:
    try:
        from torchvision import models
    except ImportError:
        return None
    make = getattr(models, variant, None)
    return make and make(weights=None)


def logits(net: Any, x: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    net.eval()
    with torch.inference_mode():
        return net(torch.tensor(x)).numpy()


def bfloat16() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """``ones`` and ``matmul``: NumPy has none in bfloat16, and ``bench`` takes these."""
    return partial(torch.ones, dtype=torch.bfloat16), torch.matmul
