"""An inference-only network: the layers of a block write into one preallocated array.

A BatchNorm, its ReLU and the 1x1 convolution after it become a clamp and a convolution: one pass
over the maps instead of two. BatchNorm and ReLU are relu(a * x + b), which equals
a * clamp(x) + b. The clamp's bound is -b / a: a lower bound if a > 0, an upper bound if a < 0. The
factor a is folded into the kernel, and b into the bias. _packed.py has the convolutions, and
_memory.py the arrays.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..._fold import fill_folded, fold
from ..layers import relu
from ..model import DenseBlock, DenseLayer, DenseNet, Features, Transition
from ..weights import dtype_of, export_weights, import_weights
from ._memory import Memory
from ._packed import Packed
from .exchange import Kinds, exchange


def for_inference(model: DenseNet, *, bfloat16: bool = False) -> DenseNet:
    spec, weights = fold(model.spec, export_weights(model))
    faster = DenseNet(spec).to(getattr(torch, dtype_of(model)))
    fill_folded(faster, nn.Identity)
    stem = faster.features
    if stem.pool0 is not None:  # pooled first, the ReLU reads and writes a quarter of the map
        stem.norm0, stem.pool0 = stem.pool0, stem.norm0
    memory = Memory()
    for module in exchange(faster, INFERENCE).modules():
        if isinstance(module, Clamping):
            module.set_up(bfloat16, memory)
        elif isinstance(module, InferenceConv):
            module.set_up(bfloat16)
        elif isinstance(module, InferenceBlock):
            module.memory = memory
        elif isinstance(module, InferenceFeatures):
            module.bfloat16 = bfloat16
    import_weights(faster, weights)
    device = model.features.conv0.weight.device
    # this memory format is the fastest in oneDNN and cuDNN; maps adopt the kernels' format
    return faster.to(device, memory_format=torch.channels_last).requires_grad_(False).eval()


class InferenceConv(nn.Conv2d):
    def set_up(self, bfloat16: bool) -> None:
        """Do the work of ``__init__``, which ``exchange`` does not call."""
        self.packed = Packed()
        self.bfloat16 = bfloat16

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:  # noqa: FBT002  # PyTorch's signature
        super()._apply(function, recurse)  # called by .to(), .double(), .cuda()
        self.packed = Packed()
        return self

    def forward(self, x: Tensor, *, relu: bool = False) -> Tensor:
        dtype = torch.bfloat16 if self.bfloat16 else self.weight.dtype
        how = {"padding": self.padding, "stride": self.stride, "relu": relu}
        return self.packed.convolve(x.to(dtype), self.weight, self.bias, **how)


class Clamping(nn.Module):
    """A BatchNorm, a ReLU and a convolution, computed as a clamp and a convolution."""

    def pair(self) -> tuple[nn.BatchNorm2d, InferenceConv]:
        """Return the BatchNorm and the convolution."""
        raise NotImplementedError

    def set_up(self, bfloat16: bool, memory: Memory) -> None:
        """Do the work of ``__init__``, which ``exchange`` does not call."""
        self.bfloat16 = bfloat16
        self.packed, self.memory = Packed(), memory
        for name in ("lower", "upper", "border", "kernel", "bias"):
            self.register_buffer(name, None, persistent=False)
        self.register_load_state_dict_post_hook(prepare)

    @torch.no_grad()
    def prepare(self) -> None:
        """Compute the bounds, kernel and bias of the forward pass from the current weights."""
        norm, conv = self.pair()
        a = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        b = norm.bias.double() - norm.running_mean.double() * a
        dtype = torch.bfloat16 if self.bfloat16 else conv.weight.dtype
        bound = (-b / a).to(dtype)
        constant = ~torch.isfinite(bound)  # a is 0 or almost 0
        a, b = a.masked_fill(constant, 0), torch.where(constant, relu(b), b)
        bound = self.border = bound.masked_fill(constant, 0)[:, None, None]
        # padding is 0; the bound becomes 0, but the 0 of a constant channel becomes b
        self.clamps = not any(conv.padding) or not (constant & (b > 0)).any()
        self.lower = bound.masked_fill(a[:, None, None] < 0, -torch.inf)
        self.upper = bound.masked_fill(a[:, None, None] > 0, torch.inf)
        self.has_upper = not self.upper.isinf().all()
        kernel = conv.weight.double()
        bias = torch.einsum("oihw,i->o", kernel, b)
        self.bias = (bias if conv.bias is None else bias + conv.bias).to(dtype)
        kernel = (kernel * a[:, None, None]).to(dtype)
        self.kernel = kernel.to(memory_format=torch.channels_last)
        self.packed = Packed()

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:  # noqa: FBT002  # PyTorch's signature
        super()._apply(function, recurse)  # called by .to(), .double(), .cuda()
        prepare(self)
        return self

    def can_clamp(self, x: Tensor) -> bool:
        # a GPU's convolutions round their input to TF32: normalizing it first is more precise
        return self.clamps and x.device.type == "cpu" and not x.requires_grad

    def clamp(self, x: Tensor) -> Tensor:
        """Return the clamped map, surrounded by the bounds: in the convolution, these become 0."""
        count, channels, height, width = x.shape
        p, _ = self.pair()[1].padding
        y = self.memory.like(x, count, channels, height + 2 * p, width + 2 * p)
        inside = y[:, :, p : p + height, p : p + width]
        if self.has_upper:
            torch.clamp(x, self.lower, self.upper, out=inside)
        else:
            torch.maximum(x, self.lower, out=inside)  # takes half as long in bfloat16
        if p:
            for edge in (y[:, :, :p], y[:, :, -p:], y[:, :, :, :p], y[:, :, :, -p:]):
                edge.copy_(self.border)
        return y

    def convolve(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """Return the convolution of a clamped map."""
        how = {"padding": (0, 0), "stride": self.pair()[1].stride, "relu": relu}
        return self.packed.convolve(x, self.kernel, self.bias, **how)


class InferenceLayer(Clamping, DenseLayer):
    def pair(self) -> tuple[nn.BatchNorm2d, InferenceConv]:
        return self.norm1, self.conv1

    def forward(self, x: Tensor) -> Tensor:
        folded = self.norm2 is not None  # into conv1
        if self.can_clamp(x):
            x = self.convolve(self.clamp(x), relu=folded)
        else:
            x = self.conv1(relu(self.norm1(x)), relu=folded)
        return self.conv2(x) if folded else x  # N, k, H, W


class InferenceTransition(Clamping, Transition):
    def pair(self) -> tuple[nn.BatchNorm2d, InferenceConv]:
        return self.norm, self.conv

    def forward(self, x: Tensor) -> Tensor:
        if not self.can_clamp(x):
            return super().forward(x)
        if self.averages:  # an average of a * x + b is a * average of x + b
            return self.convolve(self.pool(self.clamp(x)))
        return self.pool(self.convolve(self.clamp(x)))


class InferenceBlock(DenseBlock):
    memory: Memory

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:  # gradients need each layer's unmodified input
            return super().forward(x)
        count, end, height, width = x.shape
        maps = self.memory.like(x, count, self.spec.out_channels, height, width)
        maps[:, :end] = x
        for layer in self.spec.layers:
            new = getattr(self, layer.name)(maps[:, :end])
            start, end = end, end + new.shape[1]
            maps[:, start:end] = new
        return maps


class InferenceFeatures(Features):
    bfloat16 = False

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        if not self.bfloat16:
            return super().stages(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            return super().stages(x)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(x.dtype)


INFERENCE: Kinds = {
    nn.Conv2d: InferenceConv,
    DenseLayer: InferenceLayer,
    DenseBlock: InferenceBlock,
    Transition: InferenceTransition,
    Features: InferenceFeatures,
}


def prepare(module: nn.Module, _: Any = None) -> None:
    """Prepare every clamp in a module again, after the weights have changed."""
    for each in module.modules():
        if isinstance(each, Clamping) and each.pair()[1].weight.is_cpu:
            each.prepare()
