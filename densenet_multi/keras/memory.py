"""Training in less memory: a convolution's input is made again when its gradient is wanted.

PyTorch's memory.py is the same text; Gluon and Flax do so for a block.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from .layers import concat, relu
from .model import DenseBlock, DenseLayer, DenseNet, Features


class RecomputingLayer(DenseLayer):
    whole = False  # what the first convolution makes is kept

    def call(self, maps: Sequence[Any], training: Any = None) -> Any:
        steps = [(self.norm1, self.conv1), (self.norm2, self.conv2)]
        steps = [(norm, conv) for norm, conv in steps if norm is not None]
        for together in [steps] if self.whole else [[step] for step in steps]:
            maps = [recomputed(together, maps, training)]
        return self.dropout(maps[0])  # N, H, W, k


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


class WholeLayer(RecomputingLayer):
    whole = True


class WholeBlock(RecomputingBlock):
    layer_class = WholeLayer


class WholeFeatures(RecomputingFeatures):
    block_class = WholeBlock


class WholeDenseNet(RecomputingDenseNet):
    features_class = WholeFeatures


def recomputed(steps: Sequence[tuple[Any, Any]], maps: Sequence[Any], training: Any) -> Any:
    if not training:
        x = concat(*maps)
        for norm, conv in steps:
            x = conv(relu(norm(x)))
        return x
    trained = [w for norm, _ in steps for w in norm.trainable_variables]
    statistics = [s for norm, _ in steps for s in norm.non_trainable_variables]

    @tf.recompute_grad
    def forward(*given: Any) -> Any:
        weights, x = list(given[: len(trained)]), concat(*given[len(trained) :])
        moved: list[Any] = []
        for norm, conv in steps:
            own = [weights.pop(0) for _ in norm.trainable_variables]
            before = [s.value for s in norm.non_trainable_variables]
            # without a state of its own the layer returns its new statistics and assigns nothing
            x, after = norm.stateless_call(own, before, x, training=True)
            moved += map(tf.stop_gradient, after)
            x = conv(relu(x))
        return x, *moved

    y, *moved = forward(*(w.value for w in trained), *maps)
    for statistic, value in zip(statistics, moved, strict=True):
        statistic.assign(value)
    return y
