"""Import TensorFlow with this backend's settings, and verify that Keras runs on it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..backends import BackendError


@contextmanager
def quiet() -> Iterator[None]:
    """Discard stderr if ``TF_CPP_MIN_LOG_LEVEL`` is 3, which the commands set.

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
        # by default, TensorFlow uses oneDNN only on some processors; but where AVX2 is the newest
        # vector extension, training without oneDNN is much slower
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        # PyTorch for CUDA imports triton when it first trains; after TensorFlow, that crashes
        with suppress(ImportError):
            import triton  # noqa: F401
    with quiet():
        from tensorflow import keras

    engine = keras.config.backend()  # ~/.keras/keras.json can also set the engine
if engine != "tensorflow":
    raise BackendError(
        f"backend 'keras': expected Keras on 'tensorflow', found {engine!r}; unset "
        "KERAS_BACKEND, or set it (or ~/.keras/keras.json) to tensorflow, then restart Python"
    )
