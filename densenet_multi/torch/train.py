"""Training in PyTorch's own idiom."""

from collections.abc import Iterable
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
from .weights import dtype_of, to_numpy


def loss_and_gradients(
    model: DenseNet, images: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[float, dict[str, npt.NDArray[np.floating]]]:
    x = check_images(model.spec, images, dtype_of(model))
    y = check_labels(labels, len(x), model.spec.config.num_classes)
    device = model.features.conv0.weight.device
    names, parameters = zip(*model.named_parameters(), strict=True)
    was_training = model.training
    model.train()
    try:
        scores = model(torch.tensor(x, device=device))
        loss = F.cross_entropy(scores, torch.tensor(y, device=device))
        # autograd.grad leaves the parameters' .grad alone
        gradients = torch.autograd.grad(loss, parameters)
    finally:
        model.train(was_training)
    return loss.item(), dict(zip(names, map(to_numpy, gradients), strict=True))


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
    was_training = model.training

    def logits(x: Any) -> npt.NDArray[np.floating]:
        model.eval()
        with torch.inference_mode():
            return to_numpy(model(torch.tensor(x, device=device)))

    try:
        with run:
            for _ in range(recipe.epochs):
                model.train()
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
    finally:
        optimizer.zero_grad()
        model.train(was_training)
    return run.history
