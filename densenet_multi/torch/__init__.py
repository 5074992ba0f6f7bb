"""DenseNet in PyTorch: ``import densenet_multi.torch as dt``."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .._fold import fold
from .._inputs import check_images
from ..backends import check_bfloat16, check_dtype, check_memory_efficient, framework
from ..manifest import shape_trace
from ..spec import DenseNetSpec
from ..weights import Weights, init_weights

with framework("torch", "torch"):
    import torch

    from .faster.inference import OptimizedDenseNet
    from .faster.recompute import RecomputingDenseNet, WholeDenseNet
    from .model import DenseBlock, DenseLayer, DenseNet, Features, Stem, Transition
    from .train import fit, in_mode, loss_and_gradients
    from .weights import count_parameters, dtype_of, export_weights, import_weights, to_numpy

NAME = "torch"
FRAMEWORK = "PyTorch"
RUNNING_VARIANCE = "unbiased"
KEPT = 33_554_432  # bytes, 32 MiB

__all__ = [
    "FRAMEWORK",
    "NAME",
    "RUNNING_VARIANCE",
    "DenseBlock",
    "DenseLayer",
    "DenseNet",
    "Features",
    "Stem",
    "Transition",
    "build",
    "count_parameters",
    "export_weights",
    "features",
    "fit",
    "import_weights",
    "loss_and_gradients",
    "optimize",
    "predict",
    "use_gpu",
]


def build(
    spec: DenseNetSpec,
    *,
    seed: int = 0,
    dtype: str = "float32",
    memory_efficient: bool | str = False,
) -> DenseNet:
    kinds = {False: DenseNet, True: RecomputingDenseNet, "max": WholeDenseNet}
    kind = kinds[check_memory_efficient(memory_efficient)]
    return _made(kind, spec, init_weights(spec, seed), check_dtype(dtype))


def optimize(model: DenseNet, *, bfloat16: bool = False) -> DenseNet:
    dtype = check_bfloat16(bfloat16, dtype_of(model))
    kind = partial(OptimizedDenseNet, bfloat16=bfloat16)
    folded = _made(kind, *fold(model.spec, export_weights(model)), dtype)
    device = model.features.conv0.weight.device
    # kernels lie in memory as oneDNN and cuDNN like them; maps follow
    return folded.to(device, memory_format=torch.channels_last).requires_grad_(False).eval()


def _made(
    kind: Callable[..., DenseNet], spec: DenseNetSpec, weights: Weights, dtype: str
) -> DenseNet:
    model = kind(spec).to(getattr(torch, dtype))
    import_weights(model, weights)
    return model


def use_gpu(model: DenseNet) -> bool:
    if torch.cuda.is_available():
        model.to("cuda")
    return torch.cuda.is_available()


def predict(model: DenseNet, images: npt.ArrayLike) -> npt.NDArray[np.floating]:
    return to_numpy(_evaluate(model, partial(_in_parts, model), images))


def features(model: DenseNet, images: npt.ArrayLike) -> dict[str, npt.NDArray[np.floating]]:
    maps = _evaluate(model, model.features.stages, images)
    return {stage: to_numpy(x) for stage, x in maps.items()}


def _in_parts(model: DenseNet, x: torch.Tensor) -> torch.Tensor:
    """On a CPU, PyTorch keeps no memory: what is larger than ``KEPT``, glibc gets from the system
    anew each time, page by page."""
    if x.device.type != "cpu":
        return model(x)
    largest = max(math.prod(shape) for _, shape in shape_trace(model.spec, *x.shape[2:]))
    return torch.cat([model(part) for part in x.split(max(1, KEPT // (largest * x.itemsize)))])


def _evaluate(
    model: DenseNet, function: Callable[[torch.Tensor], Any], images: npt.ArrayLike
) -> Any:
    x = check_images(model.spec, images, dtype_of(model))
    with in_mode(model, training=False), torch.inference_mode():
        return function(torch.tensor(x, device=model.features.conv0.weight.device))
