"""A child process of the exercise ``table1``: one variant takes one training step in one backend.

``python -m densenet_multi.exercises.table1_child SETTINGS``. The settings name the backend, the
variant, the image size and the batch size.
"""

import os
import time
from typing import Any

import numpy as np

from ..backends import load_backend
from ..comparison.child_process import run_child
from ..training.recipe import Recipe
from ..variants import get_spec

# Flax compiles every network first. For a single step, XLA's optimizer would take minutes.
UNOPTIMIZED = "--xla_backend_optimization_level=0"


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the loss of a step, how many tensors it has changed, and whether all is finite.

    Weights, images and labels depend on seeds alone: every backend gets the same.
    """
    backend, size = load_backend(settings["backend"]), settings["image_size"]
    spec, count = get_spec(settings["variant"]), settings["batch_size"]
    random = np.random.default_rng(0)
    images = random.random((count, spec.config.in_channels, size, size), np.float32)
    labels = random.integers(spec.config.num_classes, size=count)
    model = backend.build(spec, seed=0)
    before = backend.export_weights(model)
    start = time.perf_counter()
    logits = backend.predict(model, images)
    recipe = Recipe(epochs=1, batch_size=count, learning_rate=0.01)
    history = backend.fit(model, (images, labels), recipe)
    seconds = time.perf_counter() - start
    after = backend.export_weights(model)
    finite = all(np.isfinite(array).all() for array in [logits, *after.values()])
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    statistics = {name for name in before if name.endswith(("running_mean", "running_var"))}
    return {
        "logits_shape": list(logits.shape),
        "loss": history.steps[0].loss,
        "finite": finite,
        "trainable_tensors": len(before) - len(statistics),
        "trainable_moved": len(moved - statistics),
        "statistics_tensors": len(statistics),
        "statistics_moved": len(moved & statistics),
        "parameters": backend.count_parameters(model).trainable,
        "seconds": seconds,
    }


if __name__ == "__main__":
    os.environ.setdefault("XLA_FLAGS", UNOPTIMIZED)
    run_child(measure)
