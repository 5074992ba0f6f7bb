"""MXNet Gluon: a beginner's ``HybridBlock`` and ``Trainer``, and the DenseNet of the Gluon zoo."""

from collections.abc import Callable, Sequence
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt
from mxnet import autograd, gluon
from mxnet.gluon import nn
from mxnet.gluon.model_zoo import vision


class DenseLayer(nn.HybridBlock):
    def __init__(self, growth_rate: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm()  # infers its channels at the first call
        self.conv = nn.Conv2D(growth_rate, kernel_size=3, padding=1)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        new = self.conv(F.relu(self.norm(x)))
        return F.concat(x, new, dim=1)


class Transition(nn.HybridBlock):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm()
        self.conv = nn.Conv2D(channels, kernel_size=1)
        self.pool = nn.AvgPool2D(2)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.pool(self.conv(F.relu(self.norm(x))))


class BeginnersDenseNet(nn.HybridBlock):
    def __init__(self, growth_rate: int = 32, num_classes: int = 10) -> None:
        super().__init__()
        channels = 64
        self.stem = nn.HybridSequential()
        self.stem.add(
            nn.Conv2D(channels, kernel_size=7, strides=2, padding=3),
            nn.BatchNorm(),
            nn.Activation("relu"),
            nn.MaxPool2D(pool_size=3, strides=2, padding=1),
        )
        self.body = nn.HybridSequential()
        for stage in range(4):
            if stage > 0:
                channels //= 2
                self.body.add(Transition(channels))
            for _ in range(4):
                self.body.add(DenseLayer(growth_rate))
                channels += growth_rate
        self.norm = nn.BatchNorm()
        self.pool = nn.GlobalAvgPool2D()
        self.classifier = nn.Dense(num_classes)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = F.relu(self.norm(self.body(self.stem(x))))
        return self.classifier(self.pool(x))


def beginners_network(image_size: int) -> gluon.HybridBlock:
    network = BeginnersDenseNet()
    network.initialize()
    return network


def framework_network(variant: str, image_size: int) -> gluon.HybridBlock | None:
    make = getattr(vision, variant, None)
    if make is None or image_size != 224:  # its last pooling layer is fixed at 7x7
        return None
    network = make()
    network.initialize()
    network.hybridize(static_alloc=True, static_shape=True)
    return network


def use_gpu(network: Any) -> None:
    pass  # MXNet's wheels are built for the CPU


def train(
    network: Any,
    batches: Sequence[Any],
    learning_rate: float,
    after_step: Callable[[], object],
    parts: int = 1,
) -> None:
    network.hybridize(static_alloc=True)
    cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()
    parameters = network.collect_params()
    if parts > 1:
        for parameter in parameters.values():
            if parameter.grad_req != "null":  # of a running statistic
                parameter.grad_req = "add"  # instead of "write"
    trainer = gluon.Trainer(parameters, "sgd", {"learning_rate": learning_rate})
    for batch in batches:
        if parts > 1:
            parameters.zero_grad()
        for images, labels in zip(*(np.split(array, parts) for array in batch), strict=True):
            x = mx.nd.from_numpy(images, zero_copy=False)
            y = mx.nd.from_numpy(labels, zero_copy=False)
            with autograd.record():
                scores = network(x)
                losses = cross_entropy(scores, y)
            losses.backward()
            losses.sum().asscalar(), (scores.asnumpy().argmax(axis=1) == labels).sum()
        trainer.step(len(batch[0]))
        after_step()


def free_arrays_early(model: Any) -> None:
    # `fit` uses static allocation: every array keeps its own memory, so memory use is highest
    model.hybridize = lambda active=True, **_: type(model).hybridize(model, active)


def logits(network: Any, images: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return network(mx.nd.from_numpy(images, zero_copy=False)).asnumpy()


def finish() -> None:
    mx.nd.waitall()  # the loss is ready before the backward pass and the update are done


def peak_gpu_memory() -> int:
    raise NotImplementedError("MXNet's wheels support only CPUs")


def forget_peak_gpu_memory() -> None:
    pass
