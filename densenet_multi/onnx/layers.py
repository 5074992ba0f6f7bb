"""The spec's layers and operations as ONNX nodes. Images are NCHW, kernels OIHW."""

from typing import Any

from ..spec import BatchNormSpec, ConvSpec, LinearSpec, PoolSpec
from ._graph import Identity, Layer, Value


def conv(spec: ConvSpec) -> Layer:
    tensors = ("weight", "bias") if spec.bias else ("weight",)
    return Layer("Conv", *tensors, **_window(spec))


def batch_norm(spec: BatchNormSpec) -> Layer:
    # ONNX's momentum is the weight of the old value, like the spec's decay. Both attributes are
    # float32, whatever the type of the tensors: 1e-5 becomes 9.99999975e-06.
    tensors = ("weight", "bias", "running_mean", "running_var")
    return Layer("BatchNormalization", *tensors, epsilon=spec.eps, momentum=spec.decay)


def max_pool(spec: PoolSpec) -> Layer:
    return Layer("MaxPool", **_window(spec))  # padding is minus infinity


def avg_pool(spec: PoolSpec) -> Layer:
    # by default, ONNX's average excludes padding; the spec's counts it as zeros
    return Layer("AveragePool", **_window(spec), count_include_pad=1)


def linear(spec: LinearSpec) -> Layer:  # noqa: ARG001  # its size is that of its tensors
    return Layer("Gemm", "weight", "bias", transB=1)  # the weight is (out, in)


def dropout(rate: float) -> Identity:  # noqa: ARG001  # inference drops nothing
    return Identity()


def relu(x: Value) -> Value:
    parent, _, leaf = x.path.rpartition(".")
    return x.record("Relu", f"{parent}.{leaf.replace('norm', 'relu')}")


def concat(*maps: Value) -> Value:
    first, *others = maps
    parent, _, _ = others[-1].path.rpartition(".")
    names = (value.name for value in others)
    return first.record("Concat", f"{parent}.concat", *names, axis=1)


def global_avg_pool(x: Value) -> Value:
    return _flat(x.record("GlobalAveragePool", "global_pool"))


def global_max_pool(x: Value) -> Value:
    return _flat(x.record("GlobalMaxPool", "global_pool"))


def _flat(x: Value) -> Value:
    return x.record("Flatten", "flatten", axis=1)  # (N, C, 1, 1) to (N, C)


def _window(spec: ConvSpec | PoolSpec) -> dict[str, list[int]]:
    # four numbers of padding: top, left, bottom, right
    size, stride, padding = spec.kernel_size, spec.stride, spec.padding
    return {"kernel_shape": [size] * 2, "strides": [stride] * 2, "pads": [padding] * 4}


def cast(x: Value, path: str, kind: int) -> Value:
    return x.record("Cast", path, to=kind)


def softmax(x: Value) -> Value:
    return x.record("Softmax", "softmax", axis=1)


def sigmoid(x: Value) -> Value:
    return x.record("Sigmoid", "sigmoid")


ACTIVATIONS: dict[str, Any] = {"softmax": softmax, "sigmoid": sigmoid}
