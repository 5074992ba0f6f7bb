"""The network for evaluation alone, traced: a graph, in which TensorFlow merges operations."""

from typing import Any

import tensorflow as tf

from ..spec import DenseNetSpec
from .model import DenseNet


class OptimizedDenseNet(DenseNet):
    def __init__(self, spec: DenseNetSpec, **kwargs: Any) -> None:
        super().__init__(spec, **kwargs)
        self.trainable = False

    @tf.function(autograph=False)
    def call(self, x: Any, training: Any = None) -> Any:
        return super().call(x, training)
