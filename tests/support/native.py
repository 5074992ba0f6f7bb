"""Call a native layer as its framework's users do; images here are always NCHW."""

from typing import Any

import numpy as np


def make(name: str, kind: Any, part: Any) -> Any:
    """A building block with that framework's own initial weights."""
    if name == "gluon":
        layer = kind(part)
        layer.initialize()
        return layer
    if name == "flax":
        from flax import nnx

        return kind(part, rngs=nnx.Rngs(0))
    return kind(part)


def call(name: str, layer: Any, x: np.ndarray, *, training: bool = False) -> np.ndarray:
    return globals()[f"_{name}"](layer, x.astype(np.float32), training)


def _torch(layer: Any, x: np.ndarray, training: bool) -> np.ndarray:
    import torch

    return layer.train(training)(torch.tensor(x)).detach().numpy()


def _keras(layer: Any, x: np.ndarray, training: bool) -> np.ndarray:
    return _last_first(layer(_first_last(x), training=training).numpy())


def _gluon(layer: Any, x: np.ndarray, training: bool) -> np.ndarray:
    import mxnet as mx

    with mx.autograd.train_mode() if training else mx.autograd.predict_mode():
        return layer(mx.nd.from_numpy(x, zero_copy=False)).asnumpy()


def _flax(layer: Any, x: np.ndarray, training: bool) -> np.ndarray:
    layer.train() if training else layer.eval()
    return _last_first(np.asarray(layer(_first_last(x))))


def _first_last(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 2, 3, 1)


def _last_first(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 3, 1, 2)


def seed(name: str, number: int) -> None:
    """Seed the framework's dropout, for models that are created afterwards."""
    if name == "torch":
        import torch

        torch.manual_seed(number)
    if name == "keras":
        from tensorflow import keras

        keras.utils.set_random_seed(number)
    if name == "gluon":
        import mxnet as mx

        mx.random.seed(number)  # Flax's seed is part of the model
