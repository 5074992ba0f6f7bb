"""Training in less memory: a convolution's input is made again when its gradient is wanted.

The backward pass is a block's, as in Keras and Flax: it reads what each layer reads in what the
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
from ..layers import concat, join, relu
from ..model import DenseBlock, DenseLayer, DenseNet, Features


class Imperative(HybridBlock):
    def hybridize(self, active: bool = True, **kwargs: Any) -> None:  # noqa: FBT002  # Gluon's signature
        for child in self._children.values():
            child.hybridize(active)  # with static_alloc, what is freed here would be kept


class RecomputingLayer(DenseLayer):
    def pairs(self) -> list[tuple[HybridBlock, HybridBlock]]:
        pairs = [(self.norm1, self.conv1), (self.norm2, self.conv2)]
        return [(norm, conv) for norm, conv in pairs if norm is not None]

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        for norm, conv in self.pairs():
            x = conv(relu(norm(x)))
        return x  # N, k, H, W; dropout is the block's, which has to repeat it


class RecomputingBlock(Imperative, DenseBlock):
    layer_class = RecomputingLayer
    whole = False  # what the first convolution of a layer makes is kept

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        layers = [getattr(self, layer.name) for layer in self.spec.layers]
        if autograd.is_recording() and autograd.is_training():
            weights = [w for layer in layers for pair in layer.pairs() for w in trained(*pair)]
            # MXNet stops at the first gradient that nobody wants, as x's where the stem is frozen
            return Recomputed(layers, self.whole)(*weights, x)
        for layer in layers:
            x = concat(x, layer.dropout(layer(x)))
        return x


class RecomputingFeatures(Imperative, Features):
    block_class = RecomputingBlock


class RecomputingDenseNet(Imperative, DenseNet):
    features_class = RecomputingFeatures


class WholeBlock(RecomputingBlock):
    whole = True


class WholeFeatures(RecomputingFeatures):
    block_class = WholeBlock


class WholeDenseNet(RecomputingDenseNet):
    features_class = WholeFeatures


def trained(*parts: HybridBlock) -> list[mx.nd.NDArray]:
    parameters = [p for part in parts for p in part.collect_params().values()]
    for parameter in parameters:
        if parameter.grad_req == "add":  # MXNet's autograd.Function would pass it by
            raise ConfigError(
                f"{parameter.name}: expected grad_req 'write' or 'null', found 'add'; build the "
                "model without memory_efficient"
            )
    return [p.data() for p in parameters if p.grad_req != "null"]


class Recomputed(autograd.Function):
    def __init__(self, layers: list[RecomputingLayer], whole: bool) -> None:
        super().__init__()
        self.layers, self.whole = layers, whole

    def forward(self, *weights_and_x: Any) -> Any:
        x = weights_and_x[-1]
        self.masks, self.kept = [], []
        with autograd.pause(train_mode=True):
            for layer in self.layers:
                inputs, new = [], x
                for norm, conv in layer.pairs():
                    inputs.append(new)
                    new = conv(relu(norm(new)))
                self.kept.append([] if self.whole else inputs[1:])
                mask = layer.dropout(new.ones_like()) if layer.spec.drop_rate else None
                self.masks.append(mask)
                x = join(x, new if mask is None else new * mask)
                x.wait_to_read()  # the engine would make room for every layer at once
        self.maps = x
        return x

    def backward(self, gradient: Any) -> Any:
        if self.maps is None:
            raise RuntimeError(
                "a memory-efficient block: expected one backward pass, found another "
                "(retain_graph=True); build the model without memory_efficient"
            )
        maps, masks, kept = self.maps, self.masks, self.kept
        self.maps = self.masks = self.kept = None  # what holds this object would keep them
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
    """The gradients of a layer's input and weights, by that of what it makes."""
    read: list[Any] = []
    for number, (norm, _) in enumerate(pairs):
        if number == len(inputs):
            inputs.append(pairs[number - 1][1](read[-1]))
        # attach_grad would fill an array with zeros, which autograd.grad has no use for
        autograd.mark_variables([inputs[number]], [empty_like(inputs[number])])
        with autograd.record():
            read.append(relu(norm(inputs[number])))
    weights: list[Any] = []
    for (norm, conv), x, y in zip(reversed(pairs), reversed(inputs), reversed(read), strict=True):
        of_y, *of_conv = convolution_gradients(conv, gradient, y)
        gradient, *of_norm = autograd.grad(y, [x, *trained(norm)], of_y)  # statistics move now
        weights = [*of_norm, *of_conv, *weights]
    return gradient, weights


def empty_like(x: Any) -> Any:
    return mx.nd.empty(x.shape, dtype=x.dtype)


def convolution_gradients(conv: Any, gradient: Any, x: Any) -> list[Any]:
    """Those of x, and of the weights that are trained, by the operation that MXNet's autograd calls
    when it has made the convolution: here nobody needs to make it again."""
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
