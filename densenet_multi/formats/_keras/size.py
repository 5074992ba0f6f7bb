"""Track the size of a declared Keras model's feature map, and check strides and padding."""

from __future__ import annotations

from dataclasses import dataclass

from ...weights import WeightsError
from .graph import Layer
from .layers import OTHER, expect, same_padding


@dataclass
class MapSize:
    """The size of the current feature map, which is square.

    Attributes:
        size: pixels per side; None: not declared.
        is_same_here: whether some layer's padding="same" equals the paper's padding only at this
            size.
    """

    size: int | None = None
    is_same_here: bool = False

    def step(self, layer: Layer, zeros: int, kernel: int, stride: int, padding: int) -> None:
        """Check a layer's strides and padding, and update the size."""
        strides = layer.config.get("strides")
        if layer.kind == "MaxPooling2D" and strides is None:  # Keras' default
            strides = layer.config.get("pool_size")
        if strides not in ([stride, stride], stride) and (strides is not None or stride != 1):
            raise WeightsError(
                f"{layer}: expected strides {[stride, stride]}, found {strides}: {OTHER}"
            )
        found: object = zeros
        if layer.config.get("padding") == "same":
            pads = same_padding(self.size, kernel, stride)
            if pads == (padding, padding) and not zeros:
                found = padding
                self.is_same_here |= stride > 1
            else:
                known = f": {pads[0]} before and {pads[1]} after" if pads else ""
                found = f"SAME, which pads feature maps of even size unequally{known}"
        if found != padding:
            raise WeightsError(
                f"{layer}: expected zero padding of {padding}, found {found}: {OTHER}"
            )
        if self.size:
            self.size = (self.size + 2 * padding - kernel) // stride + 1

    def halve(self, pool: Layer) -> None:
        """Check a transition's pooling, and halve the size."""
        expect(pool, "pool_size", [2, 2])
        if pool.config.get("strides") is not None:
            expect(pool, "strides", [2, 2])
        expect(pool, "data_format", "channels_last")
        if pool.config.get("padding") == "same" and self.size and self.size % 2 == 0:
            self.is_same_here = True
        else:
            expect(pool, "padding", "valid")
        self.size = self.size // 2 if self.size else None
