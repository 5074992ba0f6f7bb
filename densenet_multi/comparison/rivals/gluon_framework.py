"""The DenseNet of MXNet's own project, the Gluon zoo: ``bench`` compares with it."""

from collections.abc import Callable, Iterable
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt
from mxnet import autograd, gluon
from mxnet.gluon.model_zoo import vision

__all__ = ["calculated", "logits", "peer_net", "train"]


def peer_net(variant: str, image_size: int) -> gluon.HybridBlock | None:
    make = getattr(vision, variant, None)
    if make is None or image_size != 224:  # its last pooling is 7x7
        return None
    net = make()
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    return net


def logits(net: Any, x: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return net(mx.nd.from_numpy(x, zero_copy=False)).asnumpy()


def train(net: Any, batches: Iterable[Any], lr: float, hear: Callable[[], object]) -> None:
    net.hybridize(static_alloc=True)  # the chapter's loop needs mx.np, which the zoo does not take
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": lr})
    for images, labels in batches:
        x, y = mx.nd.from_numpy(images, zero_copy=False), mx.nd.from_numpy(labels, zero_copy=False)
        with autograd.record():
            scores = net(x)
            losses = loss(scores, y)
        losses.backward()
        trainer.step(len(images))
        losses.sum().asscalar(), (scores.asnumpy().argmax(axis=1) == labels).sum()
        hear()


def calculated() -> None:
    mx.nd.waitall()  # backward passes and updates go on after their calls have returned
