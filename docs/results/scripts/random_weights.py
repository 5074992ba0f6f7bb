"""Weights for the measurements of this folder."""

import numpy as np

import densenet_multi as dm
from densenet_multi.weights import Weights


def random_weights(spec: dm.DenseNetSpec, seed: int) -> Weights:
    """Return float32 weights as training may leave them: no statistic is 0 or 1."""
    rng, weights = np.random.default_rng(seed), {}
    for name, info in dm.tensors(spec).items():
        fan_in = max(info.size // info.shape[0], 1)
        scale, center = {
            "conv.weight": ((2 / fan_in) ** 0.5, 0.0),
            "linear.weight": ((1 / fan_in) ** 0.5, 0.0),
            "norm.weight": (0.2, 1.0),
        }.get(info.kind, (0.3, 0.0))
        values = rng.normal(center, scale, info.shape)
        is_variance = name.endswith("running_var")
        values = rng.uniform(0.5, 2.0, info.shape) if is_variance else values
        weights[name] = values.astype(np.float32)
    return weights
