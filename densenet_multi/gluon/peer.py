"""The DenseNet of MXNet's own project, the Gluon zoo: ``bench`` compares with it."""

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt
from mxnet.gluon.model_zoo import vision


def peer(variant: str, image_size: int) -> Callable[[Any], npt.NDArray[np.floating]] | None:
    make = getattr(vision, variant, None)
    if make is None or image_size != 224:  # its last pooling is 7x7
        return None
    model = make()
    model.initialize()
    model.hybridize(static_alloc=True, static_shape=True)

    def logits(x: Any) -> npt.NDArray[np.floating]:
        return model(mx.nd.from_numpy(x, zero_copy=False)).asnumpy()

    return logits
