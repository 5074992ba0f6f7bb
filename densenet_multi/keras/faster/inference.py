"""The network for evaluation alone, traced: a graph, in which TensorFlow merges operations."""

from typing import Any

import tensorflow as tf

from ...spec import DenseNetSpec
from ..model import DenseNet, Features


class OptimizedFeatures(Features):
    def call(self, x: Any) -> Any:
        return tf.cast(super().call(x), x.dtype)


class OptimizedDenseNet(DenseNet):
    features_class = OptimizedFeatures

    def __init__(self, spec: DenseNetSpec, *, bfloat16: bool = False, **kwargs: Any) -> None:
        super().__init__(spec, **kwargs)
        self.trainable = False
        self.bfloat16 = bfloat16
        if bfloat16:
            for layer in self.features._flatten_layers(include_self=False):  # noqa: SLF001  # as in train.py
                layer.dtype_policy = "mixed_bfloat16"

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bfloat16": self.bfloat16}

    @tf.function(autograph=False)
    def call(self, x: Any, training: Any = None) -> Any:
        return super().call(x, training)
