"""What a Keras model's declaration says about a network: filled in while its graph is followed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .graph import Layer


@dataclass
class Declared:
    """What a declaration says about a network.

    Attributes:
        layers: {canonical layer: layer}.
        fields: of ``DenseNetConfig``, those that no tensor shows.
        before: the layers between the images and the stem, which prepare pixels.
        image_size: pixels per side; None: any.
        activation: see ``Usage``; None where the head was left out.
        end: the layer whose output this package's network gives.
        stored: {place: (mean, variance)} of a Normalization that the file keeps as weights.
        notes: sentences for the user.
        alone: what to type where the layers in ``before`` are not expressed.
    """

    layers: dict[str, Layer] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    before: list[Layer] = field(default_factory=list)
    image_size: int | None = None
    activation: str | None = None
    end: Layer | None = None
    stored: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    alone: str = ""
