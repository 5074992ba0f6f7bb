"""Import and export canonical weights: Keras has its own tensor names and axis order."""

import math
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends import check_dtype
from ..manifest import ParameterCount, layers, tensors
from ..weights import Weights, check_weights
from .model import DenseNet

# kind of tensor -> Keras' name for the tensor, and the canonical axis at each of Keras' axes
NATIVE = {
    "conv.weight": ("kernel", (2, 3, 1, 0)),  # OIHW -> HWIO
    "conv.bias": ("bias", (0,)),
    "norm.weight": ("gamma", (0,)),
    "norm.bias": ("beta", (0,)),
    "norm.running_mean": ("moving_mean", (0,)),
    "norm.running_var": ("moving_variance", (0,)),
    "linear.weight": ("kernel", (1, 0)),  # (out, in) -> (in, out)
    "linear.bias": ("bias", (0,)),
}


def import_weights(model: DenseNet, weights: Mapping[str, npt.NDArray[np.floating]]) -> None:
    checked = check_weights(model.spec, weights, dtype_of(model))
    for name, (variable, axes) in native_variables(model).items():
        variable.assign(checked[name].transpose(axes))


def export_weights(model: DenseNet) -> Weights:
    native = native_variables(model)
    return {name: to_canonical(variable.numpy(), axes) for name, (variable, axes) in native.items()}


def count_parameters(model: DenseNet) -> ParameterCount:
    sizes = [(w.name, math.prod(w.shape)) for w in model.weights]  # frozen ones included
    statistics = sum(size for name, size in sizes if name.startswith("moving_"))
    return ParameterCount(sum(size for _, size in sizes) - statistics, statistics)


def dtype_of(model: DenseNet) -> str:
    name, _ = next(layers(model.spec))
    return check_dtype(attrgetter(name)(model).kernel.dtype)


def native_variables(model: DenseNet) -> dict[str, tuple[Any, tuple[int, ...]]]:
    found = {}
    for name, info in tensors(model.spec).items():
        leaf, axes = NATIVE[info.kind]
        layer = attrgetter(name.rpartition(".")[0])(model)
        found[name] = getattr(layer, leaf), axes
    return found


def to_canonical(array: npt.NDArray[np.generic], axes: tuple[int, ...]) -> npt.NDArray[np.floating]:
    return np.array(array.transpose(np.argsort(axes)), order="C")  # a copy: training changes array
