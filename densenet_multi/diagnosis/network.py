"""The network with operations that can be exchanged: what ``reference`` computes, taken apart.

Each operation has a place: the stage and the layer in which it is applied. A ``Change`` is computed
instead of an operation, and receives the original one. Without changes, the stages are those of
``reference.forward``, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..manifest import min_image_size
from ..reference import average_pool, convolve, max_pool, relu
from ..spec import BatchNormSpec, ConvSpec, DenseBlockSpec, DenseNetSpec, PoolSpec, TransitionSpec

Array = npt.NDArray[np.float64]
Operation = Callable[..., Array]

INPUT, OUTPUT = "input", "output"  # the stages before the first and after the last


class Place(NamedTuple):
    """Where an operation is applied: the stage, and the layer's canonical name."""

    stage: str
    name: str


class Norm(NamedTuple):
    """What a BatchNorm reads."""

    weight: Array
    bias: Array
    mean: Array
    variance: Array
    epsilon: float


@dataclass(frozen=True)
class Change:
    """A function that is computed instead of an operation.

    Attributes:
        operation: the name of a function of ``OPERATIONS``.
        function: receives the original operation, the place, and the operation's arguments.
        where: whether the change applies to a place.
    """

    operation: str
    function: Operation
    where: Callable[[Place], bool]


# --- The operations -----------------------------------------------------------------------------


def image(_: Place, x: Array) -> Array:
    """Return what the stem reads."""
    return x


def convolution(_: Place, x: Array, kernel: Array, bias: Array | None, conv: ConvSpec) -> Array:
    """Convolve, and add the bias, if any."""
    y = convolve(x, kernel, conv.stride, conv.padding)
    return y if bias is None else y + bias[:, None, None]


def normalization(_: Place, x: Array, norm: Norm) -> Array:
    """Normalize each channel with the running statistics."""
    scale = norm.weight / np.sqrt(norm.variance + norm.epsilon)
    return (x - norm.mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]


def activation(_: Place, x: Array) -> Array:
    """Return max(x, 0)."""
    return relu(x)


def pooling(_: Place, x: Array, pool: PoolSpec, kind: str) -> Array:
    """Return the maximum or the mean of each window."""
    return max_pool(pool, x) if kind == "max" else average_pool(pool, x)


def concatenation(_: Place, old: Array, new: Array) -> Array:
    """Return the old channels, then the new ones."""
    return np.concatenate([old, new], axis=1)


def global_pooling(_: Place, x: Array, kind: str) -> Array:
    """Return the mean or the maximum of each map."""
    return x.max(axis=(2, 3)) if kind == "max" else np.asarray(x.mean(axis=(2, 3)))


def classification(_: Place, x: Array, weight: Array, bias: Array) -> Array:
    """Return the logits of pooled features."""
    return x @ weight.T + bias


def result(_: Place, x: Array) -> Array:
    """Return what the network returns."""
    return x


OPERATIONS: dict[str, Operation] = {
    f.__name__: f
    for f in (
        image, convolution, normalization, activation, pooling, concatenation, global_pooling,
        classification, result,
    )
}  # fmt: skip


# --- The network --------------------------------------------------------------------------------


class Network:
    """A network whose stages can be computed one at a time, with changes.

    Results are kept: a change in a late stage does not compute the earlier ones again.
    """

    def __init__(self, spec: DenseNetSpec, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        self.spec = spec
        self.w = {name: np.asarray(array, np.float64) for name, array in weights.items()}
        self.stages = [INPUT, *_stages(spec), OUTPUT]
        self._places: dict[str, list[Place]] = {}

    def places(self, operation: str) -> list[Place]:
        """Return the places of an operation, in the order in which the network computes them."""
        if not self._places:
            self._places = {name: [] for name in OPERATIONS}
            size = min_image_size(self.spec)
            x = np.zeros((1, self.spec.config.in_channels, size, size))
            self.outputs(x, [Change(name, self._recorded(name), _always) for name in OPERATIONS])
        return self._places[operation]

    def _recorded(self, name: str) -> Operation:
        def recorded(original: Operation, place: Place, *args: Any) -> Array:
            self._places[name].append(place)
            return original(place, *args)

        return recorded

    def outputs(self, x: Array, changes: Sequence[Change] = ()) -> dict[str, Array]:
        """Return the output of every stage; that of ``"output"`` is what the network returns."""
        found = {}
        for stage in self.stages:
            found[stage] = x = self.stage(stage, x, changes)
        return found

    def stage(self, stage: str, x: Array, changes: Sequence[Change] = ()) -> Array:
        """Return the output of one stage, from that of the stage before it."""
        return _Stage(self, stage, changes).run(x)


def _stages(spec: DenseNetSpec) -> Iterator[str]:
    yield "stem"
    for block, transition in spec.stages:
        yield block.name
        if transition:
            yield transition.name
    yield "norm5"


def _always(_: Place) -> bool:
    return True


class _Stage:
    def __init__(self, network: Network, stage: str, changes: Sequence[Change]) -> None:
        self.spec, self.w, self.name = network.spec, network.w, stage
        self.changes = changes

    def do(self, operation: str, name: str, *args: Any) -> Array:
        place, function = Place(self.name, name), OPERATIONS[operation]
        for change in self.changes:
            if change.operation == operation and change.where(place):
                function = partial(change.function, function)
        return function(place, *args)

    def run(self, x: Array) -> Array:
        if self.name == INPUT:
            return self.do("image", INPUT, x)
        if self.name == "stem":
            return self.stem(x)
        if self.name == "norm5":
            return self.norm("features.norm5", self.spec.norm5, x)
        if self.name == OUTPUT:
            return self.head(x)
        for block, transition in self.spec.stages:
            if block.name == self.name:
                return self.block(f"features.{self.name}", block, x)
            if transition and transition.name == self.name:
                return self.transition(f"features.{self.name}", transition, x)
        raise ValueError(f"stage: expected one of the network's stages, found {self.name!r}")

    def stem(self, x: Array) -> Array:
        stem = self.spec.stem
        x = self.conv("features.conv0", stem.conv0, x)
        if stem.pool0:
            x = self.relu("features.norm0", self.norm("features.norm0", stem.norm0, x))
            x = self.do("pooling", "features.pool0", x, stem.pool0, "max")
        return x

    def block(self, name: str, block: DenseBlockSpec, x: Array) -> Array:
        for layer in block.layers:
            prefix = f"{name}.{layer.name}"
            new = self.relu(f"{prefix}.norm1", self.norm(f"{prefix}.norm1", layer.norm1, x))
            new = self.conv(f"{prefix}.conv1", layer.conv1, new)
            if layer.conv2:
                new = self.relu(f"{prefix}.norm2", self.norm(f"{prefix}.norm2", layer.norm2, new))
                new = self.conv(f"{prefix}.conv2", layer.conv2, new)
            x = self.do("concatenation", prefix, x, new)
        return x

    def transition(self, name: str, transition: TransitionSpec, x: Array) -> Array:
        x = self.relu(f"{name}.norm", self.norm(f"{name}.norm", transition.norm, x))
        x = self.conv(f"{name}.conv", transition.conv, x)
        return self.do("pooling", f"{name}.pool", x, transition.pool, transition.pool_kind)

    def head(self, x: Array) -> Array:
        x = self.relu("features.norm5", x)
        x = self.do("global_pooling", "global_pool", x, self.spec.global_pool)
        if self.spec.classifier:
            weight, bias = self.w["classifier.weight"], self.w["classifier.bias"]
            x = self.do("classification", "classifier", x, weight, bias)
        return self.do("result", OUTPUT, x)

    def conv(self, name: str, conv: ConvSpec, x: Array) -> Array:
        bias = self.w[f"{name}.bias"] if conv.bias else None
        return self.do("convolution", name, x, self.w[f"{name}.weight"], bias, conv)

    def norm(self, name: str, norm: BatchNormSpec | None, x: Array) -> Array:
        if norm is None:  # folded into the convolution before it
            return x
        leaves = ("weight", "bias", "running_mean", "running_var")
        weight, bias, mean, variance = (self.w[f"{name}.{leaf}"] for leaf in leaves)
        read = Norm(weight, bias, mean, variance, norm.eps)
        return self.do("normalization", name, x, read)

    def relu(self, name: str, x: Array) -> Array:
        return self.do("activation", name, x)
