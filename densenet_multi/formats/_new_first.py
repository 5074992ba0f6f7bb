"""Convert DenseNets whose dense layers put new channels before old ones, as in pytorch-cifar.

Such a network computes ``torch.cat([new, old], 1)``; this package, ``torch.cat([old, new], 1)``.
Both compute the same function once later layers' input channels are reordered. No tensor shows
the order, but names do: see _other_names.py.
"""

from __future__ import annotations

from ..weights import Weights
from ._found import LEAVES
from .recognize import recognize


def old_first(weights: Weights) -> Weights:
    """Reorder the weights' input channels for dense layers that put old channels first.

    Raises ``WeightsError`` if these are not a DenseNet's tensors. Tensors of a wrong shape are
    returned unchanged: the check of all tensors reports them.
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
    """Return the positions of a block's channels, oldest first, in a map with the newest first.

    Arguments:
        first: channels of the block's input.
        growth: channels that each dense layer adds.
        before: dense layers that have already put their channels in front.
    """
    given = range(before * growth, before * growth + first)
    new = [range((before - i) * growth, (before - i + 1) * growth) for i in range(1, before + 1)]
    return [*given, *(at for layer in new for at in layer)]
