"""A DenseNet of fully connected layers, for tables: its configuration, spec and reference.

A row of a table is an image of one pixel whose channels are features, and a linear layer is a 1x1
convolution. So a dense layer is the paper's (https://arxiv.org/abs/1608.06993, section 3): batch
normalization, activation, linear layer, concatenation. There is nothing to pool. ``manifest``,
``weights`` and the backends' weights.py accept a ``TabularSpec`` in place of a ``DenseNetSpec``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ._checks import MOST_CHANNELS, Checked, bad, floor_of_decimal, instance, refuse_unknown_fields
from ._inputs import ImageError, as_array
from .manifest import LayerSpec, ListedSpec, count_parameters
from .reference import Array, _Network, relu
from .spec import BatchNormSpec, DenseNetConfig, LinearSpec
from .weights import check_weights


@dataclass(frozen=True, slots=True)
class TabularLayerSpec(Checked):
    """A layer of a network for tables: BatchNorm (or none), activation, linear layer, dropout.

    The next layer reads this one's output or, if ``concatenate``, its input and its output.
    """

    name: str
    norm: BatchNormSpec | None
    activation: str
    linear: LinearSpec
    drop_rate: float
    concatenate: bool


@dataclass(frozen=True, slots=True)
class TabularSpec(ListedSpec):
    """A network for tables: a linear stem, then layers; the last, ``regressor``, has one output."""

    config: TabularConfig
    stem: LinearSpec
    layers: tuple[TabularLayerSpec, ...]

    def named_layers(self) -> Iterator[tuple[str, LayerSpec]]:
        """Yield (canonical name, spec) of every layer with tensors: see ``manifest.layers``."""
        yield "stem", self.stem
        for layer in self.layers:
            if layer.norm:
                yield f"{layer.name}.norm", layer.norm
            yield f"{layer.name}.linear", layer.linear


@refuse_unknown_fields
@dataclass(frozen=True)
class TabularConfig(Checked):
    """The hyper-parameters of a DenseNet for tables. Raises ``ConfigError`` for invalid ones.

    Attributes:
        in_features: columns of a row.
        growth_rate: features that each dense layer adds (the paper's k).
        block_config: dense layers in each block.
        num_init_features: features after the stem.
        compression: a transition between blocks keeps ``floor(compression * features)``.
        normalization: ``"batch"`` or ``"none"``.
        activation: ``"relu"``, ``"silu"`` (x * sigmoid(x)) or ``"tanh"``.
        drop_rate: probability of dropout after a dense layer, in training only.
        concatenate: False makes the plain chain: each layer's output replaces its input.
        bn_eps, bn_decay: as in ``DenseNetConfig``.

    >>> from densenet_multi.tabular import TabularConfig
    >>> spec = TabularConfig(300, growth_rate=8, block_config=(2,)).resolve()
    >>> [layer.linear.in_features for layer in spec.layers]
    [16, 24, 32]
    """

    in_features: int
    _: KW_ONLY
    growth_rate: int = 32
    block_config: tuple[int, ...] = (4,)
    num_init_features: int = 16
    compression: float = 0.5
    normalization: str = "none"
    activation: str = "tanh"
    drop_rate: float = 0.0
    concatenate: bool = True
    bn_eps: float = 1e-5
    bn_decay: float = 0.9

    def resolve(self) -> TabularSpec:
        """Return the network with every number written out. Raises ``ConfigError``."""
        width, layers = self.num_init_features, []
        for i, count in enumerate(self.block_config, 1):
            if i > 1:
                kept = floor_of_decimal(self.compression, width)
                if not kept:
                    raise bad("compression", self.compression, f"at least 1/{width}")
                layers.append(self._layer(f"transition{i - 1}", width, kept))
                width = kept
            for j in range(1, count + 1):
                layers.append(
                    self._layer(f"block{i}_layer{j}", width, self.growth_rate, dense=True)
                )
                width = self.growth_rate + (width if self.concatenate else 0)
        layers.append(self._layer("regressor", width, 1))
        return TabularSpec(
            self, LinearSpec(self.in_features, self.num_init_features), tuple(layers)
        )

    def _layer(self, name: str, width: int, out: int, *, dense: bool = False) -> TabularLayerSpec:
        is_normalized = self.normalization == "batch"
        norm = BatchNormSpec(width, self.bn_eps, self.bn_decay) if is_normalized else None
        rate = self.drop_rate if dense else 0.0
        linear, concatenate = LinearSpec(width, out), dense and self.concatenate
        return TabularLayerSpec(name, norm, self.activation, linear, rate, concatenate)

    to_json = DenseNetConfig.to_json
    from_json: ClassVar[Any] = classmethod(DenseNetConfig.from_json.__func__)  # type: ignore[attr-defined]


def plain(config: TabularConfig) -> TabularConfig:
    """Return the plain chain with as many layers, all of one width: that with the closest count."""

    def chain(width: int) -> TabularConfig:
        widths: dict[str, Any] = {"growth_rate": width, "num_init_features": width}
        return replace(config, concatenate=False, compression=1.0, **widths)

    def count(config: TabularConfig) -> int:
        return count_parameters(config.resolve()).trainable

    wanted = count(instance("config", config, TabularConfig, "a TabularConfig"))
    i = bisect_left(range(1, MOST_CHANNELS), wanted, key=lambda width: count(chain(width)))
    return min(map(chain, (max(1, i), i + 1)), key=lambda near: abs(count(near) - wanted))


def check_tabular_spec(spec: Any) -> TabularSpec:
    """Return a ``TabularSpec`` as it is. Raises ``ConfigError`` for anything else."""
    return instance("spec", spec, TabularSpec, "a TabularSpec, such as TabularConfig(9).resolve()")


def check_rows(spec: TabularSpec, rows: Any, dtype: str, least: int = 1) -> npt.NDArray[Any]:
    """Return at least ``least`` rows (N, in_features) as ``dtype``. Raises ``ImageError``."""
    columns, array = check_tabular_spec(spec).config.in_features, _finite("rows", rows, dtype)
    if array.ndim != 2 or array.shape[1] != columns or len(array) < least:
        expected = f"(N, {columns}) with N at least {least}"
        raise ImageError(f"rows: expected shape {expected}, found {array.shape}")
    return array


def check_row_batch(
    spec: TabularSpec, rows: Any, targets: Any, dtype: str, least: int = 2
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return rows, and targets in the shape of the network's output, (N, 1)."""
    x, y = check_rows(spec, rows, dtype, least), _finite("targets", targets, dtype)
    if y.shape != (len(x),):
        raise ImageError(f"targets: expected {len(x)} numbers, found shape {y.shape}")
    return x, y[:, None]


def _finite(name: str, given: Any, dtype: str) -> npt.NDArray[Any]:
    array = as_array(name, given)
    with np.errstate(over="ignore"):  # overflow is reported below
        cast = np.ascontiguousarray(array, dtype) if array.dtype.kind in "fiu" else np.array(np.nan)
    if not np.isfinite(cast).all():
        raise ImageError(f"{name}: expected finite numbers, found others (dtype {array.dtype})")
    return cast


ACTIVATIONS: dict[str, Any] = {
    "relu": relu,
    "silu": lambda x: x * (1 + np.tanh(x / 2)) / 2,  # this sigmoid cannot overflow
    "tanh": np.tanh,
}


class _Rows(_Network):
    """The reference: a row is computed as an image of one pixel."""

    def predict(self, spec: TabularSpec, x: Array) -> Array:
        x = self.linear("stem", x)
        for layer in spec.layers:
            new = self.batch_norm(f"{layer.name}.norm", layer.norm, x[:, :, None, None])
            new = self.linear(
                f"{layer.name}.linear", ACTIVATIONS[layer.activation](new)[:, :, 0, 0]
            )
            x = np.concatenate([x, new], axis=1) if layer.concatenate else new
        return x[:, 0]

    def linear(self, name: str, x: Array) -> Array:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]


def predict(spec: TabularSpec, weights: Mapping[str, Any], rows: npt.ArrayLike) -> Array:
    """Return the predictions (N,) in evaluation mode, float64, as ``reference.predict`` does."""
    x = check_rows(spec, rows, "float64")
    return _Rows(check_weights(spec, weights), training=False, unbiased=False).predict(spec, x)
