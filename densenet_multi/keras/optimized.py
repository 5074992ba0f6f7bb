"""The network for evaluation alone, which XLA compiles: once for every shape of images.

It merges a BatchNorm and the ReLU after it into one pass over the maps.
"""

from typing import Any

import tensorflow as tf

from .model import DenseNet


class OptimizedDenseNet(DenseNet):
    def __init__(self, spec: Any, **kwargs: Any) -> None:
        super().__init__(spec, **kwargs)
        self.trainable = False

    @tf.function(jit_compile=True)
    def call(self, x: Any, training: Any = None) -> Any:
        return super().call(x, training)
