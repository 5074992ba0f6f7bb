"""Training in Gluon's own idiom: an explicit loop with autograd and gluon.Trainer."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt
from mxnet import autograd, gluon

from .._checks import bad
from .._inputs import check_batch
from ..training.recipe import Recipe
from ..training.run import Run, fit_with
from ..weights import Weights
from .faster import for_training
from .model import DenseNet
from .weights import dtype_of, export_weights, import_weights, native_parameters, to_native


def loss_and_gradients(
    model: DenseNet, images: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[float, dict[str, npt.NDArray[np.floating]]]:
    x, y = check_batch(model.spec, images, labels, dtype_of(model))
    cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss(from_logits=True)
    parameters = {n: p for n, p in native_parameters(model).items() if p.grad_req != "null"}
    with autograd.record():
        loss = cross_entropy(log_softmax(model(to_native(x))), to_native(y)).mean()
    # autograd.grad does not change the parameters' own gradients
    trained = [parameter.data() for parameter in parameters.values()]
    gradients = autograd.grad(loss, trained) if trained else ()
    return loss.asscalar().item(), {
        name: gradient.asnumpy() for name, gradient in zip(parameters, gradients, strict=True)
    }


@fit_with(Run, dtype_of, import_weights)
def fit(model: DenseNet, run: Run) -> None:
    recipe = run.recipe
    if recipe.bfloat16:
        raise bad("bfloat16", True, "False: MXNet 1.9.1 does not train in bfloat16")
    for_training(model)  # swaps classes for faster ones, if faster/ has any
    cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss(from_logits=True, sparse_label=False)
    velocity = {name: to_native(array) for name, array in run.velocity.items()}
    native = native_parameters(model)
    trainer = gluon.Trainer([native[name] for name in velocity], SGD(recipe, velocity))
    model.hybridize(static_alloc=True)

    def logits(x: Any) -> npt.NDArray[np.floating]:
        with autograd.pause(train_mode=False):
            return model(to_native(x)).asnumpy()

    def snapshot() -> tuple[Weights, Weights]:
        return export_weights(model), {name: v.asnumpy() for name, v in velocity.items()}

    with run.started(logits, snapshot), frozen(native, velocity):
        for _ in run.epochs_left:
            for x, y, rate in run.batches():
                trainer.set_learning_rate(rate)
                with autograd.record(train_mode=recipe.train_features):
                    scores = model(to_native(x))
                    loss = cross_entropy(log_softmax(scores), to_native(y)).mean()
                loss.backward()
                if not model._active:  # noqa: SLF001  # if faster/recompute.py is used
                    mx.nd.waitall()  # backward() recomputes from the weights, which step() changes
                trainer.step(batch_size=1)  # the loss is already a mean
                right = scores.asnumpy().argmax(axis=1) == y.argmax(axis=1)
                run.record(loss.asscalar().item(), right.mean().item())
            run.finish_epoch()


def log_softmax(scores: Any) -> Any:
    # oneDNN's log_softmax errs by up to 5e-6 in float32: a confident answer's loss can be negative
    shifted = scores - scores.max(axis=1, keepdims=True).detach()
    return shifted - shifted.exp().sum(axis=1, keepdims=True).log()


@contextmanager
def frozen(native: Mapping[str, Any], trained: Iterable[str]) -> Iterator[None]:
    """Inside the ``with`` block, compute gradients only for the parameters named in ``trained``."""
    before = {name: parameter.grad_req for name, parameter in native.items()}
    for name in before.keys() - set(trained):
        native[name].grad_req = "null"
    try:
        yield
    finally:
        for name, request in before.items():
            native[name].grad_req = request


class SGD(mx.optimizer.Optimizer):
    """SGD as in training/recipe.py; MXNet's own SGD folds the learning rate into the velocity."""

    def __init__(self, recipe: Recipe, velocity: dict[str, Any]) -> None:
        super().__init__(learning_rate=recipe.learning_rate)
        self.recipe, self.velocity = recipe, list(velocity.values())

    def create_state(self, index: int, weight: Any) -> Any:
        return self.velocity[index]

    def update(self, index: int, weight: Any, grad: Any, state: Any) -> None:
        recipe, velocity = self.recipe, state
        if recipe.weight_decay:
            grad = grad + recipe.weight_decay * weight
        velocity *= recipe.momentum  # in place: a new array would cost another pass over memory
        velocity += grad
        weight -= self._get_lr(index) * (
            grad + recipe.momentum * velocity if recipe.nesterov else velocity
        )
