"""Training in less memory: a convolution's input is made again when its gradient is wanted.

PyTorch's and Flax' memory.py are the same text; Gluon's calculates whole layers again.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from .layers import concat, relu
from .model import DenseBlock, DenseLayer, DenseNet, Features


class RecomputingLayer(DenseLayer):
    def call(self, maps: Sequence[Any], training: Any = None) -> Any:
        x = recomputed(self.norm1, self.conv1, maps, training)
        if self.norm2 is not None:
            x = recomputed(self.norm2, self.conv2, [x], training)
        return self.dropout(x)  # N, H, W, k


class RecomputingBlock(DenseBlock):
    layer_class = RecomputingLayer

    def call(self, x: Any) -> Any:
        maps = [x]
        for layer in self.spec.layers:
            maps.append(getattr(self, layer.name)(maps))
        return concat(*maps)


class RecomputingFeatures(Features):
    block_class = RecomputingBlock


class RecomputingDenseNet(DenseNet):
    features_class = RecomputingFeatures


def recomputed(norm: Any, conv: Any, maps: Sequence[Any], training: Any) -> Any:
    if not training:
        return conv(relu(norm(concat(*maps))))
    trained, statistics = norm.trainable_variables, norm.non_trainable_variables

    @tf.recompute_grad
    def forward(*given: Any) -> Any:
        weights, maps = given[: len(trained)], given[len(trained) :]
        # without a state of its own the layer returns its new statistics and assigns nothing
        x, moved = norm.stateless_call(
            weights, [s.value for s in statistics], concat(*maps), training=True
        )
        return conv(relu(x)), *map(tf.stop_gradient, moved)

    y, *moved = forward(*(w.value for w in trained), *maps)
    for statistic, value in zip(statistics, moved, strict=True):
        statistic.assign(value)
    return y
