"""DenseNet in Flax NNX: ``import densenet_multi.flax as df``."""

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

with framework("flax", "flax", "jax", "optax"):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from .faster.inference import OptimizedDenseNet
    from .faster.recompute import RecomputingDenseNet, WholeDenseNet
    from .model import DenseBlock, DenseLayer, DenseNet, Features, Stem, Transition
    from .train import evaluate, fit, loss_and_gradients
    from .weights import (
        count_parameters,
        dtype_of,
        export_weights,
        import_weights,
        precision,
        to_native,
    )

NAME = "flax"
FRAMEWORK = "Flax NNX"
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
    return _made(kind, spec, init_weights(spec, seed), check_dtype(dtype), seed)


def optimize(model: DenseNet, *, bfloat16: bool = False) -> DenseNet:
    dtype = check_bfloat16(bfloat16, dtype_of(model))
    folded = _made(OptimizedDenseNet, *fold(model.spec, export_weights(model)), dtype)
    if bfloat16:
        folded.features.set_attributes(dtype=jnp.bfloat16)  # of what comes out of each layer
    folded.eval()
    return folded


def _made(
    kind: type[DenseNet], spec: DenseNetSpec, weights: Weights, dtype: str, seed: int = 0
) -> DenseNet:
    def native() -> DenseNet:
        return kind(spec, rngs=nnx.Rngs(seed))

    with precision(dtype):
        model = nnx.eval_shape(native)  # running it would compile one initialiser for every shape
        values = {name: array.astype(dtype) for name, array in weights.items()}
        nnx.update(model, to_native(spec, values))
        if spec.config.drop_rate:  # dropout's random state is not among the weights
            nnx.update(model, jax.jit(lambda: nnx.state(native(), nnx.RngState))())
    return model


def use_gpu(model: DenseNet) -> bool:
    return jax.default_backend() == "gpu"  # arrays are made there


def predict(model: DenseNet, images: npt.ArrayLike) -> npt.NDArray[np.floating]:
    return _evaluate(DenseNet.__call__, model, images)


def features(model: DenseNet, images: npt.ArrayLike) -> dict[str, npt.NDArray[np.floating]]:
    maps = _evaluate(_stages, model, images)
    stages = shape_trace(model.spec, *np.shape(images)[2:])  # jit returns dictionaries sorted
    return {stage: maps[stage].transpose(0, 3, 1, 2) for stage, _ in stages}


def _evaluate(
    function: Callable[[DenseNet, Any], Any], model: DenseNet, images: npt.ArrayLike
) -> Any:
    x = check_images(model.spec, images, dtype_of(model)).transpose(0, 2, 3, 1)
    with precision(dtype_of(model)):
        found = evaluate(function, model, jnp.asarray(x))
        return jax.tree.map(partial(np.array, dtype=dtype_of(model)), found)


def _stages(model: DenseNet, x: jax.Array) -> dict[str, jax.Array]:
    return model.features.stages(x)
