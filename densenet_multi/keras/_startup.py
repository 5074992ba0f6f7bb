"""Import TensorFlow as this backend needs it, and make sure that Keras computes with it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..backends import BackendError


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what is printed on stderr where ``TF_CPP_MIN_LOG_LEVEL`` is 3, as the commands set it.

    TensorFlow 2.21 prints a few lines before it reads that variable.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3" or sys.stderr is None:
        yield
        return
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


engine = os.environ.get("KERAS_BACKEND", "tensorflow")
if engine == "tensorflow":
    if "tensorflow" not in sys.modules:
        # by itself, TensorFlow uses oneDNN's operations on some processors only; on one that has
        # AVX2 alone, training is much slower without them
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        # PyTorch for CUDA loads triton when it first trains: after TensorFlow, that would crash
        with suppress(ImportError):
            import triton  # noqa: F401
    with quiet():
        from tensorflow import keras

    engine = keras.config.backend()  # ~/.keras/keras.json can choose one too
if engine != "tensorflow":
    raise BackendError(
        f"backend 'keras': expected Keras on 'tensorflow', found {engine!r}; unset "
        "KERAS_BACKEND, or set it (or ~/.keras/keras.json) to tensorflow, and start again"
    )
