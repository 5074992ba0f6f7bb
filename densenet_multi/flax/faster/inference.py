"""An inference-only network: the layers of a block write into one preallocated array.

Under jit, XLA writes each layer's output in place; a concatenation would copy all earlier maps.
"""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ..._fold import fill_folded, fold
from ..model import DenseBlock, DenseNet, Features
from ..weights import dtype_of, export_weights, new_model
from .exchange import Kinds, exchange


def for_inference(model: DenseNet, *, bfloat16: bool = False) -> DenseNet:
    faster = new_model(*fold(model.spec, export_weights(model)), dtype_of(model))
    fill_folded(faster, lambda: nnx.identity)
    exchange(faster, INFERENCE)
    if bfloat16:
        faster.features.set_attributes(dtype=jnp.bfloat16)  # of each layer's output
    faster.eval()
    return faster


class InferenceBlock(DenseBlock):
    def __call__(self, x: Array) -> Array:
        count, height, width, end = x.shape
        maps = jnp.zeros((count, height, width, self.spec.out_channels), x.dtype)
        maps = maps.at[..., :end].set(x)
        for layer in self.spec.layers:
            new = getattr(self, layer.name)(maps[..., :end])
            start, end = end, end + new.shape[-1]
            maps = maps.at[..., start:end].set(new)
        return maps


class InferenceFeatures(Features):
    def __call__(self, x: Array) -> Array:
        return super().__call__(x).astype(x.dtype)


INFERENCE: Kinds = {DenseBlock: InferenceBlock, Features: InferenceFeatures}
