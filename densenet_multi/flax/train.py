"""One training step in NNX's own idiom: a pure function of the model's state, compiled."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from flax import nnx

from ..inputs import check_images, check_labels
from .model import DenseNet
from .weights import dtype_of, precision, to_canonical


def loss_and_gradients(
    model: DenseNet, images: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[float, dict[str, npt.NDArray[np.floating]]]:
    x = check_images(model.spec, images, dtype_of(model)).transpose(0, 2, 3, 1)
    y = check_labels(labels, len(x), model.spec.config.num_classes)
    with precision(dtype_of(model)):
        graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)
        (loss, rest), gradients = _step(graphdef, parameters, rest, jnp.asarray(x), jnp.asarray(y))
        nnx.update(model, rest)  # running statistics and dropout's counters
    return loss.item(), to_canonical(model.spec, gradients)


@partial(jax.jit, static_argnums=0)
@partial(jax.value_and_grad, argnums=1, has_aux=True)
def _step(graphdef: Any, parameters: Any, rest: Any, x: jax.Array, y: jax.Array) -> Any:
    model = nnx.merge(graphdef, parameters, rest, copy=True)
    model.train()
    loss = optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()
    return loss, nnx.state(model, nnx.Not(nnx.Param))
