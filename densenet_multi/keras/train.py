"""Training in Keras' own idiom: ``compile`` and ``fit``, and a single step with GradientTape."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow import keras

from .._inputs import check_batch
from ..training.recipe import Recipe
from ..training.run import Run, fit_with
from ..weights import Weights
from ._saving import dtype_policy
from .faster import for_training
from .model import DenseNet
from .weights import dtype_of, export_weights, import_weights, native_variables, to_canonical


def loss_and_gradients(
    model: DenseNet, images: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[float, dict[str, npt.NDArray[np.floating]]]:
    x, y = check_batch(model.spec, images, labels, dtype_of(model))
    variables = {name: v for name, v in native_variables(model).items() if v[0].trainable}
    # without a dtype, the loss would be float32 even for a float64 model
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, dtype=dtype_of(model)
    )
    with tf.GradientTape() as tape:
        loss = cross_entropy(y, model(x.transpose(0, 2, 3, 1), training=True))
    gradients = tape.gradient(loss, [variable.value for variable, _ in variables.values()])
    return float(loss), {
        name: to_canonical(gradient.numpy(), axes)
        for (name, (_, axes)), gradient in zip(variables.items(), gradients, strict=True)
    }


@fit_with(Run, dtype_of, import_weights)
def fit(model: DenseNet, run: Run) -> None:
    recipe = run.recipe
    for_training(model)  # swaps classes for faster ones, if faster/ has any

    def logits(x: Any) -> npt.NDArray[np.floating]:
        return model.predict_on_batch(x.transpose(0, 2, 3, 1))

    def snapshot() -> tuple[Weights, Weights]:
        velocity = {
            name: to_canonical(optimizer.velocity_of(variable).numpy(), axes)
            for name, (variable, axes) in parameters.items()
        }
        return export_weights(model), {**run.velocity, **velocity}

    with dtype_policy(dtype_of(model)), floatx(dtype_of(model)), changed(model, recipe):
        optimizer = sgd(recipe)
        model.compile(
            optimizer,
            keras.losses.CategoricalCrossentropy(from_logits=True, dtype=dtype_of(model)),
            metrics=["accuracy"],
            # on the CPU, XLA's convolutions are slower than oneDNN's
            jit_compile="auto" if tf.config.list_physical_devices("GPU") else False,
        )
        optimizer.build(model.trainable_variables)
        native = native_variables(model)
        parameters = {name: native[name] for name in run.velocity if native[name][0].trainable}
        for name, (variable, axes) in parameters.items():
            optimizer.velocity_of(variable).assign(run.velocity[name].transpose(axes))
        with run.started(logits, snapshot):
            for epoch in run.epochs_left:
                batches = Batches(run)
                try:
                    model.fit(
                        batches,
                        initial_epoch=epoch,
                        epochs=epoch + 1,
                        shuffle=False,  # ``run`` shuffles
                        callbacks=[Report(run)],
                        verbose=0,
                    )
                except tf.errors.OpError:
                    raise batches.error or sys.exception() from None


@contextmanager
def changed(model: DenseNet, recipe: Recipe) -> Iterator[None]:
    """Inside the ``with`` block, freeze layers and set dtype policies as the recipe requires. A
    frozen BatchNorm uses its running statistics and does not update them."""
    layers = model._flatten_layers()  # noqa: SLF001  # no public equivalent
    layers = [layer for layer in layers if layer.dtype_policy]
    before = [(layer, layer.trainable, layer.dtype_policy) for layer in layers]
    try:
        if not recipe.train_features:
            model.features.trainable = False
        if recipe.bfloat16:
            for layer in layers:
                layer.dtype_policy = "mixed_bfloat16"
        yield
    finally:
        for layer, trainable, policy in before:  # outer first: ``trainable`` also sets inner layers
            layer.trainable, layer.dtype_policy = trainable, policy
        if recipe.bfloat16:
            model.make_predict_function(force=True)


@contextmanager
def floatx(dtype: str) -> Iterator[None]:
    """Inside the ``with`` block, compute metrics in this dtype, including the loss of ``fit``."""
    before = keras.config.floatx()
    keras.config.set_floatx(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before)


class Batches(keras.utils.PyDataset):
    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run, self.epoch = run, run.epoch
        self.first = run.steps - run.epoch * run.steps_per_epoch
        self.error: Exception | None = None  # TensorFlow raises another error in its place

    def __len__(self) -> int:
        return self.run.steps_per_epoch - self.first

    def __getitem__(self, index: int) -> Any:
        try:
            x, y = self.run.batch(self.epoch, self.first + index)
        except Exception as error:
            self.error = error
            raise
        return x.transpose(0, 2, 3, 1), y


class Report(keras.callbacks.Callback):
    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.model.reset_metrics()  # Keras reports the mean since the last reset
        self.model.optimizer.learning_rate = self.run.rates[self.run.steps]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.run.record(float(logs["loss"]), float(logs["accuracy"]))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.run.finish_epoch()


@keras.utils.register_keras_serializable("densenet_multi")
class SGD(keras.optimizers.Optimizer):
    """SGD as in training/recipe.py; Keras' own SGD folds the learning rate into the velocity."""

    def __init__(
        self,
        learning_rate: float,
        *,
        momentum: float,
        nesterov: bool,
        decay: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.momentum, self.nesterov, self.decay = momentum, nesterov, decay

    def get_config(self) -> dict[str, Any]:
        own = {"momentum": self.momentum, "nesterov": self.nesterov, "decay": self.decay}
        return {**super().get_config(), **own}

    def build(self, variables: Any) -> None:
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def velocity_of(self, variable: Any) -> Any:
        return self.velocities[self._get_variable_index(variable)]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        velocity = self.velocity_of(variable)
        if self.decay:
            gradient = gradient + self.decay * variable
        self.assign(velocity, self.momentum * velocity + gradient if self.momentum else gradient)
        step = gradient + self.momentum * velocity if self.nesterov else velocity
        self.assign_sub(variable, keras.ops.cast(learning_rate, variable.dtype) * step)


def sgd(recipe: Recipe) -> SGD:
    return SGD(
        recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        decay=recipe.weight_decay,
    )
