"""A trained network in memory: its specification, its weights, and how to use them.

``formats`` reads every file of weights into a ``Checkpoint``, whatever its format, and writes it
from one. What a training run needs to resume is a ``TrainingState``: see training/state.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ._checks import bad, integer
from .spec import DenseNetSpec
from .weights import Weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How to use a network's weights, as no tensor tells; None where it is not known.

    Attributes:
        image_size: pixels per side that the network was trained with or is meant for.
        value_range: of pixels before ``mean`` and ``std``: (0, 1) or (0, 255).
        mean, std: per channel; the network reads ``(pixels - mean) / std``.
        class_names: one for each output, in order.
        running_variance: ``"biased"`` or ``"unbiased"``, the estimator behind the statistics.
        split_seed: of the split of a folder of images into training and validation images.
        source: where the weights come from, in words.
    """

    image_size: int | None = None
    value_range: tuple[float, float] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    class_names: tuple[str, ...] | None = None
    running_variance: str | None = None
    split_seed: int | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        for name, minimum in (("image_size", 1), ("split_seed", 0)):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, integer(name, value, minimum))
        if not isinstance(self.source, str | None):
            raise bad("source", self.source, "a text or None")
        for name in ("value_range", "mean", "std", "class_names"):
            value = getattr(self, name)
            if value is not None:
                kind, what = (str, "names") if name == "class_names" else ((int, float), "numbers")
                listed = isinstance(value, (tuple, list))
                if not listed or not all(isinstance(item, kind) for item in value):
                    raise bad(name, value, f"a list of {what}")
                if kind is not str and not all(math.isfinite(item) for item in value):
                    raise bad(name, value, "finite numbers")
                if name == "std" and not all(item > 0 for item in value):
                    raise bad(name, value, "numbers above 0")
                if name == "value_range" and not (len(value) == 2 and value[0] < value[1]):
                    raise bad(name, value, "two numbers, the lower first")
                object.__setattr__(self, name, tuple(value))
        if self.running_variance not in (None, "biased", "unbiased"):
            raise bad("running_variance", self.running_variance, "'biased', 'unbiased' or None")

    def fits(self, spec: DenseNetSpec) -> Usage:
        """Return this usage; raise ``ConfigError`` if a list does not fit the network's size."""
        config = spec.config
        lengths = {"mean": config.in_channels, "std": config.in_channels}
        if config.num_classes:
            lengths["class_names"] = config.num_classes
        for name, length in lengths.items():
            value = getattr(self, name)
            if value is not None and len(value) != length:
                raise bad(name, value, f"{length} values for this network")
        return self


IMAGENET = Usage(image_size=224, value_range=(0.0, 1.0), mean=IMAGENET_MEAN, std=IMAGENET_STD)


@dataclass(frozen=True)
class Checkpoint:
    """A trained network in canonical names and layout, whatever file it was read from.

    Attributes:
        spec: the network.
        weights: {canonical name: array}, float32 or float64, in the manifest's order.
        usage: how to use them.
        notes: what is unusual, or was changed when it was read: sentences for the user.
    """

    spec: DenseNetSpec
    weights: Weights
    usage: Usage = field(default_factory=Usage)
    notes: tuple[str, ...] = ()
