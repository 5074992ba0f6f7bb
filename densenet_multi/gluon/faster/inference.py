"""An inference-only network: without gradients, concatenations can omit the slice of layers.py."""

from mxnet.gluon import contrib

from ..._fold import fill_folded, fold
from ..model import DenseBlock, DenseNet
from ..weights import dtype_of, export_weights, new_model
from .exchange import Kinds, exchange
from .training import JoiningBlock

INFERENCE: Kinds = {DenseBlock: JoiningBlock}


def for_inference(model: DenseNet) -> DenseNet:
    faster = new_model(*fold(model.spec, export_weights(model)), dtype_of(model))
    fill_folded(faster, contrib.nn.Identity)
    exchange(faster, INFERENCE).collect_params().setattr("grad_req", "null")
    faster.hybridize(static_alloc=True, static_shape=True)
    return faster
