"""DenseNet in MXNet Gluon: ``import densenet_multi.gluon as dg``."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import bad
from .._fold import fold
from .._inputs import check_images
from ..backends import check_dtype, check_memory_efficient, framework
from ..spec import DenseNetSpec
from ..weights import Weights, init_weights

WHEELS = " (MXNet 1.9.1 has wheels for Linux and for macOS on Intel)"

with framework("gluon", "mxnet", note=WHEELS):
    # MXNet 1.9.1 reads numpy.bool, now and whenever it runs; NumPy 1.24 removed it. Nothing else
    # in this package relies on it. https://github.com/apache/mxnet/issues/21165
    if "bool" not in np.__dict__:
        np.__dict__["bool"] = np.bool_

    # MXNet takes every other CPU, for those that are half a core
    smt = Path("/sys/devices/system/cpu/smt/active")
    if smt.exists() and smt.read_text(encoding="ascii").strip() == "0":
        os.environ.setdefault("MXNET_OMP_MAX_THREADS", str(os.cpu_count()))
    # and copies large arrays with OpenMP threads besides those that calculate; together more than
    # CPUs, they all sleep whenever they wait, which takes as long as an operation on one image
    os.environ.setdefault("MXNET_CPU_PARALLEL_SIZE", str(2**31 - 1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports through deprecated names of NumPy
        import mxnet as mx

    from .faster.inference import OptimizedDenseNet
    from .faster.recompute import RecomputingDenseNet, WholeDenseNet
    from .model import DenseBlock, DenseLayer, DenseNet, Features, Stem, Transition
    from .train import fit, loss_and_gradients
    from .weights import count_parameters, dtype_of, export_weights, import_weights, to_native

NAME = "gluon"
FRAMEWORK = "MXNet Gluon"
RUNNING_VARIANCE = "biased"

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
    if bfloat16:
        raise bad("bfloat16", True, "False: Gluon's network computes in float32 or float64")
    folded = _made(OptimizedDenseNet, *fold(model.spec, export_weights(model)), dtype_of(model))
    folded.collect_params().setattr("grad_req", "null")
    folded.hybridize(static_alloc=True, static_shape=True)
    return folded


def _made(kind: type[DenseNet], spec: DenseNetSpec, weights: Weights, dtype: str) -> DenseNet:
    with mx.name.NameManager():  # names, and so exported files, independent of earlier models
        model = kind(spec)
    model.cast(dtype)
    model.initialize(mx.init.Zero())  # every tensor is about to be overwritten
    import_weights(model, weights)
    return model


def use_gpu(model: DenseNet) -> bool:
    return False  # MXNet's wheels are builds for the CPU


def predict(model: DenseNet, images: npt.ArrayLike) -> npt.NDArray[np.floating]:
    x = _native_images(model, images)
    with mx.autograd.pause(train_mode=False):  # also inside the caller's record()
        return model(x).asnumpy()


def features(model: DenseNet, images: npt.ArrayLike) -> dict[str, npt.NDArray[np.floating]]:
    x = _native_images(model, images)
    with mx.autograd.pause(train_mode=False):
        maps = model.features.stages(mx.nd, x)
    return {stage: x.asnumpy() for stage, x in maps.items()}


def _native_images(model: DenseNet, images: npt.ArrayLike) -> Any:
    return to_native(check_images(model.spec, images, dtype_of(model)))
