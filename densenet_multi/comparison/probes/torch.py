"""PyTorch, asked by the functions of ``Framework``."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

Array = npt.NDArray[Any]


def _batch(image: Array) -> torch.Tensor:
    return torch.from_numpy(image)[None, None]


def _map(x: torch.Tensor) -> Array:
    return np.asarray(x.detach()[0, 0])


def same(image: Array, kernel: Array) -> Array | None:
    try:
        conv = nn.Conv2d(1, 1, len(kernel), stride=2, padding="same", bias=False)
    except ValueError:  # "padding='same' is not supported for strided convolutions"
        return None
    conv.weight.data = _batch(kernel)
    return _map(conv(_batch(image)))


def average_pool(image: Array) -> Array:
    return _map(nn.AvgPool2d(2)(_batch(image)))


def padded_average_pool(image: Array) -> Array:
    return _map(nn.AvgPool2d(3, padding=1)(_batch(image)))


def padded_max_pool(image: Array) -> Array:
    return _map(nn.MaxPool2d(3, 2, padding=1)(_batch(image)))


def normalized(x: float, epsilon: float | None) -> float:
    norm = nn.BatchNorm1d(1, **({} if epsilon is None else {"eps": epsilon})).eval()
    norm.running_var.zero_()
    return norm(torch.tensor([[x]])).item()


def statistics(batch: Array, *, backward: bool) -> tuple[float, float]:
    norm = nn.BatchNorm1d(1)
    y = norm(torch.from_numpy(batch)[:, None])
    if backward:
        y.sum().backward()
    return norm.running_mean.item(), norm.running_var.item()


def kernel_shape(channels: int, filters: int, height: int, width: int) -> Any:
    return nn.Conv2d(channels, filters, (height, width)).weight.shape


def linear_shape(inputs: int, outputs: int) -> Any:
    return nn.Linear(inputs, outputs).weight.shape


def relu(x: Array) -> Array:
    return np.asarray(F.relu(torch.from_numpy(x)))


def dropout(x: Array) -> Array:
    return np.asarray(nn.Dropout(0.5).train()(torch.from_numpy(x)))


def resized(image: Array, size: int) -> Array:
    return _map(F.interpolate(_batch(image), size=(size, size), mode="bilinear"))


def product(a: Array, b: Array) -> Array:
    return np.asarray(torch.from_numpy(a) @ torch.from_numpy(b))
