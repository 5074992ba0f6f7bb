"""Use a network in Flax NNX: build it, place it on a device, predict with it."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from .._checks import check_bfloat16
from .._inputs import check_complete, check_images
from ..backends import check_dtype, check_memory_efficient
from ..manifest import shape_trace
from ..spec import DenseNetSpec
from ..weights import init_weights
from .faster import for_inference, for_training
from .model import DenseNet
from .weights import dtype_of, new_model, precision


def build(
    spec: DenseNetSpec,
    *,
    seed: int = 0,
    dtype: str = "float32",
    memory_efficient: bool | Literal["some", "max"] = False,
) -> DenseNet:
    check_complete(spec)
    level = check_memory_efficient(memory_efficient)
    model = new_model(spec, init_weights(spec, seed), check_dtype(dtype), seed)
    return for_training(model, memory_efficient=level) if level else model


def optimize(model: DenseNet, *, bfloat16: bool = False) -> DenseNet:
    check_bfloat16(bfloat16, dtype_of(model))
    return for_inference(model, bfloat16=bfloat16)


def use_gpu(model: DenseNet) -> bool:  # noqa: ARG001  # JAX has already placed it
    return jax.default_backend() == "gpu"


def predict(model: DenseNet, images: npt.ArrayLike) -> npt.NDArray[np.floating]:
    return _evaluate(DenseNet.__call__, model, images)


def features(model: DenseNet, images: npt.ArrayLike) -> dict[str, npt.NDArray[np.floating]]:
    maps = _evaluate(_stages, model, images)
    stages = shape_trace(model.spec, *np.shape(images)[2:])  # jit sorts the keys of ``maps``
    return {stage: maps[stage].transpose(0, 3, 1, 2) for stage, _ in stages}


@partial(jax.jit, static_argnums=0)  # eager JAX is several times slower
def evaluate(function: Callable[..., Any], model: DenseNet, x: jax.Array) -> Any:
    model.eval()  # jit passes a copy; the caller's model keeps its mode
    return function(model, x)


def _evaluate(
    function: Callable[[DenseNet, Any], Any], model: DenseNet, images: npt.ArrayLike
) -> Any:
    x = check_images(model.spec, images, dtype_of(model)).transpose(0, 2, 3, 1)
    with precision(dtype_of(model)):
        found = evaluate(function, model, jnp.asarray(x))
        return jax.tree.map(partial(np.array, dtype=dtype_of(model)), found)


def _stages(model: DenseNet, x: jax.Array) -> dict[str, jax.Array]:
    return model.features.stages(x)
