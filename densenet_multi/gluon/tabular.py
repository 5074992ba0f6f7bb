"""A DenseNet of fully connected layers in Gluon: see ../tabular.py and, for images, model.py."""

from typing import Any

import numpy.typing as npt
from mxnet import autograd, gluon
from mxnet.gluon import HybridBlock

from ..backends import TabularBackend, check_dtype, publish
from ..tabular import TabularLayerSpec, TabularSpec, check_row_batch, check_rows, check_tabular_spec
from ..training.rows import RowRun
from ..training.run import fit_with
from ..weights import Weights, init_weights
from .layers import ACTIVATIONS, batch_norm_1d, concat, dropout, linear
from .predict import ONE_AT_A_TIME
from .train import SGD
from .weights import (  # noqa: F401
    count_parameters,
    dtype_of,
    export_weights,
    import_weights,
    native_parameters,
    new_model,
    to_native,
)


class TabularLayer(HybridBlock):
    def __init__(self, spec: TabularLayerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.norm = batch_norm_1d(spec.norm) if spec.norm else None
        self.activation = ACTIVATIONS[spec.activation]
        self.linear = linear(spec.linear)
        self.dropout = dropout(spec.drop_rate)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.norm(x) if self.norm is not None else x
        return self.dropout(self.linear(self.activation(x)))  # N, k


class TabularNet(HybridBlock):
    def __init__(self, spec: TabularSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = linear(spec.stem)
        for layer in spec.layers:
            setattr(self, layer.name, TabularLayer(layer))

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.stem(x)
        for layer in self.spec.layers:
            new = getattr(self, layer.name)(x)
            x = concat(x, new) if layer.concatenate else new
        return x  # N, 1


def build(spec: TabularSpec, *, seed: int = 0, dtype: str = "float32") -> TabularNet:
    weights = init_weights(check_tabular_spec(spec), seed, "xavier")
    return new_model(spec, weights, check_dtype(dtype), TabularNet)


def predict(model: TabularNet, rows: Any) -> npt.NDArray[Any]:
    x = to_native(check_rows(model.spec, rows, dtype_of(model)))
    with autograd.pause(train_mode=False), ONE_AT_A_TIME:
        return model(x).asnumpy()[:, 0]


def loss_and_gradients(model: TabularNet, rows: Any, targets: Any) -> tuple[float, Weights]:
    x, y = check_row_batch(model.spec, rows, targets, dtype_of(model))
    parameters = {n: p for n, p in native_parameters(model).items() if p.grad_req != "null"}
    with autograd.record():
        loss = ((model(to_native(x)) - to_native(y)) ** 2).mean()
    arrays = [parameter.data() for parameter in parameters.values()]
    gradients = autograd.grad(loss, arrays) if arrays else []
    return loss.asscalar().item(), {
        name: gradient.asnumpy() for name, gradient in zip(parameters, gradients, strict=True)
    }


@fit_with(RowRun, dtype_of, import_weights)
def fit(model: TabularNet, run: RowRun) -> None:
    velocity = {name: to_native(array) for name, array in run.velocity.items()}
    native = native_parameters(model)
    trainer = gluon.Trainer([native[name] for name in velocity], SGD(run.recipe, velocity))
    model.hybridize(static_alloc=True)
    with run.started(lambda x: predict(model, x), lambda: (export_weights(model), {})):
        for _ in run.epochs_left:
            for x, y, rate in run.batches():
                trainer.set_learning_rate(rate)
                with autograd.record():
                    # Gluon's own L2Loss is half of the mean squared error
                    loss = ((model(to_native(x)) - to_native(y)) ** 2).mean()
                loss.backward()
                trainer.step(batch_size=1)  # the loss is already a mean
                run.record(loss.asscalar().item())
            run.finish_epoch()


publish(globals(), TabularBackend)  # help() shows the docstrings of backends.py
