"""The network for evaluation alone: a block's maps lie in one array, which its layers fill.

Under jit, XLA writes a layer's maps where they belong; a concatenation copies all others too.
"""

import jax.numpy as jnp
from jax import Array

from ..model import DenseBlock, DenseNet, Features


class OptimizedBlock(DenseBlock):
    def __call__(self, x: Array) -> Array:
        count, height, width, end = x.shape
        maps = jnp.zeros((count, height, width, self.spec.out_channels), x.dtype)
        maps = maps.at[..., :end].set(x)
        for layer in self.spec.layers:
            new = getattr(self, layer.name)(maps[..., :end])
            start, end = end, end + new.shape[-1]
            maps = maps.at[..., start:end].set(new)
        return maps


class OptimizedFeatures(Features):
    block_class = OptimizedBlock

    def __call__(self, x: Array) -> Array:
        return super().__call__(x).astype(x.dtype)


class OptimizedDenseNet(DenseNet):
    features_class = OptimizedFeatures
