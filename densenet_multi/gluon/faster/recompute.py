"""Train in less memory: recompute each convolution's input in the backward pass.

In PyTorch, each layer does this itself. Here, as in Keras and Flax, a block does it for its layers:
in the backward pass a layer's input is a slice of the block's output. ``hybridize()`` affects the
layers only; the network and its blocks stay imperative.
"""

from ctypes import byref
from functools import cache
from typing import Any

import mxnet as mx
from mxnet import autograd
from mxnet.base import _LIB, OpHandle, c_str, check_call
from mxnet.gluon import HybridBlock
from mxnet.ndarray.register import _imperative_invoke

from ..._checks import ConfigError
from ...backends import Level
from ..layers import concat, operators, relu
from ..model import DenseBlock, DenseLayer, DenseNet, Features
from .exchange import Kinds


class Imperative(HybridBlock):
    def hybridize(self, active: bool = True, **kwargs: Any) -> None:  # noqa: FBT002  # Gluon's signature
        for child in self._children.values():
            child.hybridize(active)  # without kwargs: static_alloc would never free memory


class RecomputingLayer(DenseLayer):
    def pairs(self) -> list[tuple[HybridBlock, HybridBlock]]:
        pairs = [(self.norm1, self.conv1), (self.norm2, self.conv2)]
        return [(norm, conv) for norm, conv in pairs if norm is not None]

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        for norm, conv in self.pairs():
            x = conv(relu(norm(x)))
        return x  # N, k, H, W; the block applies dropout, to reuse the mask


class RecomputingBlock(Imperative, DenseBlock):
    keeps_convolutions = True  # keeps the output of a bottleneck's 1x1 convolution

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        layers = [getattr(self, layer.name) for layer in self.spec.layers]
        if autograd.is_recording() and autograd.is_training():
            weights = [w for layer in layers for pair in layer.pairs() for w in trained(*pair)]
            # x comes last: MXNet stops at the first unneeded gradient (x's after a frozen stem)
            return Recomputed(layers, self.keeps_convolutions)(*weights, x)
        for layer in layers:
            x = concat(x, layer.dropout(layer(x)))
        return x


class FullyRecomputingBlock(RecomputingBlock):
    keeps_convolutions = False


class ImperativeFeatures(Imperative, Features):
    pass


class ImperativeDenseNet(Imperative, DenseNet):
    pass


EITHER: Kinds = {
    DenseLayer: RecomputingLayer,
    Features: ImperativeFeatures,
    DenseNet: ImperativeDenseNet,
}
RECOMPUTING: dict[Level, Kinds] = {
    "some": {**EITHER, DenseBlock: RecomputingBlock},
    "max": {**EITHER, DenseBlock: FullyRecomputingBlock},
}


def join(*maps: Any) -> Any:
    """Concatenate without layers.py's slice; oneDNN must support the gradient, if one is needed."""
    return operators(maps[0]).concat(*maps, dim=1)


def trained(*parts: HybridBlock) -> list[mx.nd.NDArray]:
    parameters = [p for part in parts for p in part.collect_params().values()]
    for parameter in parameters:
        if parameter.grad_req == "add":  # MXNet's autograd.Function would ignore it
            raise ConfigError(
                f"{parameter.name}: expected grad_req 'write' or 'null', found 'add'; build the "
                "model without memory_efficient"
            )
    return [p.data() for p in parameters if p.grad_req != "null"]


class Recomputed(autograd.Function):
    def __init__(self, layers: list[RecomputingLayer], keeps_convolutions: bool) -> None:
        super().__init__()
        self.layers, self.keeps_convolutions = layers, keeps_convolutions

    def forward(self, *weights_and_x: Any) -> Any:
        x = weights_and_x[-1]
        self.masks, self.kept = [], []
        with autograd.pause(train_mode=True):
            for layer in self.layers:
                inputs, new = [], x
                for norm, conv in layer.pairs():
                    inputs.append(new)
                    new = conv(relu(norm(new)))
                self.kept.append(inputs[1:] if self.keeps_convolutions else [])
                mask = layer.dropout(new.ones_like()) if layer.spec.drop_rate else None
                self.masks.append(mask)
                x = join(x, new if mask is None else new * mask)
                x.wait_to_read()  # else the engine allocates memory for all layers at once
        self.maps = x
        return x

    def backward(self, gradient: Any) -> Any:
        if self.maps is None:
            raise RuntimeError(
                "a memory-efficient block: expected one backward pass, found a second "
                "(retain_graph=True); build the model without memory_efficient"
            )
        maps, masks, kept = self.maps, self.masks, self.kept
        self.maps = self.masks = self.kept = None  # else the arrays live as long as this object
        gradients: list[Any] = []
        for layer, mask, inner in reversed([*zip(self.layers, masks, kept, strict=True)]):
            width = layer.spec.norm1.num_features
            x = maps.slice_axis(axis=1, begin=0, end=width)
            own = gradient.slice_axis(axis=1, begin=width, end=None)
            if mask is not None:
                own = own * mask
            found, weights = recomputed_gradients(layer.pairs(), [x, *inner], own)
            gradient = mx.nd.elemwise_add(gradient.slice_axis(axis=1, begin=0, end=width), found)
            gradients = [*weights, *gradients]
            gradient.wait_to_read()
        return *gradients, gradient


def recomputed_gradients(pairs: Any, inputs: list[Any], gradient: Any) -> tuple[Any, list[Any]]:
    """Return the gradients of a layer's input and weights, given the gradient of its output."""
    read: list[Any] = []
    for number, (norm, _) in enumerate(pairs):
        if number == len(inputs):
            inputs.append(pairs[number - 1][1](read[-1]))
        # attach_grad would also fill the array with zeros, which autograd.grad does not need
        autograd.mark_variables([inputs[number]], [empty_like(inputs[number])])
        with autograd.record():
            read.append(relu(norm(inputs[number])))
    weights: list[Any] = []
    for (norm, conv), x, y in zip(reversed(pairs), reversed(inputs), reversed(read), strict=True):
        of_y, *of_conv = convolution_gradients(conv, gradient, y)
        gradient, *of_norm = autograd.grad(y, [x, *trained(norm)], of_y)  # also updates statistics
        weights = [*of_norm, *of_conv, *weights]
    return gradient, weights


def empty_like(x: Any) -> Any:
    return mx.nd.empty(x.shape, dtype=x.dtype)


def convolution_gradients(conv: Any, gradient: Any, x: Any) -> list[Any]:
    """Return the gradients of x and of the trained weights. MXNet's own backward operation, called
    directly, does not need the convolution's output."""
    parameters = [p for p in (conv.weight, conv.bias) if p is not None]
    arrays = [gradient, x, *(p.data() for p in parameters)]
    settings = [*map(str, conv._kwargs)], [*map(str, conv._kwargs.values())]  # noqa: SLF001
    out = [*map(empty_like, arrays[1:])]
    of_x, *found = _imperative_invoke(_operation(), arrays, *settings, out, False, True)
    return [of_x, *(g for g, p in zip(found, parameters, strict=True) if p.grad_req != "null")]


@cache
def _operation() -> Any:
    """Return the convolution's backward operation. MXNet offers no Python function for it."""
    handle = OpHandle()
    check_call(_LIB.NNGetOpHandle(c_str("_backward_Convolution"), byref(handle)))
    return handle.value
