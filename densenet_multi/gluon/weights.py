"""Import and export canonical weights: Gluon has its own tensor names, and the canonical axes."""

import math
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt
from mxnet import gluon

from ..backends import BackendError, check_dtype
from ..manifest import AnySpec, ParameterCount, layers, tensors
from ..weights import Weights, check_weights
from .model import DenseNet

# kind of tensor -> Gluon's name for the tensor
NATIVE = {
    "conv.weight": "weight",
    "conv.bias": "bias",
    "norm.weight": "gamma",
    "norm.bias": "beta",
    "norm.running_mean": "running_mean",
    "norm.running_var": "running_var",
    "linear.weight": "weight",
    "linear.bias": "bias",
}


def import_weights(model: DenseNet, weights: Mapping[str, npt.NDArray[np.floating]]) -> None:
    checked = check_weights(model.spec, weights, dtype_of(model))
    for name, parameter in native_parameters(model).items():
        parameter.set_data(to_native(checked[name]))


def export_weights(model: DenseNet) -> Weights:
    return {name: p.data().asnumpy() for name, p in native_parameters(model).items()}


def count_parameters(model: DenseNet) -> ParameterCount:
    sizes = {name: math.prod(p.shape) for name, p in model.collect_params().items()}
    statistics = sum(size for name, size in sizes.items() if "_running_" in name)
    return ParameterCount(sum(sizes.values()) - statistics, statistics)


def dtype_of(model: DenseNet) -> str:
    name, _ = next(layers(model.spec))
    weight = attrgetter(name)(model).weight
    try:
        weight.list_ctx()
    except RuntimeError:
        raise BackendError(
            "model: expected initialized parameters, found none; call model.initialize() first"
        ) from None
    return check_dtype(np.dtype(weight.dtype).name)


def native_parameters(model: DenseNet) -> dict[str, gluon.Parameter]:
    found = {}
    for name, info in tensors(model.spec).items():
        layer = attrgetter(name.rpartition(".")[0])(model)
        found[name] = getattr(layer, NATIVE[info.kind])
    return found


def new_model(spec: AnySpec, weights: Weights, dtype: str, kind: Any = DenseNet) -> Any:
    with mx.name.NameManager():  # names (also in exported files) do not depend on earlier models
        model = kind(spec)
    model.cast(dtype)
    model.initialize(mx.init.Zero())  # every tensor is about to be overwritten
    import_weights(model, weights)
    return model


def to_native(array: npt.NDArray[np.generic]) -> mx.nd.NDArray:
    # mx.nd.array would warn if SciPy is installed
    return mx.nd.from_numpy(np.ascontiguousarray(array), zero_copy=False)
