"""Fill models of keras.applications and KerasHub with nontrivial weights and statistics."""

from contextlib import contextmanager

import keras
import numpy as np


@contextmanager
def in_dtype(dtype):
    """Models created inside compute in this dtype, inputs included."""
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    yield dtype
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def filled(model, seed=0):
    """Return the filled model; a seed always fills the same variables with the same values."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        shape, name = tuple(variable.shape), variable.name
        if name == "moving_variance":
            values = rng.uniform(0.5, 2, shape)
        elif name == "kernel":
            values = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        else:
            values = rng.normal(name == "gamma", 0.2, shape)
        variable.assign(values)
    return model
