"""Replace the classes of modules with equivalent ones: see __init__.py."""

from collections.abc import Mapping

from flax import nnx

from ..model import DenseNet

Kinds = Mapping[type, type]


def exchange(model: DenseNet, kinds: Kinds) -> DenseNet:
    """Replace each module's class with the one that ``kinds`` maps it to, if any."""
    for _, node in nnx.iter_graph(model):
        if type(node) in kinds:
            node.__class__ = kinds[type(node)]
    return model
