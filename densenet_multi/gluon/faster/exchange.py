"""Replace the classes of blocks with equivalent ones: see __init__.py."""

from collections.abc import Mapping
from typing import Any, TypeVar

from mxnet.gluon import Block

Kinds = Mapping[type, type]
Model = TypeVar("Model", bound=Block)  # a network or one of its dense blocks


def exchange(model: Model, kinds: Kinds) -> Model:
    """Replace each block's class with the one that ``kinds`` maps it to, if any."""

    def change(block: Any) -> None:
        block.__class__ = kinds.get(type(block), type(block))

    return model.apply(change)
