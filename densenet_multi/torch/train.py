"""Training in PyTorch's own idiom."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ..history import History
from ..inputs import check_images, check_labels
from ..recipe import Recipe
from ..training import Callback, Data, Training
from .model import DenseNet
from .weights import dtype_of, native_tensors, to_numpy


def loss_and_gradients(
    model: DenseNet, images: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[float, dict[str, npt.NDArray[np.floating]]]:
    x = check_images(model.spec, images, dtype_of(model), several_values=True)
    y = check_labels(labels, len(x), model.spec.config.num_classes)
    device = model.features.conv0.weight.device
    parameters = {n: tensor for n, tensor in native_tensors(model).items() if tensor.requires_grad}
    with in_mode(model, training=True):
        scores = model(torch.tensor(x, device=device))
        loss = F.cross_entropy(scores, torch.tensor(y, device=device))
    # autograd.grad leaves the parameters' .grad alone
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    return loss.item(), dict(zip(parameters, map(to_numpy, gradients), strict=True))


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
    device = model.features.conv0.weight.device
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=run.rates[0],
        momentum=run.recipe.momentum,
        weight_decay=run.recipe.weight_decay,
        nesterov=run.recipe.nesterov,
    )

    def logits(x: Any) -> npt.NDArray[np.floating]:
        with in_mode(model, training=False), torch.inference_mode():
            return to_numpy(model(torch.tensor(x, device=device)))

    with run, in_mode(model, training=True):
        for _ in range(recipe.epochs):
            for x, y, rate in run.batches():
                optimizer.param_groups[0]["lr"] = rate
                targets = torch.tensor(y, device=device)
                scores = model(torch.tensor(x, device=device))
                loss = F.cross_entropy(scores, targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                right = scores.argmax(dim=1) == targets
                run.record(loss.item(), right.double().mean().item())
            run.finish_epoch(logits)
    optimizer.zero_grad()
    return run.history


@contextmanager
def in_mode(model: DenseNet, *, training: bool) -> Iterator[None]:
    """Inside, every module is in this mode; then each is in its own again, a frozen one too."""
    modes = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
