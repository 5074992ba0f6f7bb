"""Running statistics measured again, on the weights as they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._progress import progress
from ..data import Examples, epoch_order
from ..manifest import tensors
from ..weights import Weights


def measure_statistics(
    module: Any, model: Any, examples: Examples, batches: int, batch_size: int
) -> Weights:
    """The weights of a backend's model as ``recalibrated`` gives them; the model has them too."""
    weights = module.export_weights(model)
    decay = model.spec.config.bn_decay
    statistics = [n for n, t in tensors(model.spec).items() if t.role == "statistic"]
    nothing = {name: np.zeros_like(weights[name]) for name in statistics}
    sums = {name: np.zeros(array.shape) for name, array in nothing.items()}
    order, labels = epoch_order(len(examples), 0, 0), np.asarray(examples.labels)
    batches = min(batches, max(len(order) // batch_size, 1))
    with progress() as bar:
        for number in bar.track(range(batches), description="measuring running statistics"):
            module.import_weights(model, {**weights, **nothing})
            indices = order[number * batch_size : (number + 1) * batch_size]
            module.loss_and_gradients(model, examples.take(indices), labels[indices])
            after = module.export_weights(model)  # (1 - decay) of this batch's statistics
            for name in statistics:
                sums[name] += after[name].astype(np.float64) / (1 - decay) / batches
    anew = {name: sums[name].astype(weights[name].dtype) for name in statistics}
    module.import_weights(model, weights | anew)
    return weights | anew
