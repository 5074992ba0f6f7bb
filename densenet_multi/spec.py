"""The paper as data: a configuration, and the network it resolves to.

Source: G. Huang, Z. Liu, L. van der Maaten, K. Weinberger, "Densely Connected Convolutional
Networks", https://arxiv.org/abs/1608.06993 (sections 3 and 4.2, Table 1).

``DenseNetConfig`` holds the dozen numbers a person chooses. ``resolve()`` turns them into a
``DenseNetSpec`` in which every channel number, stride and padding is written out, so that a
backend translates and never computes. Standard library only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from ._checks import (
    LEAST,
    MOST_CHANNELS,
    MOST_LAYERS,
    POOLS,
    Checked,
    ConfigError,
    bad,
    floor_of_decimal,
    instance,
    integer,
    integers,
    is_bool,
    number,
    one_of,
    refuse_unknown_fields,
    shown,
    text,
    truth,
)

SCHEMA_VERSION = 1
STEMS = ("imagenet", "cifar")
ADDED = {"transition_pool", "global_pool"}  # fields that older files do not have: "avg"
NUMBERS = ("compression", "drop_rate", "bn_eps", "bn_decay")


# --- What a network is made of: each of these is one native layer in every backend -------------


@dataclass(frozen=True, slots=True)
class ConvSpec(Checked):
    """A square 2-D convolution (cross-correlation) with explicit zero padding on all four sides."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    bias: bool = False


@dataclass(frozen=True, slots=True)
class BatchNormSpec(Checked):
    """Batch normalization; ``decay`` is the fraction of the old running value that is kept."""

    num_features: int
    eps: float = 1e-5
    decay: float = 0.9


@dataclass(frozen=True, slots=True)
class PoolSpec(Checked):
    """A square pooling window; a window that does not fit is dropped (floor)."""

    kernel_size: int
    stride: int
    padding: int = 0


@dataclass(frozen=True, slots=True)
class LinearSpec(Checked):
    """A fully connected layer with bias."""

    in_features: int
    out_features: int


# --- What those are grouped into: each of these is one class in every backend's model.py -------


@dataclass(frozen=True, slots=True)
class StemSpec(Checked):
    """Before the first dense block: ``conv0``, and in the ImageNet stem ``norm0`` and ``pool0``."""

    conv0: ConvSpec
    norm0: BatchNormSpec | None = None
    pool0: PoolSpec | None = None


@dataclass(frozen=True, slots=True)
class DenseLayerSpec(Checked):
    """The paper's H (section 3): BN-ReLU-Conv3x3, or BN-ReLU-Conv1x1-BN-ReLU-Conv3x3."""

    name: str
    norm1: BatchNormSpec
    conv1: ConvSpec
    norm2: BatchNormSpec | None = None
    conv2: ConvSpec | None = None
    drop_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class DenseBlockSpec(Checked):
    """Dense layers, each reading everything before it in the block (section 3, equation 2)."""

    name: str
    in_channels: int
    out_channels: int
    layers: tuple[DenseLayerSpec, ...]


@dataclass(frozen=True, slots=True)
class TransitionSpec(Checked):
    """Between two dense blocks: BN-ReLU-Conv1x1, then 2x2 average pooling with stride 2.

    The convolution and the average are linear and commute, so a backend averages first, which
    leaves a quarter of the convolution's work. Max pooling (``pool_kind="max"``) is not linear.
    """

    name: str
    norm: BatchNormSpec
    conv: ConvSpec
    pool: PoolSpec
    pool_kind: str = "avg"


@dataclass(frozen=True, slots=True)
class DenseNetSpec(Checked):
    """A resolved network; ``stages`` pairs each dense block with the transition after it."""

    config: DenseNetConfig
    stem: StemSpec
    stages: tuple[tuple[DenseBlockSpec, TransitionSpec | None], ...]
    norm5: BatchNormSpec
    classifier: LinearSpec | None
    global_pool: str = "avg"

    def to_json(self) -> str:
        """The configuration as JSON with a schema version; ``from_json`` resolves it again."""
        return self.config.to_json()

    @classmethod
    def from_json(cls, text: str) -> DenseNetSpec:
        """The spec that ``to_json`` wrote. Raises ``ConfigError`` on anything else."""
        return DenseNetConfig.from_json(text).resolve()


def check_spec(spec: Any) -> DenseNetSpec:
    """The spec itself. Raises ``ConfigError`` for anything else, such as a configuration."""
    expected = "a DenseNetSpec, such as get_spec('d2l') or config.resolve()"
    return instance("spec", spec, DenseNetSpec, expected)


# --- Building blocks, with explicit widths -----------------------------------------------------


def dense_block(
    num_layers: int,
    in_channels: int,
    growth_rate: int,
    *,
    bn_size: int | None = None,
    drop_rate: float = 0.0,
    conv_bias: bool = False,
    bn_eps: float = 1e-5,
    bn_decay: float = 0.9,
    name: str = "denseblock1",
) -> DenseBlockSpec:
    """A dense block of ``num_layers`` layers, each adding ``growth_rate`` channels.

    ``bn_size=None`` makes plain layers; ``bn_size=4`` puts a 1x1 convolution to ``4 *
    growth_rate`` channels before each 3x3 one (the paper's bottleneck). The chapter's example is
    ``dense_block(2, in_channels=3, growth_rate=10)``: 3 channels in, 23 out.
    Raises ``ConfigError``. Source: paper, section 3.
    """
    num_layers = integer("num_layers", num_layers, 1, MOST_LAYERS)
    width = in_channels = _channels("in_channels", in_channels)
    growth_rate = _channels("growth_rate", growth_rate)
    bn_size = None if bn_size is None else _channels("bn_size", bn_size)
    text("name", name)
    widest = max(in_channels + num_layers * growth_rate, (bn_size or 0) * growth_rate)
    if widest > MOST_CHANNELS:
        raise ConfigError(
            f"{name}: expected at most {MOST_CHANNELS:,} channels in a map, found {widest:,}; "
            "choose a smaller growth_rate or fewer layers"
        )
    drop_rate = number("drop_rate", drop_rate)
    bn_eps, bn_decay = number("bn_eps", bn_eps), number("bn_decay", bn_decay)
    truth("conv_bias", conv_bias)
    layers = []
    for i in range(1, num_layers + 1):
        norm1 = BatchNormSpec(width, bn_eps, bn_decay)
        if bn_size is None:
            conv1 = ConvSpec(width, growth_rate, 3, padding=1, bias=conv_bias)
            layer = DenseLayerSpec(f"denselayer{i}", norm1, conv1, drop_rate=drop_rate)
        else:
            inner = bn_size * growth_rate
            conv1 = ConvSpec(width, inner, 1, bias=conv_bias)
            norm2 = BatchNormSpec(inner, bn_eps, bn_decay)
            conv2 = ConvSpec(inner, growth_rate, 3, padding=1, bias=conv_bias)
            layer = DenseLayerSpec(f"denselayer{i}", norm1, conv1, norm2, conv2, drop_rate)
        layers.append(layer)
        width += growth_rate
    return DenseBlockSpec(name, in_channels, width, tuple(layers))


def transition(
    in_channels: int,
    out_channels: int,
    *,
    pool_kind: str = "avg",
    conv_bias: bool = False,
    bn_eps: float = 1e-5,
    bn_decay: float = 0.9,
    name: str = "transition1",
) -> TransitionSpec:
    """A transition from ``in_channels`` to ``out_channels`` at half the height and width.

    ``pool_kind`` is ``"avg"``, as in the paper, or ``"max"``.
    Raises ``ConfigError``. Source: paper, section 3, "Pooling layers" and "Compression".
    """
    in_channels = _channels("in_channels", in_channels)
    out_channels = _channels("out_channels", out_channels)
    bn_eps, bn_decay = number("bn_eps", bn_eps), number("bn_decay", bn_decay)
    truth("conv_bias", conv_bias)
    text("name", name)
    return TransitionSpec(
        name,
        BatchNormSpec(in_channels, bn_eps, bn_decay),
        ConvSpec(in_channels, out_channels, 1, bias=conv_bias),
        PoolSpec(kernel_size=2, stride=2),
        one_of("pool_kind", pool_kind, POOLS),
    )


def _channels(name: str, given: Any) -> int:
    return integer(name, given, 1, MOST_CHANNELS)


# --- The configuration -------------------------------------------------------------------------


@refuse_unknown_fields
@dataclass(frozen=True, kw_only=True)
class DenseNetConfig:
    """The hyper-parameters of a DenseNet; frozen, hashable, checked on creation.

    Attributes:
        growth_rate: channels each dense layer adds (the paper's k).
        block_config: dense layers per block.
        num_init_features: channels after the stem.
        bn_size: width of the bottleneck in units of ``growth_rate`` (the 4 in 4k); ``None``: none.
        compression: the paper's theta; a transition keeps ``floor(compression * channels)``,
            computed on the decimal you write (0.29 of 100 channels is 29).
        drop_rate: dropout after the last convolution of a dense layer, while training.
        num_classes: outputs of the classifier; 0 omits it and returns pooled features.
        in_channels: channels of the images.
        stem: ``"imagenet"`` (7x7 stride 2, BN, ReLU, 3x3 max pooling stride 2), ``"cifar"`` (3x3).
        conv_bias: a bias on every convolution (the chapter has it, the paper does not).
        bn_eps: added to the variance before the square root.
        bn_decay: fraction of a running statistic that is kept in a training step.
        transition_pool: ``"avg"``, as in the paper, or ``"max"``: how a transition pools.
        global_pool: the same for pooling over the complete last map, before the classifier.

    Raises ``ConfigError`` (a ``ValueError``), also above 10,000 dense layers, or 2**20 channels or
    classes. Source: paper, sections 3 and 4.2.
    """

    growth_rate: int = 32
    block_config: tuple[int, ...] = (6, 12, 24, 16)
    num_init_features: int = 64
    bn_size: int | None = 4
    compression: float = 0.5
    drop_rate: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    stem: str = "imagenet"
    conv_bias: bool = False
    bn_eps: float = 1e-5
    bn_decay: float = 0.9
    transition_pool: str = "avg"
    global_pool: str = "avg"

    def __post_init__(self) -> None:
        def check(name: str, checked: Any) -> None:
            object.__setattr__(self, name, checked)  # e.g. a list of blocks becomes a tuple

        for name, least in LEAST.items():
            check(name, integer(name, getattr(self, name), least, MOST_CHANNELS))
        for name in NUMBERS:
            check(name, number(name, getattr(self, name)))
        check("block_config", integers("block_config", self.block_config))
        if sum(self.block_config) > MOST_LAYERS:
            raise bad("block_config", self.block_config, f"at most {MOST_LAYERS:,} layers in all")
        if self.bn_size is not None:
            check("bn_size", _channels("bn_size", self.bn_size))
        truth("conv_bias", self.conv_bias)
        one_of("stem", self.stem, STEMS)
        one_of("transition_pool", self.transition_pool, POOLS)
        one_of("global_pool", self.global_pool, POOLS)

    def resolve(self) -> DenseNetSpec:
        """The network with every number written out. Raises ``ConfigError`` if a transition would
        be left without channels."""
        norm = {"eps": self.bn_eps, "decay": self.bn_decay}
        common: dict[str, Any] = {
            "conv_bias": self.conv_bias,
            "bn_eps": self.bn_eps,
            "bn_decay": self.bn_decay,
        }
        width = self.num_init_features
        if self.stem == "imagenet":
            stem = StemSpec(
                ConvSpec(self.in_channels, width, 7, stride=2, padding=3, bias=self.conv_bias),
                BatchNormSpec(width, **norm),
                PoolSpec(kernel_size=3, stride=2, padding=1),
            )
        else:
            stem = StemSpec(ConvSpec(self.in_channels, width, 3, padding=1, bias=self.conv_bias))

        stages: list[tuple[DenseBlockSpec, TransitionSpec | None]] = []
        for i, num_layers in enumerate(self.block_config, 1):
            block = dense_block(
                num_layers,
                width,
                self.growth_rate,
                bn_size=self.bn_size,
                drop_rate=self.drop_rate,
                name=f"denseblock{i}",
                **common,
            )
            width = block.out_channels
            if i == len(self.block_config):  # no transition after the last block
                stages.append((block, None))
                break
            kept = floor_of_decimal(self.compression, width)
            if kept == 0:
                allowed = f"at least 1/{width}: transition{i} would keep none of {width} channels"
                raise bad("compression", self.compression, allowed)
            between = transition(
                width, kept, pool_kind=self.transition_pool, name=f"transition{i}", **common
            )
            stages.append((block, between))
            width = kept

        classifier = LinearSpec(width, self.num_classes) if self.num_classes else None
        norm5 = BatchNormSpec(width, **norm)
        return DenseNetSpec(self, stem, tuple(stages), norm5, classifier, self.global_pool)

    def to_json(self) -> str:
        """The configuration as one line of JSON with a schema version."""
        import json

        return json.dumps({"schema_version": SCHEMA_VERSION, "config": asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> DenseNetConfig:
        """The configuration that ``to_json`` wrote. Raises ``ConfigError`` on anything else."""
        import json

        try:
            data = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(f"configuration: not JSON ({error}): {shown(text)[:80]}") from None
        if not isinstance(data, dict) or data.keys() != {"schema_version", "config"}:
            raise bad("configuration", data, '{"schema_version": ..., "config": {...}}')
        version = data["schema_version"]
        if is_bool(version) or version != SCHEMA_VERSION:
            raise bad("schema_version", version, f"{SCHEMA_VERSION} in this version")
        names = [f.name for f in fields(cls)]
        needed = set(names) - ADDED
        if not isinstance(data["config"], dict) or needed - data["config"].keys():
            raise bad("config", data["config"], f"an object with the fields {', '.join(names)}")
        return cls(**data["config"])
