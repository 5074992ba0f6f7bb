"""The networks, weights and images that the parity tests share."""

import numpy as np

import densenet_multi as dm
from densenet_multi import tabular
from densenet_multi.tabular import TabularConfig, TabularSpec
from densenet_multi.weights import Weights

SMALL = {  # every feature of the spec, in networks of a few thousand parameters
    "plain": {
        "block_config": (2, 1), "growth_rate": 4, "num_init_features": 6, "bn_size": None,
        "num_classes": 5, "stem": "cifar", "compression": 1.0, "global_pool": "max",
    },
    "plain with bias": {
        "block_config": (2, 2), "growth_rate": 5, "num_init_features": 8, "bn_size": None,
        "num_classes": 7, "in_channels": 1, "conv_bias": True,
    },
    "bottleneck": {
        "block_config": (1, 2, 1), "growth_rate": 4, "num_init_features": 8, "bn_size": 2,
        "num_classes": 4, "compression": 0.6, "bn_decay": 0.875, "bn_eps": 1e-3,
    },
    # kernels of shape (3, 3, 3, 3): a missing transposition does not show in the shape
    "cubic": {
        "block_config": (2, 2), "growth_rate": 3, "num_init_features": 3, "bn_size": 1,
        "num_classes": 3, "stem": "cifar", "conv_bias": True, "transition_pool": "max",
    },
}  # fmt: skip


TABULAR = {  # every feature of the spec for tables
    "dense": {"block_config": (2, 1), "growth_rate": 3, "compression": 0.6, "bn_decay": 0.875},
    "silu": {"block_config": (2,), "growth_rate": 4, "activation": "silu", "bn_decay": 0.5},
    "bare": {"block_config": (1, 2), "growth_rate": 2, "normalization": "none"},
    # matrices of shape (5, 5): a missing transposition does not show in the shape
    "chain": {
        "block_config": (2, 1), "growth_rate": 5, "num_init_features": 5, "compression": 1.0,
        "activation": "tanh", "concatenate": False, "bn_eps": 1e-3, "bn_decay": 0.875,
    },
}  # fmt: skip


def small_table(name: str, **overrides: object) -> TabularSpec:
    usual = {"num_init_features": 6, "normalization": "batch", "activation": "relu"}
    return TabularConfig(5, **{**usual, **TABULAR[name], **overrides}).resolve()


def rows(spec: TabularSpec, count: int = 7, seed: int = 2):
    """Random rows (count, in_features) and targets (count,), float64."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, spec.config.in_features)), rng.normal(size=count)


def trained_on_rows(spec: TabularSpec, weights: Weights, x, *, unbiased: bool = False):
    """The reference's predictions in training mode, and the updated running statistics."""
    net = tabular._Rows(weights, training=True, unbiased=unbiased)
    return net.predict(spec, x), net.statistics


def derivative_on_rows(spec: TabularSpec, weights: Weights, x, y, name: str, direction) -> float:
    """The exact derivative of the mean squared error: see ``derivative``."""
    h = 1e-30
    net = tabular._Rows(weights, training=True, unbiased=False)
    net.w[name] = net.w[name] + 1j * h * direction
    return float(((net.predict(spec, x) - y) ** 2).mean().imag / h)


def small(name: str, **overrides: object) -> dm.DenseNetSpec:
    return dm.DenseNetConfig(**{**SMALL[name], **overrides}).resolve()


def tiny(**overrides: object) -> dm.DenseNetSpec:
    """Two bottleneck layers and the transition between them, for tests that are slow to trace."""
    return small("bottleneck", block_config=(1, 1), **overrides)


def random_weights(spec: dm.DenseNetSpec | TabularSpec, seed: int = 1) -> Weights:
    """Random float64 weights, none of them trivial: no shift or mean of 0, no variance of 1."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, info in dm.tensors(spec).items():
        fan_in = max(info.size // info.shape[0], 1)
        scale, center = {
            "conv.weight": (np.sqrt(2 / fan_in), 0.0),
            "linear.weight": (np.sqrt(1 / fan_in), 0.0),
            "norm.weight": (0.2, 1.0),
        }.get(info.kind, (0.3, 0.0))
        values = rng.normal(center, scale, info.shape)
        drawn[name] = rng.uniform(0.5, 2.0, info.shape) if "running_var" in name else values
    return drawn


def images(spec: dm.DenseNetSpec, height: int, width: int = 0, count: int = 2, seed: int = 2):
    """Random pixels in [0, 1], float64, (count, C, height, width)."""
    shape = (count, spec.config.in_channels, height, width or height)
    return np.random.default_rng(seed).random(shape)


def labels(spec: dm.DenseNetSpec, count: int = 2, seed: int = 3):
    return np.random.default_rng(seed).integers(0, spec.config.num_classes, count)


def as_float32(weights: Weights) -> Weights:
    return {name: array.astype(np.float32) for name, array in weights.items()}


def derivative(spec: dm.DenseNetSpec, weights: Weights, x, y, name: str, direction) -> float:
    """The exact derivative of the training loss along a direction in one tensor.

    It is a complex step: f(w + ih d) has the imaginary part h f'(w) d. No nearly equal numbers are
    subtracted, and no ReLU crosses its kink. The reference's own forward pass runs on complex
    numbers, which NumPy orders by their real parts.
    """
    h = 1e-30
    net = dm.reference._Network(weights, training=True, unbiased=False)
    net.w[name] = net.w[name] + 1j * h * direction
    logits = net.run(spec, x).logits
    shifted = logits - logits.real.max(axis=1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-log_softmax[np.arange(len(y)), y].mean().imag / h)


def difference_quotient(spec, weights: Weights, x, y, name: str, direction, h=1e-6) -> float:
    """The same derivative by central differences, with the public reference only."""

    def loss(step: float) -> float:
        moved = {**weights, name: weights[name] + step * direction}
        logits = dm.reference.forward(spec, moved, x, training=True).logits
        return dm.reference.cross_entropy(logits, y)

    return (loss(h) - loss(-h)) / (2 * h)
