"""Import and export canonical weights: the canonical names and axes are those of PyTorch."""

from collections.abc import Mapping
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import torch

from ..backends import check_dtype
from ..manifest import ParameterCount, layers, tensors
from ..weights import Weights, check_weights
from .model import DenseNet


def import_weights(model: DenseNet, weights: Mapping[str, npt.NDArray[np.floating]]) -> None:
    native = native_tensors(model)
    checked = check_weights(model.spec, weights, dtype_of(model))
    keys = {id(tensor): key for key, tensor in model.state_dict(keep_vars=True).items()}
    state = {
        keys[id(native[name])]: torch.tensor(np.ascontiguousarray(array))
        for name, array in checked.items()
    }
    model.load_state_dict(state, strict=False)  # weights omit each BatchNorm's batch counter


def export_weights(model: DenseNet) -> Weights:
    return {name: to_numpy(tensor) for name, tensor in native_tensors(model).items()}


def count_parameters(model: DenseNet) -> ParameterCount:
    trainable = sum(parameter.numel() for parameter in model.parameters())
    # excludes each BatchNorm's batch counter (an integer) and buffers that are not saved
    kept = model.state_dict().keys()
    buffers = [b for name, b in model.named_buffers() if name in kept and b.is_floating_point()]
    return ParameterCount(trainable, sum(buffer.numel() for buffer in buffers))


def dtype_of(model: DenseNet) -> str:
    name, _ = next(layers(model.spec))
    return check_dtype(str(attrgetter(name)(model).weight.dtype).removeprefix("torch."))


def to_numpy(tensor: torch.Tensor) -> npt.NDArray[np.floating]:
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()  # NumPy has no bfloat16
    return np.array(tensor.detach().cpu().numpy())  # a copy: training changes the tensor


def native_tensors(model: DenseNet) -> dict[str, torch.Tensor]:
    # by attribute, because torch.compile prefixes the names in a state_dict with "_orig_mod."
    return {name: attrgetter(name)(model) for name in tensors(model.spec)}
