"""The network for training. Keras trains model.py's text as it is, unless memory is scarce."""

from ..model import DenseNet
from .exchange import Kinds, exchange
from .recompute import RECOMPUTING

TRAINING: dict[bool | str, Kinds] = {False: {}, **RECOMPUTING}


def for_training(model: DenseNet, *, memory_efficient: bool | str = False) -> DenseNet:
    return exchange(model, TRAINING[memory_efficient])
