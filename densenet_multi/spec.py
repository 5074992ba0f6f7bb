"""The paper as data: a configuration, and the network that it describes.

Source: G. Huang, Z. Liu, L. van der Maaten, K. Weinberger, "Densely Connected Convolutional
Networks", https://arxiv.org/abs/1608.06993 (sections 3 and 4.2, Table 1).

``DenseNetConfig`` holds the values that a person chooses. ``resolve()`` turns them into a
``DenseNetSpec``, in which every channel count, stride and padding is written out. A backend only
translates them into layers, and computes none itself. Standard library only.
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
ADDED = {"transition_pool", "global_pool"}  # fields that older files omit; the default is "avg"
NUMBERS = ("compression", "drop_rate", "bn_eps", "bn_decay")


# --- Layers: each of these is one native layer in every backend --------------------------------


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
    """Batch normalization; a training step keeps the fraction ``decay`` of a running statistic."""

    num_features: int
    eps: float = 1e-5
    decay: float = 0.9


@dataclass(frozen=True, slots=True)
class PoolSpec(Checked):
    """Pooling over square windows; a window that does not fit completely is dropped (floor)."""

    kernel_size: int
    stride: int
    padding: int = 0


@dataclass(frozen=True, slots=True)
class LinearSpec(Checked):
    """A fully connected layer with bias."""

    in_features: int
    out_features: int


# --- Groups of layers: each of these is one class in every backend's model.py ------------------


@dataclass(frozen=True, slots=True)
class StemSpec(Checked):
    """The layers before the first block: ``conv0``, and for ImageNet also ``norm0``, ``pool0``."""

    conv0: ConvSpec
    norm0: BatchNormSpec | None = None
    pool0: PoolSpec | None = None


@dataclass(frozen=True, slots=True)
class DenseLayerSpec(Checked):
    """A dense layer, the paper's H (section 3): BN-ReLU-Conv3x3.

    With a bottleneck, BN-ReLU-Conv1x1 precedes it: ``conv1`` is 1x1 and ``conv2`` is 3x3.
    """

    name: str
    norm1: BatchNormSpec
    conv1: ConvSpec
    norm2: BatchNormSpec | None = None
    conv2: ConvSpec | None = None
    drop_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class DenseBlockSpec(Checked):
    """Dense layers; each reads the block's input and all earlier layers' outputs (equation 2)."""

    name: str
    in_channels: int
    out_channels: int
    layers: tuple[DenseLayerSpec, ...]


@dataclass(frozen=True, slots=True)
class TransitionSpec(Checked):
    """The layers between two dense blocks: BN-ReLU-Conv1x1, then 2x2 pooling with stride 2.

    Average pooling and the convolution are both linear and commute. A backend therefore pools
    first, which leaves a quarter of the convolution's work. Max pooling (``pool_kind="max"``) is
    not linear and stays last.
    """

    name: str
    norm: BatchNormSpec
    conv: ConvSpec
    pool: PoolSpec
    pool_kind: str = "avg"


@dataclass(frozen=True, slots=True)
class DenseNetSpec(Checked):
    """A complete network; ``stages`` pairs each dense block with its transition (last: None)."""

    config: DenseNetConfig
    stem: StemSpec
    stages: tuple[tuple[DenseBlockSpec, TransitionSpec | None], ...]
    norm5: BatchNormSpec
    classifier: LinearSpec | None
    global_pool: str = "avg"

    def to_json(self) -> str:
        """Return the configuration as JSON, from which ``from_json`` rebuilds the spec."""
        return self.config.to_json()

    @classmethod
    def from_json(cls, text: str) -> DenseNetSpec:
        """Rebuild a spec from the result of ``to_json``. Raises ``ConfigError`` for other text."""
        return DenseNetConfig.from_json(text).resolve()


def check_spec(spec: Any) -> DenseNetSpec:
    """Return a ``DenseNetSpec`` as it is. Raises ``ConfigError`` for anything else."""
    expected = "a DenseNetSpec, such as get_spec('d2l') or config.resolve()"
    return instance("spec", spec, DenseNetSpec, expected)


# --- Building blocks, with channel counts ------------------------------------------------------


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
    """Describe a dense block of ``num_layers`` layers that each add ``growth_rate`` channels.

    ``bn_size=None`` makes plain layers. ``bn_size=4`` puts a 1x1 convolution with ``4 *
    growth_rate`` output channels before each 3x3 one (the paper's bottleneck).
    Raises ``ConfigError``. Source: paper, section 3. An example from Dive into Deep Learning:

    >>> block = dm.dense_block(2, in_channels=3, growth_rate=10)
    >>> block.out_channels
    23
    >>> [layer.conv1.in_channels for layer in block.layers]
    [3, 13]
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
    """Describe a transition to ``out_channels`` channels at half the height and width.

    ``pool_kind`` is ``"avg"``, as in the paper, or ``"max"``.
    Raises ``ConfigError``. Source: paper, section 3, "Pooling layers" and "Compression".

    >>> dm.transition(23, 10).conv
    ConvSpec(in_channels=23, out_channels=10, kernel_size=1, stride=1, padding=0, bias=False)
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
    """The hyper-parameters of a DenseNet; frozen, hashable, validated on creation.

    Attributes:
        growth_rate: channels that each dense layer adds (the paper's k).
        block_config: dense layers in each block.
        num_init_features: channels after the stem.
        bn_size: bottleneck width in units of ``growth_rate`` (the 4 in 4k); None: no bottleneck.
        compression: the paper's theta; a transition keeps ``floor(compression * channels)``,
            computed with the decimal as written (0.29 of 100 channels is 29).
        drop_rate: probability of dropout after a dense layer's last convolution, in training only.
        num_classes: outputs of the classifier; 0 omits it, and the network returns pooled features.
        in_channels: channels of the images.
        stem: ``"imagenet"`` (7x7 convolution with stride 2, BN, ReLU, 3x3 max pooling with stride
            2) or ``"cifar"`` (3x3 convolution).
        conv_bias: whether every convolution has a bias: yes in ``"d2l"``, no in the paper.
        bn_eps: added to the variance before the square root.
        bn_decay: fraction of a running statistic that a training step keeps.
        transition_pool: how a transition pools: ``"avg"``, as in the paper, or ``"max"``.
        global_pool: how the last map is pooled before the classifier: ``"avg"`` or ``"max"``.

    Raises ``ConfigError`` (a ``ValueError``), also for more than 10,000 dense layers, or 2**20
    channels or classes. Source: paper, sections 3 and 4.2.

    >>> config = dm.DenseNetConfig(block_config=(6, 12, 24, 16), num_classes=10)
    >>> config.resolve().classifier
    LinearSpec(in_features=1024, out_features=10)
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
            object.__setattr__(self, name, checked)  # for example, a list as a tuple

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
        """Return the network with every number written out.

        Raises ``ConfigError`` if a transition would keep no channel.
        """
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
        """Return the configuration as one line of JSON with a schema version."""
        import json

        return json.dumps({"schema_version": SCHEMA_VERSION, "config": asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> DenseNetConfig:
        """Rebuild the configuration from the result of ``to_json``. Raises ``ConfigError``."""
        import json

        try:
            data = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"configuration: expected JSON, found {shown(text)[:80]} ({error})"
            ) from None
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
