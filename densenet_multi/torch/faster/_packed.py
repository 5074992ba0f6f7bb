"""A convolution whose kernel oneDNN has reordered into a layout of its own, once.

``F.conv2d`` reorders the kernel in every call, and the ReLU after it is another pass over the map.
The two operators here are those that Inductor emits when it freezes a network. They are private:
where they are missing or cannot be used, ``F.conv2d`` computes the same.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

REORDER: Any = getattr(torch.ops.mkldnn, "_reorder_convolution_weight", None)
CONVOLVE: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
DTYPES = (torch.float32, torch.bfloat16)


class Packed:
    """A reordered kernel. It can be neither copied nor saved, so copies reorder theirs again."""

    def __init__(self) -> None:
        self.kernel: Any = None
        self.source: Any = None

    def __reduce__(self) -> Any:
        return Packed, ()

    def convolve(
        self,
        x: Tensor,
        kernel: Tensor,
        bias: Tensor | None,
        *,
        padding: tuple[int, ...],
        stride: tuple[int, ...],
        relu: bool = False,
    ) -> Tensor:
        """Return the convolution, in the dtype of x, and its ReLU if requested."""
        if not is_usable(x, kernel):
            bias = None if bias is None else bias.to(x.dtype)
            plain = F.conv2d(x, kernel.to(x.dtype), bias, stride, padding)
            return F.relu_(plain) if relu else plain
        how: tuple[Any, ...] = padding, stride, (1, 1), 1  # dilation, groups
        source = kernel.data_ptr(), None if kernel.is_inference() else kernel._version  # noqa: SLF001
        if self.source != source:  # it has changed since it was reordered, or never was
            self.kernel, self.source = REORDER(kernel.to(x.dtype), *how), source
        bias = None if bias is None else bias.to(x.dtype)
        ending: tuple[Any, ...] = "relu" if relu else "none", [], ""
        y: Tensor = CONVOLVE(x, self.kernel, bias, *how, *ending)
        return y


def is_usable(x: Tensor, kernel: Tensor) -> bool:
    return (
        None not in (REORDER, CONVOLVE)
        and x.dtype in DTYPES
        and x.device.type == kernel.device.type == "cpu"
        and not (torch.is_grad_enabled() and x.requires_grad)  # they have no gradient
        and not torch.compiler.is_compiling()  # a compiler reorders by itself
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
    )
