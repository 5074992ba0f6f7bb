"""Import TensorFlow as this backend needs it, and make sure that Keras computes with it."""

import os
import sys
from contextlib import suppress

from ..backends import BackendError

engine = os.environ.get("KERAS_BACKEND", "tensorflow")
if engine == "tensorflow":
    if "tensorflow" not in sys.modules:
        # by itself, TensorFlow uses oneDNN's operations on some processors only; on one that has
        # AVX2 alone, training is much slower without them
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        # PyTorch for CUDA loads triton when it first trains: after TensorFlow, that would crash
        with suppress(ImportError):
            import triton  # noqa: F401
    from tensorflow import keras

    engine = keras.config.backend()  # ~/.keras/keras.json can choose one too
if engine != "tensorflow":
    raise BackendError(
        f"backend 'keras': expected Keras on 'tensorflow', found {engine!r}; unset "
        "KERAS_BACKEND, or set it (or ~/.keras/keras.json) to tensorflow, and start again"
    )
