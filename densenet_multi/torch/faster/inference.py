"""An inference-only network: the layers of a block write into one preallocated array.

In a bottleneck, the first BatchNorm, its ReLU and the 1x1 convolution become a clamp and a
convolution: one pass over the maps instead of two. BatchNorm and ReLU are relu(a * x + b), which
equals a * clamp(x) + b. The clamp's bound is -b / a: a lower bound if a > 0, an upper bound if
a < 0. The factor a is folded into the kernel, and b into the bias. _packed.py has the convolutions.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..._fold import fill_folded, fold
from ..layers import relu
from ..model import DenseBlock, DenseLayer, DenseNet, Features, Stem
from ..weights import dtype_of, export_weights, import_weights
from ._packed import Packed
from .exchange import Kinds, exchange


def for_inference(model: DenseNet, *, bfloat16: bool = False) -> DenseNet:
    spec, weights = fold(model.spec, export_weights(model))
    faster = DenseNet(spec).to(getattr(torch, dtype_of(model)))
    fill_folded(faster, nn.Identity)
    for module in exchange(faster, INFERENCE).modules():
        if isinstance(module, InferenceLayer | InferenceConv):
            module.set_up(bfloat16)
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
        return self.packed.convolve(x, self.weight, self.bias, self, dtype=dtype, relu=relu)


class InferenceStem(Stem):
    def forward(self, x: Tensor) -> Tensor:
        if self.pool0 is None:
            return self.conv0(x)
        return self.pool0(self.conv0(x, relu=True))  # norm0 is folded into conv0


class InferenceLayer(DenseLayer):
    def set_up(self, bfloat16: bool) -> None:
        """Do the work of ``__init__``, which ``exchange`` does not call."""
        # a wider kernel also reads zero padding, which must not be clamped
        self.clamps = not self.spec.conv1.padding
        self.bfloat16 = bfloat16
        self.packed = Packed()
        for name in ("lower", "upper", "kernel", "bias"):
            self.register_buffer(name, None, persistent=False)
        self.register_load_state_dict_post_hook(prepare)

    @torch.no_grad()
    def prepare(self) -> None:
        """Compute the bounds, kernel and bias of the forward pass from the current weights."""
        norm, conv = self.norm1, self.conv1
        a = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        b = norm.bias.double() - norm.running_mean.double() * a
        dtype = torch.bfloat16 if self.bfloat16 else conv.weight.dtype
        bound = (-b / a).to(dtype)
        constant = ~torch.isfinite(bound)  # a is 0 or almost 0
        a, b = a.masked_fill(constant, 0), torch.where(constant, relu(b), b)
        bound = bound.masked_fill(constant, 0)[:, None, None]
        self.lower = bound.masked_fill(a[:, None, None] < 0, -torch.inf)
        self.upper = bound.masked_fill(a[:, None, None] > 0, torch.inf)
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

    def forward(self, x: Tensor) -> Tensor:
        # a GPU's convolutions round their input to TF32: normalizing it first is more precise
        folded = self.norm2 is not None  # into conv1
        if self.clamps and x.device.type == "cpu":
            x = torch.clamp(x, self.lower, self.upper)
            dtype = self.kernel.dtype
            x = self.packed.convolve(
                x, self.kernel, self.bias, self.conv1, dtype=dtype, relu=folded
            )
        else:
            x = self.conv1(relu(self.norm1(x)), relu=folded)
        return self.conv2(x) if folded else x  # N, k, H, W


class InferenceBlock(DenseBlock):
    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:  # gradients need each layer's unmodified input
            return super().forward(x)
        count, end, height, width = x.shape
        maps = x.new_empty((count, height, width, self.spec.out_channels)).permute(0, 3, 1, 2)
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
    Stem: InferenceStem,
    DenseLayer: InferenceLayer,
    DenseBlock: InferenceBlock,
    Features: InferenceFeatures,
}


def prepare(module: nn.Module, _: Any = None) -> None:
    """Prepare every ``InferenceLayer`` in a module again, after the weights have changed."""
    for layer in module.modules():
        if isinstance(layer, InferenceLayer) and layer.clamps and layer.conv1.weight.is_cpu:
            layer.prepare()
