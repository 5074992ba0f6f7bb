"""Run a backend and the reference on the same weights and images, and compare stage by stage."""

import numpy as np

import densenet_multi as dm
from cases import derivative, images, labels
from densenet_multi.comparison.deviation import deviation

ROUNDING = 2.0**-24  # the largest relative rounding error of float32


def amplification(spec, weights, x, y=None):
    """How much the network amplifies a relative change of all its weights and pixels.

    {stage, "logits", "loss" or statistic: factor}, the largest of three random roundings in the
    reference: in a training step if there are labels ``y``, otherwise in a prediction.
    """
    outputs = _outputs(spec, weights, x, y)
    found = dict.fromkeys(outputs, 0.0)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        moved = {name: _rounded(array, rng) for name, array in weights.items()}
        for what, value in _outputs(spec, moved, _rounded(x, rng), y).items():
            of = loss_deviation(outputs["logits"]) if what == "loss" else deviation
            found[what] = max(found[what], of(value, outputs[what]) / ROUNDING)
    return found


def loss_deviation(logits):
    """Return a function: a loss's deviation, relative to the largest of it, the logits and 1 nat.

    The loss is a difference of numbers as large as the logits, and 0 with one class. An error in
    nats is a relative error of the likelihood.
    """
    largest = max(1.0, np.abs(logits).max())
    return lambda actual, expected: abs(actual - expected) / max(expected, largest)


def _rounded(array, rng):
    return array.astype(np.float64) * (1 + ROUNDING * rng.choice([-1.0, 1.0], array.shape))


def _outputs(spec, weights, x, y):
    done = dm.reference.forward(spec, weights, x, training=y is not None)
    loss = {} if y is None else {"loss": dm.reference.cross_entropy(done.logits, y)}
    return {**done.stages, "logits": done.logits, **done.statistics, **loss}


def check_forward(backend, spec, weights, x, deviations, amplified=None, *, optimized=False):
    """Compare features in order, so that a failure names the first differing stage; then logits."""
    amplified = amplified or {}
    dtype = x.dtype.name
    model = backend.build(spec, dtype=dtype)
    backend.import_weights(model, weights)
    if optimized:
        model = backend.optimize(model)
    expected = dm.reference.forward(spec, weights, x)
    actual = backend.features(model, x)
    trace = dm.shape_trace(spec, *x.shape[2:])
    assert list(actual) == [stage for stage, _ in trace]
    for stage, shape in trace:
        assert actual[stage].shape == (len(x), *shape), stage
        value, factor = deviation(actual[stage], expected.stages[stage]), amplified.get(stage, 0)
        what = f"stage {stage!r}"
        deviations.check(f"forward {dtype}", backend.NAME, value, what, amplified=factor)
    logits = backend.predict(model, x)
    assert logits.shape == expected.logits.shape
    value, factor = deviation(logits, expected.logits), amplified.get("logits", 0)
    deviations.check(f"forward {dtype}", backend.NAME, value, "the output", amplified=factor)


def training_batch(spec):
    size = max(dm.min_image_size(spec), 8) + 3
    return images(spec, size, count=3), labels(spec, 3)


def check_training(backend, spec, weights, deviations, amplified=None, exchange=None):
    """Compare one training step: loss, running statistics, and in float64 every gradient.

    ``exchange``, if given, is called with the model before the step.
    """
    amplified = amplified or {}
    dtype = weights["features.conv0.weight"].dtype.name
    x, y = training_batch(spec)
    x = x.astype(dtype)
    model = backend.build(spec, dtype=dtype)
    backend.import_weights(model, weights)
    if exchange is not None:
        exchange(model)
    loss, gradients = backend.loss_and_gradients(model, x, y)
    expected = dm.reference.forward(
        spec, weights, x, training=True, variance=backend.RUNNING_VARIANCE
    )
    wanted = dm.reference.cross_entropy(expected.logits, y)
    value = loss_deviation(expected.logits)(loss, wanted)
    factor = amplified.get("loss", 0)
    deviations.check(f"loss {dtype}", backend.NAME, value, "the loss", amplified=factor)
    after = backend.export_weights(model)
    for name, statistic in expected.statistics.items():
        value, factor = deviation(after[name], statistic), amplified.get(name, 0)
        deviations.check(f"statistics {dtype}", backend.NAME, value, name, amplified=factor)
    trainable = [n for n, info in dm.tensors(spec).items() if info.role == "trainable"]
    assert list(gradients) == trainable
    if dtype == "float64":
        rng = np.random.default_rng(4)
        for name, gradient in gradients.items():
            assert gradient.shape == dm.tensors(spec)[name].shape
            direction = rng.normal(size=gradient.shape)
            direction /= np.linalg.norm(direction)
            exact = derivative(spec, weights, x, y, name, direction)
            value = abs(np.sum(gradient * direction) - exact) / gradient_scale(gradients)
            deviations.check("gradients float64", backend.NAME, value, name)


def gradient_scale(gradients):
    """The largest absolute value in any gradient; never 0, not even with one class."""
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    return max(largest, np.finfo(np.float64).tiny)
