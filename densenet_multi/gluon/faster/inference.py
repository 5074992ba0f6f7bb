"""The network for inference only: nothing needs a gradient, nor a slice after a concatenation."""

from mxnet.gluon import contrib

from ..._checks import bad
from ..._fold import fill_folded, fold
from ..model import DenseNet
from ..weights import dtype_of, export_weights, new_model
from .exchange import exchange
from .training import JOINING


def for_inference(model: DenseNet, *, bfloat16: bool = False) -> DenseNet:
    if bfloat16:
        raise bad("bfloat16", True, "False: Gluon's network computes in float32 or float64")
    faster = new_model(*fold(model.spec, export_weights(model)), dtype_of(model))
    fill_folded(faster, contrib.nn.Identity)
    exchange(faster, JOINING).collect_params().setattr("grad_req", "null")
    faster.hybridize(static_alloc=True, static_shape=True)
    return faster
