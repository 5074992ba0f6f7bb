"""Replace the classes of blocks by ones that compute the same function: see __init__.py."""

from collections.abc import Mapping
from typing import Any, TypeVar

from mxnet.gluon import Block

Kinds = Mapping[type, type]
Model = TypeVar("Model", bound=Block)  # a network or one of its dense blocks


def exchange(model: Model, kinds: Kinds) -> Model:
    """Give each block whose class is a key of ``kinds`` the class that it maps to."""

    def change(block: Any) -> None:
        block.__class__ = kinds.get(type(block), type(block))

    return model.apply(change)
