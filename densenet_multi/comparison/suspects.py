"""Ask the doctor about a backend whose results deviate, for the messages of other commands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..backends import Backend
from ..checkpoint import Usage
from ..diagnosis import Diagnosis, diagnose
from ..diagnosis.diagnose import batch
from ..diagnosis.step import Step, diagnose_step
from ..spec import DenseNetSpec
from ..training.recipe import Recipe
from ..weights import Weights

RATE = 0.1


def suspect_in_evaluation(
    backend: Backend, spec: DenseNetSpec, weights: Weights, dtype: str = "float64"
) -> str:
    """Return which convention a backend breaks when it predicts; "" if none."""
    model = _model(backend, spec, weights, dtype)
    return _said(diagnose(spec, weights, lambda x: backend.predict(model, x), dtype=dtype, most=1))


def suspect_in_training(backend: Backend, spec: DenseNetSpec, weights: Weights) -> str:
    """Return which convention a backend breaks in one step of training; "" if none.

    ``loss_and_gradients`` is judged first, by its loss and the statistics that it leaves; then the
    step that ``fit`` takes, by what these gradients should do.
    """
    images, labels = batch(spec, Usage())
    model = _model(backend, spec, weights)
    loss, gradients = backend.loss_and_gradients(model, images, labels)
    step = Step(
        images,
        labels,
        backend.export_weights(model) | _stepped(weights, gradients),
        gradients,
        RATE,
        weight_decay=RATE,
        loss=loss,
        variance=backend.RUNNING_VARIANCE,
        dtype="float64",
    )
    if found := _said(diagnose_step(spec, weights, step)):
        return found
    model = _model(backend, spec, weights)
    recipe = Recipe(epochs=1, batch_size=len(images), learning_rate=RATE, weight_decay=RATE)
    history = backend.fit(model, (images, labels), recipe)
    after = backend.export_weights(model)
    taken = replace(step, weights=after, loss=history.steps[0].loss)
    return _said(diagnose_step(spec, weights, taken))


def _stepped(weights: Weights, gradients: Weights) -> Weights:
    """Return the weights after the step that these gradients should lead to."""
    return {
        name: weights[name] - RATE * (gradient + RATE * weights[name])
        for name, gradient in gradients.items()
    }


def _model(backend: Backend, spec: DenseNetSpec, weights: Weights, dtype: str = "float64") -> Any:
    model = backend.build(spec, dtype=dtype)
    backend.import_weights(model, {n: array.astype(dtype) for n, array in weights.items()})
    return model


def _said(found: Diagnosis) -> str:
    parts = [f"{each.convention} in {each.stage}: {each.text}" for each in found.findings]
    return "; ".join([*parts, *filter(None, [found.unexplained])])
