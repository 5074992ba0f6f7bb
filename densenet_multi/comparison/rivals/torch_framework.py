"""The DenseNet of PyTorch's own project, torchvision: ``bench`` compares with it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .torch_chapter import train

__all__ = [
    "forget_peak_gpu_memory",
    "logits",
    "peak_gpu_memory",
    "peer_net",
    "products",
    "train",
]


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
        return net(torch.tensor(x, device=next(net.parameters()).device)).cpu().numpy()


def products(
    dtype: str, device: str
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[[], object]] | None:
    """``ones``, ``matmul``, and what waits for them: NumPy has no bfloat16, and no GPU."""
    ones = partial(torch.ones, dtype=getattr(torch, dtype))
    if device == "cpu":
        return ones, torch.matmul, lambda: None
    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = True  # as convolutions are
    return partial(ones, device="cuda"), torch.matmul, torch.cuda.synchronize


def peak_gpu_memory() -> int:
    return torch.cuda.max_memory_allocated()


def forget_peak_gpu_memory() -> None:
    torch.cuda.reset_peak_memory_stats()
