"""A DenseNet of fully connected layers in Keras: see ../tabular.py and, for images, model.py."""

from typing import Any

import numpy.typing as npt
import tensorflow as tf

from ..backends import TabularBackend, check_dtype, publish
from ..tabular import TabularLayerSpec, TabularSpec, check_row_batch, check_rows, check_tabular_spec
from ..training.rows import RowRun
from ..training.run import fit_with
from ..weights import Weights, init_weights
from ._saving import Block, Network
from .layers import ACTIVATIONS, batch_norm_1d, concat, dropout, linear
from .train import sgd
from .weights import (  # noqa: F401
    count_parameters,
    dtype_of,
    export_weights,
    import_weights,
    native_variables,
    to_canonical,
)


class TabularLayer(Block):
    def __init__(self, spec: TabularLayerSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        self.norm = batch_norm_1d(spec.norm) if spec.norm else None
        self.activation = ACTIVATIONS[spec.activation]
        self.linear = linear(spec.linear)
        self.dropout = dropout(spec.drop_rate)

    def call(self, x: Any) -> Any:
        x = self.norm(x) if self.norm is not None else x
        return self.dropout(self.linear(self.activation(x)))  # N, k


class TabularNet(Network):
    def __init__(self, spec: TabularSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        self.stem = linear(spec.stem)
        for layer in spec.layers:
            setattr(self, layer.name, TabularLayer(layer))

    def call(self, x: Any, training: Any = None) -> Any:
        x = self.stem(x)
        for layer in self.spec.layers:
            new = getattr(self, layer.name)(x)
            x = concat(x, new) if layer.concatenate else new
        return x  # N, 1


def build(spec: TabularSpec, *, seed: int = 0, dtype: str = "float32") -> TabularNet:
    model = TabularNet(check_tabular_spec(spec), dtype=check_dtype(dtype))
    model.build((None, spec.config.in_features))
    import_weights(model, init_weights(spec, seed, "xavier"))
    return model


def predict(model: TabularNet, rows: Any) -> npt.NDArray[Any]:
    return model(check_rows(model.spec, rows, dtype_of(model)), training=False).numpy()[:, 0]


def loss_and_gradients(model: TabularNet, rows: Any, targets: Any) -> tuple[float, Weights]:
    x, y = check_row_batch(model.spec, rows, targets, dtype_of(model))
    variables = {name: v for name, v in native_variables(model).items() if v[0].trainable}
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
    gradients = tape.gradient(loss, [variable.value for variable, _ in variables.values()])
    return float(loss), {
        name: to_canonical(gradient.numpy(), axes)
        for (name, (_, axes)), gradient in zip(variables.items(), gradients, strict=True)
    }


@fit_with(RowRun, dtype_of, import_weights)
def fit(model: TabularNet, run: RowRun) -> None:
    optimizer = sgd(run.recipe)
    optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)  # model.fit would take longer between steps than in them
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    with run.started(lambda x: predict(model, x), lambda: (export_weights(model), {})):
        for _ in run.epochs_left:
            for x, y, rate in run.batches():
                optimizer.learning_rate = rate
                run.record(step(x, y).numpy().item())
            run.finish_epoch()


publish(globals(), TabularBackend)  # help() shows the docstrings of backends.py
