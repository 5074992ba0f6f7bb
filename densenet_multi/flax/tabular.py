"""A DenseNet of fully connected layers in Flax NNX: see ../tabular.py and, for images, model.py."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax import Array

from ..backends import TabularBackend, check_dtype, publish
from ..tabular import TabularLayerSpec, TabularSpec, check_row_batch, check_rows, check_tabular_spec
from ..training.recipe import Recipe
from ..training.rows import RowRun
from ..training.run import fit_with
from ..weights import Weights, init_weights
from .layers import ACTIVATIONS, batch_norm_1d, concat, dropout, linear
from .predict import evaluate
from .train import sgd
from .weights import (  # noqa: F401
    count_parameters,
    dtype_of,
    export_weights,
    import_weights,
    new_model,
    precision,
    to_canonical,
)


class TabularLayer(nnx.Module):
    def __init__(self, spec: TabularLayerSpec, *, rngs: nnx.Rngs) -> None:
        self.spec = spec
        self.norm = batch_norm_1d(spec.norm, rngs=rngs) if spec.norm else None
        self.activation = ACTIVATIONS[spec.activation]
        self.linear = linear(spec.linear, rngs=rngs)
        self.dropout = dropout(spec.drop_rate, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.norm(x) if self.norm is not None else x
        return self.dropout(self.linear(self.activation(x)))  # N, k


class TabularNet(nnx.Module):
    def __init__(self, spec: TabularSpec, *, rngs: nnx.Rngs | None = None) -> None:
        rngs = rngs or nnx.Rngs(0)
        self.spec = spec
        self.stem = linear(spec.stem, rngs=rngs)
        for layer in spec.layers:
            setattr(self, layer.name, TabularLayer(layer, rngs=rngs))

    def __call__(self, x: Array) -> Array:
        x = self.stem(x)
        for layer in self.spec.layers:
            new = getattr(self, layer.name)(x)
            x = concat(x, new) if layer.concatenate else new
        return x  # N, 1


def build(spec: TabularSpec, *, seed: int = 0, dtype: str = "float32") -> TabularNet:
    weights = init_weights(check_tabular_spec(spec), seed, "xavier")
    return new_model(spec, weights, check_dtype(dtype), seed, TabularNet)


def predict(model: TabularNet, rows: Any) -> npt.NDArray[Any]:
    x = check_rows(model.spec, rows, dtype_of(model))
    with precision(dtype_of(model)):
        return np.array(evaluate(TabularNet.__call__, model, jnp.asarray(x)))[:, 0]


def loss_and_gradients(model: TabularNet, rows: Any, targets: Any) -> tuple[float, Weights]:
    batch = check_row_batch(model.spec, rows, targets, dtype_of(model))
    with precision(dtype_of(model)):
        (loss, rest), gradients = _step(*nnx.split(model, nnx.Param, ...), *batch)
        nnx.update(model, rest)  # running statistics and dropout's random state
    return loss.item(), to_canonical(model.spec, gradients)


@partial(jax.jit, static_argnums=0)
@partial(jax.value_and_grad, argnums=1, has_aux=True)
def _step(graphdef: Any, parameters: Any, rest: Any, x: Any, y: Any) -> Any:
    model = nnx.merge(graphdef, parameters, rest, copy=True)
    model.train()
    return jnp.mean((model(x) - y) ** 2), nnx.state(model, nnx.Not(nnx.Param))


@fit_with(RowRun, dtype_of, import_weights)
def fit(model: TabularNet, run: RowRun) -> None:
    with precision(dtype_of(model)):
        graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)
        state = parameters, rest, sgd(run.recipe).init(parameters)
        recipe = replace(run.recipe, seed=0, epochs=1)  # a compiled step serves other runs, too
        with run.started(lambda x: predict(model, x), lambda: (export_weights(model), {})):
            for _ in run.epochs_left:
                for x, y, rate in run.batches():
                    state, loss = _update(graphdef, recipe, state, (x, y), rate)
                    run.record(loss.item())
                nnx.update(model, *state[:2])
                run.finish_epoch()


@partial(jax.jit, static_argnums=(0, 1))
def _update(graphdef: Any, recipe: Recipe, state: Any, batch: Any, rate: Any) -> Any:
    parameters, rest, optimizer = state
    (loss, rest), gradients = _step(graphdef, parameters, rest, *batch)
    steps, optimizer = sgd(recipe).update(gradients, optimizer, parameters)
    return (jax.tree.map(lambda w, step: w - rate * step, parameters, steps), rest, optimizer), loss


publish(globals(), TabularBackend)  # help() shows the docstrings of backends.py
