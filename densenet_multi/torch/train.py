"""Training in PyTorch's own idiom: an explicit loop with autograd and torch.optim."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from .._inputs import check_batch
from ..training.recipe import Recipe
from ..training.run import Run, fit_with
from ..weights import Weights
from .faster import for_training
from .model import DenseNet
from .predict import in_evaluation
from .weights import dtype_of, export_weights, import_weights, native_tensors, to_numpy


def loss_and_gradients(
    model: DenseNet, images: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[float, dict[str, npt.NDArray[np.floating]]]:
    x, y = check_batch(model.spec, images, labels, dtype_of(model), several_values=True)
    device = model.features.conv0.weight.device
    parameters = {n: tensor for n, tensor in native_tensors(model).items() if tensor.requires_grad}
    with in_mode(model, training=True):
        scores = model(torch.tensor(x, device=device))
        loss = F.cross_entropy(scores, torch.tensor(y, device=device))
    # autograd.grad does not change the parameters' .grad
    gradients = torch.autograd.grad(loss, list(parameters.values())) if parameters else ()
    return loss.item(), dict(zip(parameters, map(to_numpy, gradients), strict=True))


@fit_with(Run, dtype_of, import_weights)
def fit(model: DenseNet, run: Run) -> None:
    recipe = run.recipe
    for_training(model)  # swaps classes for faster ones, if faster/ has any
    device = model.features.conv0.weight.device
    native = native_tensors(model)
    parameters = {name: native[name] for name in run.velocity}
    optimizer = sgd(recipe, parameters.values())
    for name, array in run.velocity.items():
        velocity = torch.tensor(array, device=device)
        optimizer.state[parameters[name]]["momentum_buffer"] = velocity

    def multiplied() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16)

    def logits(x: Any) -> npt.NDArray[np.floating]:
        with torch.inference_mode(), multiplied():
            scores = in_evaluation(model)(torch.tensor(x, device=device))
            return to_numpy(scores.to(native["classifier.bias"]))

    def snapshot() -> tuple[Weights, Weights]:
        velocities = {n: optimizer.state[p]["momentum_buffer"] for n, p in parameters.items()}
        return export_weights(model), {n: to_numpy(v) for n, v in velocities.items()}

    mode = in_mode(model, training=recipe.train_features)
    with run.started(logits, snapshot), mode, channels_last(model):
        for _ in run.epochs_left:
            for x, y, rate in run.batches():
                optimizer.param_groups[0]["lr"] = rate
                images = torch.tensor(x, device=device).to(memory_format=torch.channels_last)
                targets = torch.tensor(y, device=device)
                with multiplied():
                    scores = model(images)
                    loss = F.cross_entropy(scores, targets)
                optimizer.zero_grad()
                loss.backward(inputs=[p for p in parameters.values() if p.requires_grad])
                optimizer.step()
                right = scores.argmax(dim=1) == targets.argmax(dim=1)
                run.record(loss.item(), right.double().mean().item())
            run.finish_epoch()
    optimizer.zero_grad()


def sgd(
    recipe: Recipe, parameters: Iterable[torch.Tensor], *, fused: bool | None = None
) -> torch.optim.SGD:
    return torch.optim.SGD(
        parameters,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=fused,
    )


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Inside the ``with`` block, put all modules into one mode; then restore each module's own."""
    modes = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def channels_last(model: DenseNet) -> Iterator[None]:
    """Inside the ``with`` block, store kernels in oneDNN's and cuDNN's fastest memory format."""
    contiguous = all(parameter.is_contiguous() for parameter in model.parameters())
    model.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        if contiguous:
            model.to(memory_format=torch.contiguous_format)
