"""Replace the classes of layers with equivalent ones: see __init__.py."""

from collections.abc import Mapping

from ..model import DenseNet

Kinds = Mapping[type, type]


def exchange(model: DenseNet, kinds: Kinds) -> DenseNet:
    """Replace each layer's class with the one that ``kinds`` maps it to, if any."""
    for layer in model._flatten_layers():  # noqa: SLF001  # no public equivalent
        # bypasses Keras' __setattr__, which tracks a layer's attributes
        object.__setattr__(layer, "__class__", kinds.get(type(layer), type(layer)))
    return model
