"""MXNet Gluon, asked by the functions of ``Framework``."""

from typing import Any

import mxnet as mx  # probe_child.py has loaded the backend, which makes it importable
import numpy.typing as npt
from mxnet import autograd, nd
from mxnet.gluon import nn

Array = npt.NDArray[Any]


def _batch(image: Array) -> nd.NDArray:
    return nd.array(image)[None, None]


def _map(x: nd.NDArray) -> Array:
    return x[0, 0].asnumpy()


def same(image: Array, kernel: Array) -> Array | None:
    try:
        nn.Conv2D(1, len(kernel), strides=2, padding="same")(_batch(image))
    except (TypeError, ValueError, mx.MXNetError, AssertionError):
        return None
    raise NotImplementedError("Gluon accepts padding='same' now: apply it to the kernel")


def average_pool(image: Array) -> Array:
    return _map(nn.AvgPool2D(2)(_batch(image)))


def padded_average_pool(image: Array) -> Array:
    return _map(nn.AvgPool2D(3, padding=1)(_batch(image)))


def padded_max_pool(image: Array) -> Array:
    return _map(nn.MaxPool2D(3, 2, padding=1)(_batch(image)))


def normalized(x: float, epsilon: float | None) -> float:
    norm = nn.BatchNorm(**({} if epsilon is None else {"epsilon": epsilon}))
    norm.initialize()
    norm(nd.array([[0.0]]))
    norm.running_var.set_data(nd.zeros(1))
    return float(norm(nd.array([[x]])).asnumpy()[0, 0])


def statistics(batch: Array, *, backward: bool) -> tuple[float, float]:
    norm = nn.BatchNorm()
    norm.initialize()
    with autograd.record():
        y = norm(nd.array(batch)[:, None])
    if backward:
        y.backward()
    nd.waitall()
    return norm.running_mean.data().asscalar(), norm.running_var.data().asscalar()


def kernel_shape(channels: int, filters: int, height: int, width: int) -> Any:
    return nn.Conv2D(filters, (height, width), in_channels=channels).weight.shape


def linear_shape(inputs: int, outputs: int) -> Any:
    return nn.Dense(outputs, in_units=inputs).weight.shape


def relu(x: Array) -> Array:
    return nn.Activation("relu")(nd.array(x)).asnumpy()


def dropout(x: Array) -> Array:
    with autograd.train_mode():
        return nn.Dropout(0.5)(nd.array(x)).asnumpy()


def resized(image: Array, size: int) -> Array:
    pixels = nd.array(image[:, :, None], dtype=image.dtype)
    return nd.image.resize(pixels, (size, size), interp=1).asnumpy()[:, :, 0]


def product(a: Array, b: Array) -> Array:
    return nd.dot(nd.array(a), nd.array(b)).asnumpy()
