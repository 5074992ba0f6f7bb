"""Recompute a model's running statistics without changing its weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._checks import check_backend, integer
from .._progress import progress
from ..data import Examples, epoch_order
from ..data.examples import check_examples
from ..manifest import tensors
from ..weights import Weights


def measure_statistics(
    backend: Any, model: Any, examples: Examples, batches: int, batch_size: int
) -> Weights:
    """Set a model's running statistics to their means over batches; return all its weights.

    This is "PreciseBN": Y. Wu and J. Johnson, https://arxiv.org/abs/2105.07576, section 3.

    Raises ``ConfigError`` if an argument is invalid.

    Arguments:
        backend: the module (a ``Backend``) that built the model.
        model: the native model, changed in place; only its running statistics change.
        examples: images and labels, used in the order of the first epoch with seed 0.
        batches: the number of batches; fewer are used if the examples do not fill them.
        batch_size: images per batch.
    """
    check_backend(backend)
    check_examples("examples", examples)
    batches, batch_size = integer("batches", batches, 1), integer("batch_size", batch_size, 1)
    weights: Weights = backend.export_weights(model)
    decay = model.spec.config.bn_decay
    statistics = [n for n, t in tensors(model.spec).items() if t.role == "statistic"]
    zeros = {name: np.zeros_like(weights[name]) for name in statistics}
    sums = {name: np.zeros(array.shape) for name, array in zeros.items()}
    order, labels = epoch_order(len(examples), 0, 0), np.asarray(examples.labels)
    batches = min(batches, max(len(order) // batch_size, 1))
    with progress() as bar:
        for number in bar.track(range(batches), description="measuring running statistics"):
            backend.import_weights(model, {**weights, **zeros})
            indices = order[number * batch_size : (number + 1) * batch_size]
            backend.loss_and_gradients(model, examples.take(indices), labels[indices])
            after = backend.export_weights(model)  # (1 - decay) times this batch's statistics
            for name in statistics:
                sums[name] += after[name].astype(np.float64) / (1 - decay) / batches
    measured = {name: sums[name].astype(weights[name].dtype) for name in statistics}
    backend.import_weights(model, weights | measured)
    return weights | measured
