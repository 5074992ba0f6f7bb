"""What a Keras model's declaration states about a network, collected by following its graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .graph import Layer


@dataclass
class Declared:
    """What a declaration states about a network.

    Attributes:
        layers: {canonical layer name: declared layer}.
        fields: fields of ``DenseNetConfig`` that tensors do not reveal.
        before: the layers between the images and the stem, which preprocess pixels.
        image_size: pixels per side; None: any.
        activation: see ``Usage``; None if the head was ignored.
        end: the layer at which this package's network ends.
        stored: {place: (mean, variance)} of each Normalization whose values are stored as weights.
        notes: sentences for the user.
        alone: what to type if no ``Usage`` can express the layers in ``before``.
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
