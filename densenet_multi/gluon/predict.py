"""Use a network in Gluon: build it, place it on a device, predict with it."""

from threading import RLock
from typing import Any, Literal

import mxnet as mx
import numpy as np
import numpy.typing as npt

from .._checks import bad, truth
from .._inputs import check_complete, check_images
from ..backends import check_dtype, check_memory_efficient
from ..spec import DenseNetSpec
from ..weights import init_weights
from .faster import for_inference, for_training
from .model import DenseNet
from .weights import dtype_of, new_model, to_native

# A hybridized block builds its graph on its first call, which fails if two threads do it at once.
# MXNet computes asynchronously: threads wait for each other's calls, but not for the results.
ONE_AT_A_TIME = RLock()


def build(
    spec: DenseNetSpec,
    *,
    seed: int = 0,
    dtype: str = "float32",
    memory_efficient: bool | Literal["some", "max"] = False,
) -> DenseNet:
    check_complete(spec)
    level = check_memory_efficient(memory_efficient)
    model = new_model(spec, init_weights(spec, seed), check_dtype(dtype))
    return for_training(model, memory_efficient=level) if level else model


def optimize(model: DenseNet, *, bfloat16: bool = False) -> DenseNet:
    if truth("bfloat16", bfloat16):
        raise bad("bfloat16", True, "False: Gluon's model computes in float32 or float64")
    return for_inference(model)


def use_gpu(model: DenseNet) -> bool:  # noqa: ARG001  # a model is never moved
    return False  # MXNet's wheels are built for the CPU


def predict(model: DenseNet, images: npt.ArrayLike) -> npt.NDArray[np.floating]:
    x = _native_images(model, images)
    with mx.autograd.pause(train_mode=False), ONE_AT_A_TIME:  # also inside the caller's record()
        logits = model(x)
    return logits.asnumpy()


def features(model: DenseNet, images: npt.ArrayLike) -> dict[str, npt.NDArray[np.floating]]:
    x = _native_images(model, images)
    with mx.autograd.pause(train_mode=False), ONE_AT_A_TIME:
        maps = model.features.stages(mx.nd, x)
    return {stage: x.asnumpy() for stage, x in maps.items()}


def _native_images(model: DenseNet, images: npt.ArrayLike) -> Any:
    return to_native(check_images(model.spec, images, dtype_of(model)))
