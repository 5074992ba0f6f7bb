"""The spec's layers and operations in PyTorch. Images are NCHW, kernels OIHW."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..spec import BatchNormSpec, ConvSpec, LinearSpec, PoolSpec


def conv(spec: ConvSpec) -> nn.Conv2d:
    return nn.Conv2d(
        spec.in_channels,
        spec.out_channels,
        spec.kernel_size,
        stride=spec.stride,
        padding=spec.padding,
        bias=spec.bias,
    )


def batch_norm(spec: BatchNormSpec) -> nn.BatchNorm2d:
    # PyTorch's momentum is the weight of the new value: 0.1 for the spec's decay of 0.9
    return nn.BatchNorm2d(spec.num_features, eps=spec.eps, momentum=round(1 - spec.decay, 15))


def max_pool(spec: PoolSpec) -> nn.MaxPool2d:
    return nn.MaxPool2d(spec.kernel_size, stride=spec.stride, padding=spec.padding)


def avg_pool(spec: PoolSpec) -> nn.AvgPool2d:
    return nn.AvgPool2d(spec.kernel_size, stride=spec.stride)


def linear(spec: LinearSpec) -> nn.Linear:
    return nn.Linear(spec.in_features, spec.out_features)


def dropout(rate: float) -> nn.Module:
    return nn.Dropout(rate) if rate else nn.Identity()


def relu(x: Tensor) -> Tensor:
    return F.relu(x)


def concat(*maps: Tensor) -> Tensor:
    return torch.cat(maps, dim=1)


def global_avg_pool(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


def global_max_pool(x: Tensor) -> Tensor:
    return x.amax(dim=(2, 3))


def batch_norm_1d(spec: BatchNormSpec) -> nn.BatchNorm1d:
    norm = batch_norm(spec)  # BatchNorm2d computes the same, but refuses rows (N, C)
    return nn.BatchNorm1d(norm.num_features, norm.eps, norm.momentum)


ACTIVATIONS: dict[str, Any] = {"relu": relu, "silu": F.silu, "tanh": torch.tanh}
