"""Use a network in PyTorch: build it, place it on a device, predict with it."""

import math
from collections.abc import Callable
from copy import copy
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from .._checks import check_bfloat16
from .._inputs import check_complete, check_images
from ..backends import check_dtype, check_memory_efficient
from ..manifest import shape_trace
from ..spec import DenseNetSpec
from ..weights import init_weights
from .faster import for_inference, for_training
from .model import DenseNet
from .weights import dtype_of, import_weights, to_numpy

KEPT = 33_554_432  # bytes (32 MiB): the largest block that glibc reuses after it is freed


def build(
    spec: DenseNetSpec,
    *,
    seed: int = 0,
    dtype: str = "float32",
    memory_efficient: bool | Literal["some", "max"] = False,
) -> DenseNet:
    check_complete(spec)
    level = check_memory_efficient(memory_efficient)
    model = DenseNet(spec).to(getattr(torch, check_dtype(dtype)))
    import_weights(model, init_weights(spec, seed))
    return for_training(model, memory_efficient=level) if level else model


def optimize(model: DenseNet, *, bfloat16: bool = False) -> DenseNet:
    check_bfloat16(bfloat16, dtype_of(model))
    return for_inference(model, bfloat16=bfloat16)


def use_gpu(model: DenseNet) -> bool:
    if torch.cuda.is_available():
        model.to("cuda")
    return torch.cuda.is_available()


def predict(model: DenseNet, images: npt.ArrayLike) -> npt.NDArray[np.floating]:
    return to_numpy(_evaluate(model, _few_at_a_time, images))


def features(model: DenseNet, images: npt.ArrayLike) -> dict[str, npt.NDArray[np.floating]]:
    maps = _evaluate(model, _stages, images)
    return {stage: to_numpy(x) for stage, x in maps.items()}


def _stages(model: DenseNet, x: torch.Tensor) -> dict[str, torch.Tensor]:
    return model.features.stages(x)


def _few_at_a_time(model: DenseNet, x: torch.Tensor) -> torch.Tensor:
    """Predict in parts whose largest feature map fits into ``KEPT``: glibc requests every larger
    block from the OS again, page by page."""
    if x.device.type != "cpu":
        return model(x)
    largest = max(math.prod(shape) for _, shape in shape_trace(model.spec, *x.shape[2:]))
    return torch.cat([model(part) for part in x.split(max(1, KEPT // (largest * x.itemsize)))])


def _evaluate(
    model: DenseNet, function: Callable[[DenseNet, torch.Tensor], Any], images: npt.ArrayLike
) -> Any:
    x = check_images(model.spec, images, dtype_of(model))
    with torch.inference_mode():
        device = model.features.conv0.weight.device
        return function(in_evaluation(model), torch.tensor(x, device=device))


def in_evaluation(module: Any) -> Any:
    """Return the module if it is in evaluation mode, otherwise a shallow copy that is.

    The copy shares the module's tensors. PyTorch stores the mode in every module, so switching it
    would change what other threads compute. (Keras and Gluon get the mode with each call; Flax's
    jit passes a copy.) A compiled module is tied to its mode, so the module inside it is copied.
    """
    if not any(each.training for each in module.modules()):
        return module
    same = copy(getattr(module, "_orig_mod", module))  # torch.compile(model) wraps the model
    children = {n: child and in_evaluation(child) for n, child in vars(same)["_modules"].items()}
    vars(same).update(training=False, _modules=children)
    return same
