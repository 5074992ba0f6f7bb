"""The network for evaluation alone, traced: TensorFlow then merges operations."""

from typing import Any

import tensorflow as tf

from .model import DenseNet


class OptimizedDenseNet(DenseNet):
    def __init__(self, spec: Any, **kwargs: Any) -> None:
        super().__init__(spec, **kwargs)
        self.trainable = False

    @tf.function
    def call(self, x: Any, training: Any = None) -> Any:
        return super().call(x, training)
