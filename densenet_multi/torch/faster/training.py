"""The network for training: model.py's own classes, unless it has to save memory."""

from ...backends import Level
from ..model import DenseNet
from .exchange import Kinds, exchange
from .recompute import RECOMPUTING

TRAINING: dict[Level, Kinds] = {False: {}, **RECOMPUTING}


def for_training(model: DenseNet, *, memory_efficient: Level = False) -> DenseNet:
    return exchange(model, TRAINING[memory_efficient])
