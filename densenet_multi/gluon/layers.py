"""The spec's layers and operations in Gluon. Images are NCHW, kernels OIHW.

In ``hybrid_forward``, x is an NDArray, or a Symbol once the model is hybridized. Both have the
methods used here.
"""

from typing import Any

import mxnet as mx
from mxnet.gluon import nn

from ..spec import BatchNormSpec, ConvSpec, LinearSpec, PoolSpec


def conv(spec: ConvSpec) -> nn.HybridBlock:
    return nn.Conv2D(
        spec.out_channels,
        spec.kernel_size,
        strides=spec.stride,
        padding=spec.padding,
        use_bias=spec.bias,
        in_channels=spec.in_channels,
    )


def batch_norm(spec: BatchNormSpec) -> nn.HybridBlock:
    # Gluon's momentum is the weight of the old value, like the spec's decay. MXNet updates
    # the running statistics in the backward pass, not in the forward pass
    return nn.BatchNorm(epsilon=spec.eps, momentum=spec.decay, in_channels=spec.num_features)


def max_pool(spec: PoolSpec) -> nn.HybridBlock:
    return nn.MaxPool2D(spec.kernel_size, strides=spec.stride, padding=spec.padding)


def avg_pool(spec: PoolSpec) -> nn.HybridBlock:
    return nn.AvgPool2D(spec.kernel_size, strides=spec.stride)


def linear(spec: LinearSpec) -> nn.HybridBlock:
    return nn.Dense(spec.out_features, in_units=spec.in_features)


def dropout(rate: float) -> nn.HybridBlock:
    return nn.Dropout(rate)


def relu(x: Any) -> Any:
    # oneDNN computes Activation, but not x.relu(); Activation turns NaN into 0
    return operators(x).Activation(x, act_type="relu")


def concat(*maps: Any) -> Any:
    # the slice drops nothing, but avoids a oneDNN error: on some processors, the gradient of a
    # float32 concatenation fails with "could not construct a sub-memory" for some numbers of
    # channels, including those of the paper's CIFAR networks
    return operators(maps[0]).concat(*maps, dim=1).slice_axis(axis=0, begin=0, end=None)


def global_avg_pool(x: Any) -> Any:
    return x.mean(axis=(2, 3))


def global_max_pool(x: Any) -> Any:
    return x.max(axis=(2, 3))


def batch_norm_1d(spec: BatchNormSpec) -> nn.HybridBlock:
    return batch_norm(spec)  # Gluon's layer accepts rows (N, C), too


def operators(x: Any) -> Any:
    return mx.nd if isinstance(x, mx.nd.NDArray) else mx.sym


ACTIVATIONS: dict[str, Any] = {
    "relu": relu,
    "silu": lambda x: x * x.sigmoid(),
    "tanh": lambda x: x.tanh(),
}
