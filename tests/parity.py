"""Run a backend and the reference on the same weights and images, and compare stage by stage."""

import numpy as np

import densenet_multi as dm
from cases import derivative, images, labels
from densenet_multi.report import deviation


def check_forward(backend, spec, weights, x, deviations):
    """Features in order, so that a failure names the first stage that differs; then logits."""
    dtype = x.dtype.name
    model = backend.build(spec, dtype=dtype)
    backend.import_weights(model, weights)
    expected = dm.reference.forward(spec, weights, x)
    actual = backend.features(model, x)
    trace = dm.shape_trace(spec, *x.shape[2:])
    assert list(actual) == [stage for stage, _ in trace]
    for stage, shape in trace:
        assert actual[stage].shape == (len(x), *shape), stage
        value = deviation(actual[stage], expected.stages[stage])
        deviations.check(f"forward {dtype}", backend.NAME, value, f"stage {stage!r}")
    logits = backend.predict(model, x)
    assert logits.shape == expected.logits.shape
    value = deviation(logits, expected.logits)
    deviations.check(f"forward {dtype}", backend.NAME, value, "the output")


def check_training(backend, spec, weights, deviations):
    """One training step: loss, running statistics, and in float64 every gradient."""
    dtype = weights["features.conv0.weight"].dtype.name
    size = max(dm.min_image_size(spec), 8) + 3
    x, y = images(spec, size, count=3).astype(dtype), labels(spec, 3)
    model = backend.build(spec, dtype=dtype)
    backend.import_weights(model, weights)
    loss, gradients = backend.loss_and_gradients(model, x, y)
    expected = dm.reference.forward(
        spec, weights, x, training=True, variance=backend.RUNNING_VARIANCE
    )
    value = deviation(loss, dm.reference.cross_entropy(expected.logits, y))
    deviations.check(f"loss {dtype}", backend.NAME, value, "the loss")
    after = backend.export_weights(model)
    for name, statistic in expected.statistics.items():
        value = deviation(after[name], statistic)
        deviations.check(f"statistics {dtype}", backend.NAME, value, name)
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
    """The largest absolute value in any gradient (and not 0, for a network with one class)."""
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    return max(largest, np.finfo(np.float64).tiny)
