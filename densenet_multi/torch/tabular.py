"""A DenseNet of fully connected layers in PyTorch: see ../tabular.py and, for images, model.py."""

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backends import TabularBackend, check_dtype, publish
from ..tabular import TabularLayerSpec, TabularSpec, check_row_batch, check_rows, check_tabular_spec
from ..training.rows import RowRun
from ..training.run import fit_with
from ..weights import Weights, init_weights
from .layers import ACTIVATIONS, batch_norm_1d, concat, dropout, linear
from .predict import in_evaluation
from .train import in_mode, sgd
from .weights import count_parameters, dtype_of, export_weights, import_weights, native_tensors  # noqa: F401


class TabularLayer(nn.Module):
    def __init__(self, spec: TabularLayerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.norm = batch_norm_1d(spec.norm) if spec.norm else None
        self.activation = ACTIVATIONS[spec.activation]
        self.linear = linear(spec.linear)
        self.dropout = dropout(spec.drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x) if self.norm is not None else x
        return self.dropout(self.linear(self.activation(x)))  # N, k


class TabularNet(nn.Module):
    def __init__(self, spec: TabularSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = linear(spec.stem)
        for layer in spec.layers:
            setattr(self, layer.name, TabularLayer(layer))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.spec.layers:
            new = getattr(self, layer.name)(x)
            x = concat(x, new) if layer.concatenate else new
        return x  # N, 1


def build(spec: TabularSpec, *, seed: int = 0, dtype: str = "float32") -> TabularNet:
    model = TabularNet(check_tabular_spec(spec)).to(getattr(torch, check_dtype(dtype)))
    import_weights(model, init_weights(spec, seed, "xavier"))
    return model


def predict(model: TabularNet, rows: Any) -> npt.NDArray[Any]:
    x = torch.tensor(check_rows(model.spec, rows, dtype_of(model)))
    with torch.inference_mode():
        return in_evaluation(model)(x)[:, 0].numpy()


def loss_and_gradients(model: TabularNet, rows: Any, targets: Any) -> tuple[float, Weights]:
    x, y = check_row_batch(model.spec, rows, targets, dtype_of(model))
    parameters = {n: tensor for n, tensor in native_tensors(model).items() if tensor.requires_grad}
    with in_mode(model, training=True):
        loss = F.mse_loss(model(torch.tensor(x)), torch.tensor(y))
    gradients = torch.autograd.grad(loss, list(parameters.values())) if parameters else ()
    return loss.item(), {n: g.numpy() for n, g in zip(parameters, gradients, strict=True)}


@fit_with(RowRun, dtype_of, import_weights)
def fit(model: TabularNet, run: RowRun) -> None:
    optimizer = sgd(run.recipe, model.parameters(), fused=True)  # one call, not one for each tensor
    started = run.started(lambda x: predict(model, x), lambda: (export_weights(model), {}))
    with started, in_mode(model, training=True):
        for _ in run.epochs_left:
            for x, y, rate in run.batches():
                optimizer.param_groups[0]["lr"] = rate
                loss = F.mse_loss(model(torch.from_numpy(x)), torch.from_numpy(y))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.record(loss.item())
            run.finish_epoch()
    optimizer.zero_grad()


publish(globals(), TabularBackend)  # help() shows the docstrings of backends.py
