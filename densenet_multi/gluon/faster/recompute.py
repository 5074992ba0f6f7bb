"""Training in less memory: recompute each convolution's input in the backward pass.

A block does so, as in Keras and Flax: its backward pass finds the input of each layer in what the
block returned. The network stays imperative when it is hybridized; its parts do not.
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
            child.hybridize(active)  # static_alloc would keep what is freed here


class RecomputingLayer(DenseLayer):
    def pairs(self) -> list[tuple[HybridBlock, HybridBlock]]:
        pairs = [(self.norm1, self.conv1), (self.norm2, self.conv2)]
        return [(norm, conv) for norm, conv in pairs if norm is not None]

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        for norm, conv in self.pairs():
            x = conv(relu(norm(x)))
        return x  # N, k, H, W; dropout is the block's, which has to repeat it


class RecomputingBlock(Imperative, DenseBlock):
    keeps_convolutions = True  # the output of a layer's first one, in a bottleneck

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        layers = [getattr(self, layer.name) for layer in self.spec.layers]
        if autograd.is_recording() and autograd.is_training():
            weights = [w for layer in layers for pair in layer.pairs() for w in trained(*pair)]
            # MXNet stops at the first gradient that nobody needs, as x's where the stem is frozen
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
    """Concatenate without the slice of layers.py: nobody needs a gradient, or oneDNN has it."""
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
                x.wait_to_read()  # the engine would allocate memory for every layer at once
        self.maps = x
        return x

    def backward(self, gradient: Any) -> Any:
        if self.maps is None:
            raise RuntimeError(
                "a memory-efficient block: expected one backward pass, found another "
                "(retain_graph=True); build the model without memory_efficient"
            )
        maps, masks, kept = self.maps, self.masks, self.kept
        self.maps = self.masks = self.kept = None  # whatever holds this object would keep them
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
    """The gradients of a layer's input and weights, from that of its output."""
    read: list[Any] = []
    for number, (norm, _) in enumerate(pairs):
        if number == len(inputs):
            inputs.append(pairs[number - 1][1](read[-1]))
        # attach_grad would fill an array with zeros, which autograd.grad does not need
        autograd.mark_variables([inputs[number]], [empty_like(inputs[number])])
        with autograd.record():
            read.append(relu(norm(inputs[number])))
    weights: list[Any] = []
    for (norm, conv), x, y in zip(reversed(pairs), reversed(inputs), reversed(read), strict=True):
        of_y, *of_conv = convolution_gradients(conv, gradient, y)
        gradient, *of_norm = autograd.grad(y, [x, *trained(norm)], of_y)  # statistics change now
        weights = [*of_norm, *of_conv, *weights]
    return gradient, weights


def empty_like(x: Any) -> Any:
    return mx.nd.empty(x.shape, dtype=x.dtype)


def convolution_gradients(conv: Any, gradient: Any, x: Any) -> list[Any]:
    """Those of x and of the trained weights, by the operation that MXNet's autograd calls itself:
    the convolution need not be recomputed for it."""
    parameters = [p for p in (conv.weight, conv.bias) if p is not None]
    arrays = [gradient, x, *(p.data() for p in parameters)]
    settings = [*map(str, conv._kwargs)], [*map(str, conv._kwargs.values())]  # noqa: SLF001
    out = [*map(empty_like, arrays[1:])]
    of_x, *found = _imperative_invoke(_operation(), arrays, *settings, out, False, True)
    return [of_x, *(g for g, p in zip(found, parameters, strict=True) if p.grad_req != "null")]


@cache
def _operation() -> Any:
    """Python has names for operations with named inputs only; this one has none."""
    handle = OpHandle()
    check_call(_LIB.NNGetOpHandle(c_str("_backward_Convolution"), byref(handle)))
    return handle.value
