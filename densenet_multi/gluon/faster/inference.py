"""The network for evaluation alone: nothing needs a gradient, nor a slice after a concatenation.

Training has its blocks where oneDNN has the gradient of their concatenations without a slice.
"""

from typing import Any

from ..layers import join
from ..model import DenseBlock, DenseNet, Features


class OptimizedBlock(DenseBlock):
    def hybrid_forward(self, F: Any, x: Any) -> Any:
        for layer in self.spec.layers:
            x = join(x, getattr(self, layer.name)(x))
        return x


class OptimizedFeatures(Features):
    block_class = OptimizedBlock


class OptimizedDenseNet(DenseNet):
    features_class = OptimizedFeatures


def align(model: DenseNet) -> None:
    """Up to 16 channels lie together in oneDNN's memory: maps that fill those it can part."""
    for spec, _ in model.spec.stages:
        block = getattr(model.features, spec.name)
        widths = spec.out_channels, *(layer.norm1.num_features for layer in spec.layers)
        if type(block) is DenseBlock and all(width % 16 == 0 for width in widths):
            block.__class__ = OptimizedBlock
