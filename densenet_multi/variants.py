"""Networks by name: the book chapter's, the paper's for ImageNet and CIFAR, and one of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from ._checks import bad, check_names, integer, truth
from .spec import DenseNetConfig, DenseNetSpec


def cifar_config(
    depth: int, growth_rate: int, *, bottleneck: bool, **overrides: Any
) -> DenseNetConfig:
    """Return the configuration of a CIFAR network: three blocks, ``depth`` weighted layers.

    The paper calls the depth L. Plain networks have (L - 4) / 3 dense layers per block and 16
    channels after the stem. Bottleneck networks (DenseNet-BC) have (L - 4) / 6 dense layers per
    block, 2k channels after the stem, and compression 0.5. ``overrides`` are fields of
    ``DenseNetConfig``. Raises ``ConfigError``. Source: paper, section 3, "Implementation Details".

    >>> dm.cifar_config(40, 12, bottleneck=False).block_config
    (12, 12, 12)
    """
    step = 6 if truth("bottleneck", bottleneck) else 3
    layers, rest = divmod(integer("depth", depth, 4 + step) - 4, step)
    if rest:
        near = f"{4 + step * layers} or {4 + step * (layers + 1)}"
        raise bad("depth", depth, f"4 plus a multiple of {step}, such as {near}")
    growth_rate = integer("growth_rate", growth_rate, 1)
    chosen: dict[str, Any] = {
        "growth_rate": growth_rate,
        "block_config": (layers,) * 3,
        "num_init_features": 2 * growth_rate if bottleneck else 16,
        "bn_size": 4 if bottleneck else None,
        "compression": 0.5 if bottleneck else 1.0,
        "num_classes": 10,
        "stem": "cifar",
    }
    return DenseNetConfig(**(chosen | overrides))


VARIANTS: Mapping[str, DenseNetConfig] = MappingProxyType(
    {
        # The DenseNet chapter of Dive into Deep Learning: plain layers, biases, 7x7 stem.
        "d2l": DenseNetConfig(
            block_config=(4, 4, 4, 4), bn_size=None, num_classes=10, in_channels=1, conv_bias=True
        ),
        # Paper, Table 1; densenet161 is the authors' later, wider model (k = 48).
        "densenet121": DenseNetConfig(block_config=(6, 12, 24, 16)),
        "densenet161": DenseNetConfig(
            block_config=(6, 12, 36, 24), growth_rate=48, num_init_features=96
        ),
        "densenet169": DenseNetConfig(block_config=(6, 12, 32, 32)),
        "densenet201": DenseNetConfig(block_config=(6, 12, 48, 32)),
        "densenet264": DenseNetConfig(block_config=(6, 12, 64, 48)),
        # Paper, Table 2: the networks for CIFAR.
        "densenet40_k12": cifar_config(40, 12, bottleneck=False),
        "densenet100_k12": cifar_config(100, 12, bottleneck=False),
        "densenet100_k24": cifar_config(100, 24, bottleneck=False),
        "densenet_bc100_k12": cifar_config(100, 12, bottleneck=True),
        "densenet_bc250_k24": cifar_config(250, 24, bottleneck=True),
        "densenet_bc190_k40": cifar_config(190, 40, bottleneck=True),
        # Ours, for the recipe "modern" and small machines: few layers at high resolution.
        "densenet_bc32_k32": DenseNetConfig(
            block_config=(2, 4, 8), num_classes=10, in_channels=1, stem="cifar"
        ),
        # Ours, for the recipe "quick": six dense layers, with maps of 14x14 in the first block.
        "densenet10_k32": DenseNetConfig(
            block_config=(2, 2, 2),
            num_init_features=32,
            bn_size=None,
            num_classes=10,
            in_channels=1,
        ),
    }
)


def get_spec(variant: str, **overrides: Any) -> DenseNetSpec:
    """Return the network of a variant, one of ``VARIANTS``, with every number written out.

    ``overrides`` are fields of ``DenseNetConfig``. Raises ``ConfigError`` for an unknown variant or
    field; the message suggests the nearest existing name. Source: the paper's Tables 1 and 2.

    >>> dm.get_spec("densenet121", num_classes=10).classifier
    LinearSpec(in_features=1024, out_features=10)
    """
    check_names("variant", [variant], VARIANTS)
    return replace(VARIANTS[variant], **overrides).resolve()


def default_image_size(spec: DenseNetSpec) -> int:
    """Return the default image size in pixels per side: the chapter's 96, or CIFAR's 32."""
    return 96 if spec.config.stem == "imagenet" else 32
