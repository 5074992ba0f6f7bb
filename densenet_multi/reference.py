"""The reference: DenseNet in plain NumPy and float64, slow but obvious.

Every backend is tested against it. Read it to learn what each operation computes. Images and
feature maps are (N, C, H, W). Weights are {canonical name: array}: see ``manifest.tensors``.
Source: see spec.py; batch normalization: https://arxiv.org/abs/1502.03167.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import one_of
from ._inputs import check_images, check_labels, check_logits, check_without_dropout, operation
from .checkpoint import ESTIMATORS
from .spec import (
    BatchNormSpec,
    ConvSpec,
    DenseBlockSpec,
    DenseNetSpec,
    PoolSpec,
    TransitionSpec,
)
from .weights import Weights, check_weights

Array = npt.NDArray[np.float64]

# --- The operations -----------------------------------------------------------------------------


@operation
def relu(x: Array) -> Array:
    """Return max(x, 0) of each element."""
    return np.maximum(x, 0.0)


@operation
def convolve(x: Array, kernel: Array, stride: int = 1, padding: int = 0) -> Array:
    """Convolve (cross-correlate) x (N, C, H, W) with a kernel (O, C, k, k), padding with zeros.

    For each output pixel, one input pixel is under a tap (i, j) of the kernel. One matrix product
    for each tap multiplies all these input pixels by the tap's weights.

    >>> dm.reference.convolve(np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), padding=1)
    array([[[[4., 6., 4.],
             [6., 9., 6.],
             [4., 6., 4.]]]])
    """
    k = kernel.shape[-1]
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    y: Array | float = 0.0
    for i in range(k):
        for j in range(k):
            under_tap = _windows(x, k, stride, i, j)
            n, channels, h, w = under_tap.shape
            flat = under_tap.reshape(n, channels, h * w)
            y = y + (kernel[:, :, i, j] @ flat).reshape(n, len(kernel), h, w)
    return np.asarray(y)


@operation
def max_pool(pool: PoolSpec, x: Array) -> Array:
    """Return the maximum of each window of x (N, C, H, W); padding is minus infinity."""
    border = (pool.padding, pool.padding)
    x = np.pad(x, ((0, 0), (0, 0), border, border), constant_values=-np.inf)
    largest: Array = np.max(_all_windows(pool, x), axis=0)
    return largest


@operation
def average_pool(pool: PoolSpec, x: Array) -> Array:
    """Return the mean of each window of x (N, C, H, W); padding counts as zeros.

    With 2x2 windows and stride 2, an odd last row or column is dropped.
    """
    border = (pool.padding, pool.padding)
    x = np.pad(x, ((0, 0), (0, 0), border, border))
    mean: Array = np.mean(_all_windows(pool, x), axis=0)
    return mean


def _all_windows(pool: PoolSpec, x: Array) -> list[Array]:
    k = pool.kernel_size
    return [_windows(x, k, pool.stride, i, j) for i in range(k) for j in range(k)]


def _windows(x: Array, k: int, stride: int, i: int, j: int) -> Array:
    """Return element (i, j) of every k x k window of x, in the shape (N, C, H', W')."""
    height, width = x.shape[2] - k + 1, x.shape[3] - k + 1
    return x[:, :, i : i + height : stride, j : j + width : stride]


def _per_channel(values: Array) -> Array:
    return values[:, None, None]


# --- The network, top down ----------------------------------------------------------------------


class _Network:
    def __init__(self, weights: Weights, training: bool, unbiased: bool) -> None:
        self.w = {name: np.asarray(array, np.float64) for name, array in weights.items()}
        self.training = training
        self.unbiased = unbiased
        self.statistics: dict[str, Array] = {}

    def run(self, spec: DenseNetSpec, x: Array) -> Forward:
        stages = {}
        x = self.conv("features.conv0", spec.stem.conv0, x)
        if spec.stem.pool0:
            x = relu(self.batch_norm("features.norm0", spec.stem.norm0, x))
            x = max_pool(spec.stem.pool0, x)
        stages["stem"] = x
        for block, transition in spec.stages:
            stages[block.name] = x = self.dense_block(f"features.{block.name}", block, x)
            if transition:
                x = self.transition(f"features.{transition.name}", transition, x)
                stages[transition.name] = x
        stages["norm5"] = x = self.batch_norm("features.norm5", spec.norm5, x)
        x = relu(x)
        x = x.mean(axis=(2, 3)) if spec.global_pool == "avg" else x.max(axis=(2, 3))
        if spec.classifier:
            x = x @ self.w["classifier.weight"].T + self.w["classifier.bias"]
        return Forward(x, stages, self.statistics)

    def dense_block(self, name: str, block: DenseBlockSpec, x: Array) -> Array:
        for layer in block.layers:
            prefix = f"{name}.{layer.name}"
            new = relu(self.batch_norm(f"{prefix}.norm1", layer.norm1, x))
            new = self.conv(f"{prefix}.conv1", layer.conv1, new)
            if layer.conv2:
                new = relu(self.batch_norm(f"{prefix}.norm2", layer.norm2, new))
                new = self.conv(f"{prefix}.conv2", layer.conv2, new)
            x = np.concatenate([x, new], axis=1)  # old channels first
        return x

    def transition(self, name: str, transition: TransitionSpec, x: Array) -> Array:
        # the backends average first: average pooling commutes with a 1x1 convolution
        x = self.before_pooling(name, transition, x)
        pool = average_pool if transition.pool_kind == "avg" else max_pool
        return pool(transition.pool, x)

    def before_pooling(self, name: str, transition: TransitionSpec, x: Array) -> Array:
        x = relu(self.batch_norm(f"{name}.norm", transition.norm, x))
        return self.conv(f"{name}.conv", transition.conv, x)

    def conv(self, name: str, conv: ConvSpec, x: Array) -> Array:
        y = convolve(x, self.w[f"{name}.weight"], conv.stride, conv.padding)
        return y + _per_channel(self.w[f"{name}.bias"]) if conv.bias else y

    def batch_norm(self, name: str, norm: BatchNormSpec | None, x: Array) -> Array:
        if norm is None:  # folded into the preceding convolution
            return x
        mean, var = self.w[f"{name}.running_mean"], self.w[f"{name}.running_var"]
        if self.training:
            n = x[:, 0].size
            old = {"running_mean": mean, "running_var": var}
            mean = x.mean(axis=(0, 2, 3))
            var = ((x - _per_channel(mean)) ** 2).mean(axis=(0, 2, 3))
            new = {"running_mean": mean, "running_var": var * (n / (n - 1) if self.unbiased else 1)}
            for leaf in old:
                kept = norm.decay * old[leaf] + (1 - norm.decay) * new[leaf]
                self.statistics[f"{name}.{leaf}"] = kept
        scale = self.w[f"{name}.weight"] / np.sqrt(var + norm.eps)
        return (x - _per_channel(mean)) * _per_channel(scale) + _per_channel(self.w[f"{name}.bias"])


# --- Functions of a complete network ------------------------------------------------------------


@dataclass
class Forward:
    """The results of one forward pass, all in float64.

    Attributes:
        logits: (N, num_classes), or without a classifier the pooled features, (N, C).
        stages: the feature map (N, C, H, W) after each stage of ``manifest.shape_trace``.
        statistics: in training mode, {name: updated running mean or variance}; otherwise empty.
    """

    logits: Array
    stages: dict[str, Array]
    statistics: dict[str, Array] = field(default_factory=dict)


def predict(
    spec: DenseNetSpec, weights: Mapping[str, npt.NDArray[np.generic]], images: npt.ArrayLike
) -> Array:
    """Return the logits (N, num_classes) of images (N, C, H, W) in evaluation mode, float64.

    Raises ``ImageError`` or ``WeightsError`` if images or weights do not fit the spec.

    >>> spec = dm.get_spec("d2l", block_config=(1, 1))
    >>> dm.reference.predict(spec, dm.init_weights(spec), np.zeros((2, 1, 32, 32))).shape
    (2, 10)
    """
    return forward(spec, weights, images).logits


def forward(
    spec: DenseNetSpec,
    weights: Mapping[str, npt.NDArray[np.generic]],
    images: npt.ArrayLike,
    *,
    training: bool = False,
    variance: str = "biased",
) -> Forward:
    """Compute logits, the map after each stage and, if training, updated running statistics.

    Evaluation normalizes with the running statistics. Training normalizes with the batch's own,
    and updates ``running = decay * running + (1 - decay) * batch``. ``variance`` selects the
    estimate of the batch variance in that update: ``"biased"`` (divided by n = N*H*W, as in Keras,
    Gluon and Flax) or ``"unbiased"`` (divided by n - 1, as in PyTorch).

    Raises ``ImageError`` or ``WeightsError`` if images or weights do not fit the spec;
    ``ValueError`` for an unknown ``variance``, and for training with a ``drop_rate``, because
    dropout is not modeled.
    """
    check_without_dropout(spec, training)
    unbiased = one_of("variance", variance, ESTIMATORS) == "unbiased"
    checked = check_images(spec, images, several_values=training and unbiased)
    net = _Network(check_weights(spec, weights), training, unbiased)
    return net.run(spec, np.asarray(checked, np.float64))


def before_pooling(
    transition: TransitionSpec, weights: Weights, x: npt.NDArray[np.floating[Any]]
) -> Array:
    """Return what a transition pools, (N, C, H, W), given the block's map x, in evaluation mode.

    This is the output of the transition's convolution, in the paper's order. A backend may average
    first: see docs/decisions/0004-pooling-first.md.
    """
    name = f"features.{transition.name}"
    own = {key: array for key, array in weights.items() if key.startswith(f"{name}.")}
    net = _Network(own, training=False, unbiased=False)
    return net.before_pooling(name, transition, np.asarray(x, np.float64))


def cross_entropy(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the mean of ``-log softmax(logits)[label]`` over N examples, in nats.

    ``logits`` are (N, classes), ``labels`` integers (N,). Raises ``ImageError``.

    >>> round(dm.reference.cross_entropy([[0.0, 0.0]], [1]), 4)  # log 2
    0.6931
    """
    scores = check_logits(logits)
    targets = check_labels(labels, *scores.shape)
    shifted = scores - scores.max(axis=1, keepdims=True)  # prevents overflow
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return float(np.mean(log_sum - shifted[np.arange(len(targets)), targets]))
