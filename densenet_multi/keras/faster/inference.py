"""An inference-only network: traced to a graph, in which TensorFlow fuses operations."""

from typing import Any

import tensorflow as tf
from tensorflow import keras

from ..._fold import fill_folded, fold
from ...spec import DenseNetSpec
from ..model import DenseNet, Features
from ..weights import dtype_of, export_weights, import_weights
from .exchange import Kinds, exchange


def for_inference(model: DenseNet, *, bfloat16: bool = False) -> DenseNet:
    spec, weights = fold(model.spec, export_weights(model))
    faster = InferenceDenseNet(spec, dtype=dtype_of(model), bfloat16=bfloat16)
    faster.build((None, None, None, spec.config.in_channels))
    import_weights(faster, weights)
    return faster


def identity(x: Any) -> Any:
    return x


class InferenceFeatures(Features):
    def call(self, x: Any) -> Any:
        return tf.cast(super().call(x), x.dtype)


class InferenceDenseNet(DenseNet):
    """A DenseNet that swaps its layers' classes in ``__init__``, which also runs on loading."""

    def __init__(self, spec: DenseNetSpec, *, bfloat16: bool = False, **kwargs: Any) -> None:
        super().__init__(spec, **kwargs)
        fill_folded(self, lambda: identity)
        exchange(self, INFERENCE)
        self.trainable = False
        self.bfloat16 = bfloat16
        if bfloat16:
            for layer in self.features._flatten_layers(include_self=False):  # noqa: SLF001  # as in exchange.py
                layer.dtype_policy = "mixed_bfloat16"

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bfloat16": self.bfloat16}

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        if tf.is_tensor(x) and tf.executing_eagerly():
            return self.call(x)  # Keras' __call__ would first clear all losses
        return super().__call__(x, *args, **kwargs)

    @tf.function(autograph=False)
    def call(self, x: Any, training: Any = None) -> Any:
        return super().call(x, training)


INFERENCE: Kinds = {Features: InferenceFeatures}

# files saved before the class was renamed contain this name
keras.utils.get_custom_objects()["densenet_multi>OptimizedDenseNet"] = InferenceDenseNet
