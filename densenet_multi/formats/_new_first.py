"""DenseNets whose layers put their new channels before the old ones, as pytorch-cifar's do.

``torch.cat([new, old])`` is the same function as ``torch.cat([old, new])`` of this package, once
the channels that later layers read are sorted. No tensor tells which it is, but names do: see
_other_names.py.
"""

from __future__ import annotations

from ..weights import Weights
from ._found import LEAVES
from .recognize import recognize


def old_first(weights: Weights) -> Weights:
    """The same function's weights for layers that put old channels first.

    Raises ``WeightsError`` where these are no DenseNet's tensors. What does not fit is left for the
    check of all tensors.
    """
    spec = recognize({name: array.shape for name, array in weights.items()}).resolve()
    growth = spec.config.growth_rate
    found = dict(weights)
    for block, transition in spec.stages:
        readers = [
            (
                f"features.{block.name}.{layer.name}.norm1",
                f"features.{block.name}.{layer.name}.conv1",
            )
            for layer in block.layers
        ]
        after = f"features.{transition.name}" if transition else ""
        readers.append(
            (f"{after}.norm", f"{after}.conv") if transition else ("features.norm5", "classifier")
        )
        for before, (norm, reader) in enumerate(readers):
            order = _order(block.in_channels, growth, before)
            for leaf in LEAVES:
                name = f"{norm}.{leaf}"
                if name in found and found[name].shape == (len(order),):
                    found[name] = found[name][order]
            name = f"{reader}.weight"
            if name in found and found[name].shape[1:2] == (len(order),):
                found[name] = found[name][:, order]
    return found


def _order(first: int, growth: int, before: int) -> list[int]:
    """Where the channels of a block are, oldest first, in a map that has the newest first.

    Arguments:
        first: channels that the block was given.
        growth: channels of each layer.
        before: layers that have already put theirs in front.
    """
    given = range(before * growth, before * growth + first)
    new = [range((before - i) * growth, (before - i + 1) * growth) for i in range(1, before + 1)]
    return [*given, *(at for layer in new for at in layer)]
