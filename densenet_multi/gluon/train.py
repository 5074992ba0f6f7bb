"""Training in Gluon's own idiom."""

from collections.abc import Iterable
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt
from mxnet import autograd, gluon

from ..history import History
from ..inputs import check_images, check_labels
from ..recipe import Recipe
from ..training import Callback, Data, Training
from .model import DenseNet
from .weights import dtype_of, native_parameters, to_native


def loss_and_gradients(
    model: DenseNet, images: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[float, dict[str, npt.NDArray[np.floating]]]:
    x = check_images(model.spec, images, dtype_of(model))
    y = check_labels(labels, len(x), model.spec.config.num_classes)
    cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()
    parameters = {n: p for n, p in native_parameters(model).items() if p.grad_req != "null"}
    with autograd.record():
        loss = cross_entropy(model(to_native(x)), to_native(y)).mean()
    # autograd.grad leaves the parameters' own gradients alone
    gradients = autograd.grad(loss, [parameter.data() for parameter in parameters.values()])
    return loss.asscalar().item(), {
        name: gradient.asnumpy() for name, gradient in zip(parameters, gradients, strict=True)
    }


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
    cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()
    optimizer = SGD(run.recipe)
    trainer = gluon.Trainer(model.collect_params(), optimizer)
    model.hybridize(static_alloc=True)

    def logits(x: Any) -> npt.NDArray[np.floating]:
        with autograd.pause(train_mode=False):
            return model(to_native(x)).asnumpy()

    with run:
        for _ in range(recipe.epochs):
            for x, y, rate in run.batches():
                trainer.set_learning_rate(rate)
                with autograd.record():
                    scores = model(to_native(x))
                    loss = cross_entropy(scores, to_native(y)).mean()
                loss.backward()
                trainer.step(batch_size=1)  # the loss is a mean already
                right = scores.asnumpy().argmax(axis=1) == y
                run.record(loss.asscalar().item(), right.mean().item())
            run.finish_epoch(logits)
    return run.history


class SGD(mx.optimizer.Optimizer):
    """The rule of recipe.py: MXNet's own puts the learning rate into the velocity."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(learning_rate=recipe.learning_rate)
        self.recipe = recipe

    def create_state(self, index: int, weight: Any) -> Any:
        return mx.nd.zeros_like(weight)

    def update(self, index: int, weight: Any, grad: Any, state: Any) -> None:
        recipe, velocity = self.recipe, state
        grad = grad + recipe.weight_decay * weight
        velocity[:] = recipe.momentum * velocity + grad
        weight -= self._get_lr(index) * (
            grad + recipe.momentum * velocity if recipe.nesterov else velocity
        )
