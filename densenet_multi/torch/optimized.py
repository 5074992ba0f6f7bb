"""The network for evaluation alone: a block's maps lie in one array, which its layers fill.

A BatchNorm, a ReLU and a 1x1 convolution are here a clamp and a convolution, one pass over the maps
instead of two: relu(a x + b) is a clamp(x) + b with one bound at -b / a, the lower one where a > 0,
the upper one where a < 0. The kernel takes a, the bias takes b.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..spec import DenseLayerSpec, DenseNetSpec
from .layers import relu
from .model import DenseBlock, DenseLayer, DenseNet, Features


class OptimizedLayer(DenseLayer):
    def __init__(self, spec: DenseLayerSpec) -> None:
        super().__init__(spec)
        # zeros around the map, which a wider kernel reads, are not to be clamped
        self.clamps = not spec.conv1.padding
        for name in ("lower", "upper", "kernel", "bias"):
            self.register_buffer(name, None, persistent=False)

    def prepare(self) -> None:
        norm, conv = self.norm1, self.conv1
        a = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        b = norm.bias.double() - norm.running_mean.double() * a
        dtype = conv.weight.dtype
        bound = (-b / a).to(dtype)
        constant = ~torch.isfinite(bound)  # a is 0, or next to it
        a, b = a.masked_fill(constant, 0), torch.where(constant, relu(b), b)
        bound = bound.masked_fill(constant, 0)[:, None, None]
        self.lower = bound.masked_fill(a[:, None, None] < 0, -torch.inf)
        self.upper = bound.masked_fill(a[:, None, None] > 0, torch.inf)
        kernel = conv.weight.double()
        bias = torch.einsum("oihw,i->o", kernel, b)
        self.bias = (bias if conv.bias is None else bias + conv.bias).to(dtype)
        kernel = (kernel * a[:, None, None]).to(dtype)
        self.kernel = kernel.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        if self.clamps:
            x = F.conv2d(torch.clamp(x, self.lower, self.upper), self.kernel, self.bias)
        else:
            x = self.conv1(relu(self.norm1(x)))
        if self.norm2 is not None:
            x = self.conv2(F.relu_(self.norm2(x)))
        return x  # N, k, H, W


class OptimizedBlock(DenseBlock):
    layer = OptimizedLayer

    def forward(self, x: Tensor) -> Tensor:
        count, end, height, width = x.shape
        maps = x.new_empty((count, height, width, self.spec.out_channels)).permute(0, 3, 1, 2)
        maps[:, :end] = x
        for layer in self.spec.layers:
            new = getattr(self, layer.name)(maps[:, :end])
            start, end = end, end + new.shape[1]
            maps[:, start:end] = new
        return maps


class OptimizedFeatures(Features):
    block = OptimizedBlock


class OptimizedDenseNet(DenseNet):
    features_of = OptimizedFeatures

    def __init__(self, spec: DenseNetSpec) -> None:
        super().__init__(spec)
        self.register_load_state_dict_post_hook(prepare)


@torch.no_grad()
def prepare(model: DenseNet, _: Any = None) -> None:
    """After weights have changed: bounds and kernels follow them."""
    for layer in model.modules():
        if isinstance(layer, OptimizedLayer) and layer.clamps:
            layer.prepare()
