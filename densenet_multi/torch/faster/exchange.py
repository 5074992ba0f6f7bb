"""Replace the classes of modules with equivalent ones: see __init__.py."""

from collections.abc import Mapping

from ..model import DenseNet

Kinds = Mapping[type, type]


def exchange(model: DenseNet, kinds: Kinds) -> DenseNet:
    """Replace each module's class with the one that ``kinds`` maps it to, if any."""
    for module in model.modules():
        module.__class__ = kinds.get(type(module), type(module))
    return model
