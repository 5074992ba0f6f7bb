"""Training in NNX's own idiom: steps are pure functions of the model's state, compiled."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from flax import nnx

from ..history import History
from ..inputs import check_images, check_labels
from ..recipe import Recipe
from ..training import Callback, Data, Training
from .model import DenseNet
from .weights import dtype_of, precision, to_canonical


def loss_and_gradients(
    model: DenseNet, images: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[float, dict[str, npt.NDArray[np.floating]]]:
    x = check_images(model.spec, images, dtype_of(model)).transpose(0, 2, 3, 1)
    y = check_labels(labels, len(x), model.spec.config.num_classes)
    with precision(dtype_of(model)):
        graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)
        (loss, (rest, _)), gradients = _step(
            graphdef, parameters, rest, jnp.asarray(x), jnp.asarray(y)
        )
        nnx.update(model, rest)  # running statistics and dropout's counters
    return loss.item(), to_canonical(model.spec, gradients)


@partial(jax.jit, static_argnums=0)
@partial(jax.value_and_grad, argnums=1, has_aux=True)
def _step(graphdef: Any, parameters: Any, rest: Any, x: jax.Array, y: jax.Array) -> Any:
    model = nnx.merge(graphdef, parameters, rest, copy=True)
    model.train()
    scores = model(x)
    loss = optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()
    return loss, (nnx.state(model, nnx.Not(nnx.Param)), scores)


def fit(
    model: DenseNet,
    data: Data,
    recipe: Recipe,
    *,
    validation: Data | None = None,
    callbacks: Iterable[Callback] = (),
) -> History:
    run = Training(
        model.spec, dtype_of(model), recipe, data, validation=validation, callbacks=callbacks
    )
    with run, precision(dtype_of(model)):
        graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)
        # copies, because each step gives its buffers to the next
        state = jax.tree.map(jnp.copy, (parameters, rest, _optimizer(run.recipe).init(parameters)))

        def logits(x: Any) -> npt.NDArray[np.floating]:
            x = jnp.asarray(x.transpose(0, 2, 3, 1))
            return np.asarray(evaluate(DenseNet.__call__, graphdef, x, *state[:2]))

        try:
            for _ in range(recipe.epochs):
                for x, y, rate in run.batches():
                    batch = jnp.asarray(x.transpose(0, 2, 3, 1)), jnp.asarray(y)
                    state, loss, right = _update(graphdef, run.recipe, state, batch, rate)
                    run.record(loss.item(), right.item())
                run.finish_epoch(logits)
        finally:
            nnx.update(model, *state[:2])
    return run.history


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _update(graphdef: Any, recipe: Recipe, state: Any, batch: Any, rate: Any) -> Any:
    parameters, rest, optimizer = state
    (loss, (rest, scores)), gradients = _step(graphdef, parameters, rest, *batch)
    steps, optimizer = _optimizer(recipe).update(gradients, optimizer, parameters)
    parameters = jax.tree.map(lambda w, step: w - rate * step, parameters, steps)
    return (parameters, rest, optimizer), loss, jnp.mean(scores.argmax(axis=1) == batch[1])


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """What ``optax.sgd`` consists of, without the learning rate."""
    return optax.chain(
        optax.add_decayed_weights(recipe.weight_decay),
        optax.trace(recipe.momentum, recipe.nesterov),
    )


@partial(jax.jit, static_argnums=(0, 1))  # eager JAX would be several times slower
def evaluate(function: Callable[..., Any], graphdef: Any, x: jax.Array, *states: Any) -> Any:
    model = nnx.merge(graphdef, *states)
    model.eval()  # of the copy; the caller's model stays in its mode
    return function(model, x)
