"""Training in less memory: the backward pass calculates each dense layer again from what the block
returned, which holds the input of every layer.

The network stays imperative when it is hybridized; its parts do not.
"""

from typing import Any

import mxnet as mx
from mxnet import autograd
from mxnet.gluon import HybridBlock

from .layers import concat, relu
from .model import DenseBlock, DenseLayer, DenseNet, Features


class Imperative(HybridBlock):
    def hybridize(self, active: bool = True, **kwargs: Any) -> None:  # noqa: FBT002  # Gluon's signature
        for child in self._children.values():
            child.hybridize(active)  # with static_alloc, what is freed here would be kept


class RecomputingLayer(DenseLayer):
    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.conv1(relu(self.norm1(x)))
        if self.norm2 is not None:
            x = self.conv2(relu(self.norm2(x)))
        return x  # N, k, H, W; dropout is the block's, which has to repeat it


class RecomputingBlock(Imperative, DenseBlock):
    layer_class = RecomputingLayer

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        layers = [getattr(self, layer.name) for layer in self.spec.layers]
        if autograd.is_recording() and autograd.is_training():
            return Recomputed(layers)(x, *(w for layer in layers for w in trained(layer)))
        for layer in layers:
            x = concat(x, layer.dropout(layer(x)))
        return x


class RecomputingFeatures(Imperative, Features):
    block_class = RecomputingBlock


class RecomputingDenseNet(Imperative, DenseNet):
    features_class = RecomputingFeatures


def trained(layer: HybridBlock) -> list[mx.nd.NDArray]:
    return [p.data() for p in layer.collect_params().values() if p.grad_req != "null"]


class Recomputed(autograd.Function):
    def __init__(self, layers: list[RecomputingLayer]) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Any, *_: Any) -> Any:
        self.masks = []
        with autograd.pause(train_mode=True):
            for layer in self.layers:
                new = layer(x)
                self.masks.append(layer.dropout(new.ones_like()) if layer.spec.drop_rate else 1)
                x = concat(x, new * self.masks[-1])
        self.maps = x
        return x

    def backward(self, gradient: Any) -> Any:
        gradients: list[Any] = []
        for layer, mask in zip(reversed(self.layers), reversed(self.masks), strict=True):
            width = layer.spec.norm1.num_features
            x = self.maps.slice_axis(axis=1, begin=0, end=width)
            x.attach_grad()
            with autograd.record():
                new = layer(x)
            own = gradient.slice_axis(axis=1, begin=width, end=None) * mask
            found, *weights = autograd.grad(new, [x, *trained(layer)], own)  # statistics move now
            gradient = gradient.slice_axis(axis=1, begin=0, end=width) + found
            gradients = [*weights, *gradients]
            gradient.wait_to_read()  # the engine would calculate every layer again at once
        return gradient, *gradients
