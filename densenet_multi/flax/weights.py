"""Import and export canonical weights: Flax NNX has its own tensor names and axis order."""

from collections.abc import Mapping
from contextlib import nullcontext
from operator import attrgetter
from typing import Any

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from ..backends import check_dtype
from ..manifest import AnySpec, ParameterCount, layers, tensors
from ..weights import Weights, check_weights
from .model import DenseNet

# kind of tensor -> Flax's name for the tensor, and the canonical axis at each of Flax's axes
NATIVE = {
    "conv.weight": ("kernel", (2, 3, 1, 0)),  # OIHW -> HWIO
    "conv.bias": ("bias", (0,)),
    "norm.weight": ("scale", (0,)),
    "norm.bias": ("bias", (0,)),
    "norm.running_mean": ("mean", (0,)),
    "norm.running_var": ("var", (0,)),
    "linear.weight": ("kernel", (1, 0)),  # (out, in) -> (in, out)
    "linear.bias": ("bias", (0,)),
}


def import_weights(model: DenseNet, weights: Mapping[str, npt.NDArray[np.floating]]) -> None:
    checked = check_weights(model.spec, weights, dtype_of(model))
    with precision(dtype_of(model)):
        nnx.update(model, to_native(model.spec, checked))


def export_weights(model: DenseNet) -> Weights:
    return to_canonical(model.spec, model)


def count_parameters(model: DenseNet) -> ParameterCount:
    def count(kind: type) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, kind)))

    return ParameterCount(count(nnx.Param), count(nnx.BatchStat))


def dtype_of(model: DenseNet) -> str:
    name, _ = next(layers(model.spec))
    return check_dtype(str(attrgetter(name)(model).kernel.dtype))


def new_model(
    spec: AnySpec, weights: Weights, dtype: str, seed: int = 0, kind: Any = DenseNet
) -> Any:
    def native() -> Any:
        return kind(spec, rngs=nnx.Rngs(int(seed) % 2**32))  # for dropout; JAX uses 32 bits

    with precision(dtype):
        model = nnx.eval_shape(native)  # native() would compile an initializer for each shape
        values = {name: array.astype(dtype) for name, array in weights.items()}
        nnx.update(model, to_native(spec, values))
        if spec.config.drop_rate:  # the weights do not include dropout's random state
            nnx.update(model, jax.jit(lambda: nnx.state(native(), nnx.RngState))())
    return model


def precision(dtype: str) -> Any:
    """Return a context manager that enables a dtype; JAX otherwise turns float64 into float32."""
    if dtype != "float64":
        return nullcontext()
    if hasattr(jax, "enable_x64"):  # JAX 0.8 and later
        return jax.enable_x64(True)
    return jax.experimental.enable_x64()


def to_native(spec: AnySpec, values: Weights) -> dict[str, Any]:
    """Nest canonical weights as NNX does: {"features": {"conv0": {"kernel": ...}, ...}, ...}."""
    tree: dict[str, Any] = {}
    for name in values:
        leaf, axes = NATIVE[tensors(spec)[name].kind]
        *layers, _ = name.split(".")
        branch = tree
        for layer in layers:
            branch = branch.setdefault(layer, {})
        branch[leaf] = jnp.array(values[name].transpose(axes))  # a copy, unlike asarray
    return tree


def to_canonical(spec: AnySpec, tree: Any) -> Weights:
    """Return the arrays of a model, or of a state with some of its variables, by canonical name."""
    found = {}
    for name, info in tensors(spec).items():
        leaf, axes = NATIVE[info.kind]
        try:
            value = attrgetter(f"{name.rpartition('.')[0]}.{leaf}")(tree)
        except AttributeError:  # a state may lack some variables
            continue
        array = np.asarray(value[...]).transpose(np.argsort(axes))
        found[name] = np.array(array, order="C")  # a copy: training reuses the buffer
    return found
