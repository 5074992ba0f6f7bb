"""Training in NNX's own idiom: a step is a compiled pure function of the model's state."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from flax import nnx

from .._inputs import check_batch
from ..training.recipe import Recipe
from ..training.run import Run, fit_with
from ..weights import Weights
from .faster import for_training
from .model import DenseNet
from .predict import evaluate
from .weights import dtype_of, import_weights, precision, to_canonical, to_native


def loss_and_gradients(
    model: DenseNet, images: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[float, dict[str, npt.NDArray[np.floating]]]:
    x, y = check_batch(model.spec, images, labels, dtype_of(model))
    targets = np.eye(model.spec.config.num_classes, dtype=x.dtype)[y]
    with precision(dtype_of(model)):
        graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)
        batch = jnp.asarray(x.transpose(0, 2, 3, 1)), jnp.asarray(targets)
        (loss, (rest, _)), gradients = _step(graphdef, Recipe(), parameters, rest, batch)
        nnx.update(model, rest)  # running statistics and dropout's random state
    return loss.item(), to_canonical(model.spec, gradients)


@partial(jax.jit, static_argnums=(0, 1), static_argnames="fast")
@partial(jax.value_and_grad, argnums=2, has_aux=True)
def _step(
    graphdef: Any, recipe: Recipe, parameters: Any, rest: Any, batch: Any, *, fast: bool = False
) -> Any:
    x, targets = batch
    model = nnx.merge(graphdef, parameters, rest, copy=True)
    if recipe.train_features:
        model.train()
        if fast:
            for_training(model)  # swaps classes for faster ones, if faster/ has any
    else:
        model.eval()
    scores = in_bfloat16(model, x) if recipe.bfloat16 else model(x)
    loss = optax.softmax_cross_entropy(scores, targets).mean()
    return loss, (nnx.state(model, nnx.Not(trained(recipe))), scores)


def in_bfloat16(model: DenseNet, x: jax.Array) -> jax.Array:
    model.set_attributes(dtype=jnp.bfloat16)  # of outputs; parameters keep their dtype
    return model(x).astype(jnp.float32)


def trained(recipe: Recipe) -> Any:
    """Return an NNX filter for the variables that the recipe trains."""
    if recipe.train_features:
        return nnx.Param
    return nnx.All(nnx.Param, nnx.PathContains("classifier"))


@fit_with(Run, dtype_of, import_weights)
def fit(model: DenseNet, run: Run) -> None:
    recipe = run.recipe
    with precision(dtype_of(model)):
        graphdef, parameters, rest = nnx.split(model, trained(recipe), ...)
        velocity = nnx.clone(parameters)
        nnx.update(velocity, to_native(model.spec, run.velocity))
        optimizer = sgd(recipe).init(parameters)
        optimizer = optax.tree.set(optimizer, trace=velocity)
        # copied, because each step donates its input buffers to its output
        state = jax.tree.map(jnp.copy, (parameters, rest, optimizer))

        def logits(x: Any) -> npt.NDArray[np.floating]:
            x = jnp.asarray(x.transpose(0, 2, 3, 1))
            forward = in_bfloat16 if recipe.bfloat16 else DenseNet.__call__
            return np.asarray(evaluate(forward, nnx.merge(graphdef, *state[:2]), x))

        def snapshot() -> tuple[Weights, Weights]:
            weights = nnx.merge_state(*state[:2])  # copied below: the next step reuses the buffers
            velocity = optax.tree.get(state[2], "trace")
            return to_canonical(model.spec, weights), to_canonical(model.spec, velocity)

        with run.started(logits, snapshot):
            try:
                for _ in run.epochs_left:
                    for x, y, rate in run.batches():
                        batch = jnp.asarray(x.transpose(0, 2, 3, 1)), jnp.asarray(y)
                        state, loss, right = _update(graphdef, recipe, state, batch, rate)
                        run.record(loss.item(), right.item())
                    run.finish_epoch()
            finally:
                # an interrupted step has consumed its input; the model then keeps its old weights
                if not any(array.is_deleted() for array in jax.tree.leaves(state)):
                    nnx.update(model, *state[:2])


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _update(graphdef: Any, recipe: Recipe, state: Any, batch: Any, rate: Any) -> Any:
    parameters, rest, optimizer = state
    (loss, (rest, scores)), gradients = _step(graphdef, recipe, parameters, rest, batch, fast=True)
    steps, optimizer = sgd(recipe).update(gradients, optimizer, parameters)
    parameters = jax.tree.map(lambda w, step: w - rate * step, parameters, steps)
    return (
        (parameters, rest, optimizer),
        loss,
        jnp.mean(scores.argmax(axis=1) == batch[1].argmax(axis=1)),
    )


def sgd(recipe: Recipe) -> optax.GradientTransformation:
    """Return ``optax.sgd`` with weight decay, but without the learning rate."""
    return optax.chain(
        optax.add_decayed_weights(recipe.weight_decay),
        optax.trace(recipe.momentum, recipe.nesterov),
    )
