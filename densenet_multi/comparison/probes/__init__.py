"""What a framework really does where ports go wrong, measured by small experiments.

A module of this package has the same functions for each framework, on plain NumPy arrays: maps are
(H, W). ``PROBES`` asks them, and turns what they return into words. Nothing in here is about
DenseNets: it helps whoever ports any network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Framework(Protocol):
    """The functions of a module of this package; each uses the framework's own defaults."""

    def same(self, image: Array, kernel: Array) -> Array | None:
        """Convolve a map with stride 2 and padding SAME; None if that is not offered."""

    def average_pool(self, image: Array) -> Array:
        """Average 2x2 windows with stride 2."""

    def padded_average_pool(self, image: Array) -> Array:
        """Average 3x3 windows with stride 3, padded by the framework on every side that it pads."""

    def padded_max_pool(self, image: Array) -> Array:
        """Take maxima of 3x3 windows with stride 2, padded by the framework."""

    def normalized(self, x: float, epsilon: float | None) -> float:
        """Normalize in evaluation with mean 0, variance 0, and this or the default epsilon."""

    def statistics(self, batch: Array, *, backward: bool) -> tuple[float, float]:
        """Return running mean and variance (at first 0 and 1) after training on a batch (N,)."""

    def kernel_shape(self, channels: int, filters: int, height: int, width: int) -> Array:
        """Return the shape of a convolution's kernel."""

    def linear_shape(self, inputs: int, outputs: int) -> Array:
        """Return the shape of a linear layer's weights."""

    def relu(self, x: Array) -> Array:
        """Return max(x, 0)."""

    def dropout(self, x: Array) -> Array:
        """Drop half of the values, in training."""

    def resized(self, image: Array, size: int) -> Array:
        """Resize a square map bilinearly to (size, size), in its own dtype if possible."""

    def product(self, a: Array, b: Array) -> Array:
        """Multiply two matrices of float32."""


@dataclass(frozen=True)
class Probe:
    """A question, and how it is answered.

    Attributes:
        question: in a few words.
        entry: the section of docs/conventions.md about it; "" if there is none.
        answer: asks a framework, and returns the answer in words.
    """

    question: str
    entry: str
    answer: Callable[[Framework], str]


def _same(framework: Framework) -> str:
    """The first row of ones meets the kernel's row that the padding before it leaves."""
    image, kernel = np.zeros((8, 8), np.float32), np.zeros((7, 7), np.float32)
    image[0, 0], kernel[:] = 1, np.arange(7)[:, None]
    y = framework.same(image, kernel)
    if y is None:
        return "has none"
    before = round(float(y.max()))
    return f"{before} and {(len(y) - 1) * 2 + 7 - 8 - before}"


def _average_pool(framework: Framework) -> str:
    image = np.zeros((7, 7), np.float32)
    image[:, -1] = 1
    y = framework.average_pool(image)
    return f"down, to {len(y)}" if len(y) == 3 else f"up, to {len(y)}"


def _counted(framework: Framework) -> str:
    corner = float(framework.padded_average_pool(np.ones((4, 4), np.float32))[0, 0])
    return "not counted" if corner == 1 else "counted"


def _max_pool(framework: Framework) -> str:
    corner = float(framework.padded_max_pool(-np.ones((5, 5), np.float32))[0, 0])
    return "-inf" if corner == -1 else f"{corner:g}"


def _epsilon(framework: Framework) -> str:
    return _effective(framework, None)


def _smallest_epsilon(framework: Framework) -> str:
    return _effective(framework, 1e-12)


def _effective(framework: Framework, epsilon: float | None) -> str:
    x = 1e-3
    return f"{(x / framework.normalized(x, epsilon)) ** 2:.4g}"


def _taken(framework: Framework) -> float:
    """Return the share of a batch in the new value of a running statistic."""
    return framework.statistics(np.full(8, 10, np.float32), backward=True)[0] / 10


def _decay(framework: Framework) -> str:
    return f"{1 - _taken(framework):.4g}"


def _estimator(framework: Framework) -> str:
    batch = np.array([1, -1, 1, -1], np.float32)  # its variance is 1, or 4/3
    moved = framework.statistics(batch, backward=True)[1] - 1
    return "biased" if abs(moved) < 1e-4 * _taken(framework) else "unbiased"


def _when(framework: Framework) -> str:
    batch = np.full(8, 10, np.float32)
    if framework.statistics(batch, backward=False)[0]:
        return "forward pass"
    return "backward pass" if framework.statistics(batch, backward=True)[0] else "never"


def _kernel(framework: Framework) -> str:
    names = {2: "I", 3: "O", 4: "H", 5: "W"}
    return "".join(names[side] for side in framework.kernel_shape(2, 3, 4, 5))


def _linear(framework: Framework) -> str:
    return "out, in" if tuple(framework.linear_shape(2, 3)) == (3, 2) else "in, out"


def _nan(framework: Framework) -> str:
    return f"{framework.relu(np.array([np.nan], np.float32))[0]:g}"


def _dropout(framework: Framework) -> str:
    return f"{framework.dropout(np.ones(64, np.float32)).max():g}"


def _resize(framework: Framework) -> str:
    """Half of the size, of 0, 1, 2, 3: each way to place the pixels has other values."""
    row = np.arange(4, dtype=np.float32)
    y = framework.resized(np.tile(row, (4, 1)), 2)[0]
    for name, values in {
        "half-pixel": (0.5, 2.5),
        "antialiased": (5 / 7, 16 / 7),  # with half-pixel centers too
        "corner-aligned": (0, 3),
        "left-aligned": (0, 2),
    }.items():
        if np.allclose(y, values, atol=1e-4):
            return name
    return ", ".join(f"{value:.3f}" for value in y)


def _uint8(framework: Framework) -> str:
    y = framework.resized(np.tile(np.array([0, 3], np.uint8), (2, 1)), 4)[0]  # 0, 0.75, 2.25, 3
    if y.dtype != np.uint8:
        return f"returns {y.dtype}"
    return {0: "truncates", 1: "rounds"}.get(int(y[1]), f"0.75 becomes {y[1]}")


def _product(framework: Framework) -> str:
    a = np.full((64, 64), 1 + 2**-12, np.float32)  # 12 bits: more than TF32 and bfloat16 have
    found = framework.product(a, np.eye(64, dtype=np.float32))
    return "float32" if np.array_equal(found, a) else "fewer digits"


PROBES: dict[str, Probe] = {
    "same_padding": Probe("SAME at stride 2 pads (7x7, 8 pixels)", "stem-padding", _same),
    "pool_rounding": Probe("a 2x2 pool of 7 pixels rounds", "rounding-in-pooling", _average_pool),
    "padding_in_average": Probe("padding in an average pool is", "rounding-in-pooling", _counted),
    "max_pool_padding": Probe("a max pool pads with", "max-pool-padding", _max_pool),
    "bn_epsilon": Probe("BatchNorm's epsilon", "bn-epsilon", _epsilon),
    "bn_epsilon_of_1e-12": Probe("an epsilon of 1e-12 is used as", "bn-epsilon", _smallest_epsilon),
    "bn_decay": Probe("a running statistic keeps, of its old value", "bn-momentum", _decay),
    "running_variance": Probe("the running variance is", "running-variance", _estimator),
    "statistics_move": Probe("running statistics move in the", "evaluation-mode", _when),
    "kernel_layout": Probe("a kernel is stored as", "kernel-layout", _kernel),
    "linear_layout": Probe("linear weights are stored as", "linear-weights", _linear),
    "relu_of_nan": Probe("ReLU of NaN is", "nan-in-a-relu", _nan),
    "dropout_scale": Probe("dropout of 1/2 multiplies the rest by", "", _dropout),
    "bilinear_resize": Probe("a bilinear resize is", "", _resize),
    "bilinear_uint8": Probe("a resize of uint8", "", _uint8),
    "float32_product": Probe("products of float32 are computed in", "float32-on-a-gpu", _product),
}
