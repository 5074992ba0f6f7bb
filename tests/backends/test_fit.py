"""Every backend's own training loop takes the steps that recipe.py defines."""

import re
from dataclasses import replace

import numpy as np
import pytest

import densenet_multi as dm
from cases import images, labels, random_weights, small, tiny
from densenet_multi.comparison.deviation import deviation
from densenet_multi.data import FashionMNIST, epoch_order, load_sample
from densenet_multi.training.began import Began
from densenet_multi.training.history import Epoch, Step
from densenet_multi.training.run import Run, Subject

RECIPES = {  # eight steps each
    "plain": dm.Recipe(epochs=2, batch_size=3, learning_rate=0.05),
    "nesterov": dm.Recipe(
        epochs=2,
        batch_size=3,
        learning_rate=0.05,
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-2,
        milestones=(0.4, 0.8),
    ),
    "smooth": dm.Recipe(
        epochs=2,
        batch_size=3,
        learning_rate=0.05,
        momentum=0.9,
        label_smoothing=0.3,
        schedule="cosine",
        warmup=0.25,
        flip=True,
        shift=3,
    ),
}


def examples(spec, count=12):
    return images(spec, 32, count=count), labels(spec, count)


def rule(backend, spec, weights, recipe, data):
    """The weights, velocities and losses of the same run, computed in NumPy as recipe.py defines.

    Gradients and statistics come from ``loss_and_gradients``, which other tests compare with the
    reference.
    """
    run = Run(Subject(spec, "float64"), data, recipe)
    recipe = recipe.rounded()
    model = backend.build(spec, dtype="float64")
    w, v, losses = weights, dict.fromkeys(weights, 0.0), []
    for step, rate in enumerate(run.rates):
        x, targets = run.batch(*divmod(step, run.steps_per_epoch))
        loss, gradients, w = smoothed(backend, model, w, x, targets, recipe.label_smoothing)
        losses.append(loss)
        for name, gradient in gradients.items():
            g = gradient + recipe.weight_decay * w[name]
            v[name] = recipe.momentum * v[name] + g
            w[name] = w[name] - rate * (
                g + recipe.momentum * v[name] if recipe.nesterov else v[name]
            )
    return w, v, losses


def smoothed(backend, model, weights, x, targets, smoothing):
    """The loss, the gradients, and the weights with the new running statistics.

    Cross entropy is linear in the targets, so the share that is spread over all classes is the mean
    over one run for each class.
    """
    classes = targets.shape[1]
    right = targets.argmax(axis=1)
    parts = [(right, 1 - smoothing)]
    if smoothing:
        parts += [(np.full_like(right, label), smoothing / classes) for label in range(classes)]
    total, gradients = 0.0, {}
    for y, share in parts:
        backend.import_weights(model, weights)
        loss, found = backend.loss_and_gradients(model, x, y)
        total += share * loss
        gradients = {n: gradients.get(n, 0.0) + share * g for n, g in found.items()}
    return total, gradients, backend.export_weights(model)


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        pytest.param("bottleneck", "plain", 12, marks=pytest.mark.long),
        ("bottleneck", "smooth", 12),
        # the fourth and the last step have a smaller batch
        pytest.param("cubic", "nesterov", 11, marks=pytest.mark.long("flax")),
    ],
)
def test_eight_steps_follow_the_rule(backend, name, kind, count, deviations):
    # only two classes: smoothing needs one run for each
    spec = small(name, bn_decay=0.875, block_config=(1, 1), num_classes=2)
    data, weights = examples(spec, count), random_weights(spec)
    model = backend.build(spec, dtype="float64")
    backend.import_weights(model, weights)
    states = []
    history = backend.fit(model, data, RECIPES[kind], checkpoint=lambda now: states.append(now()))
    expected, velocity, losses = rule(backend, spec, weights, RECIPES[kind], data)
    value = deviation([step.loss for step in history.steps], losses)
    deviations.check("trajectory float64", backend.NAME, value, "the loss")
    largest = max(np.abs(array).max() for array in expected.values())
    for tensor, actual in backend.export_weights(model).items():
        value = np.abs(actual - expected[tensor]).max() / largest
        deviations.check("trajectory float64", backend.NAME, value, tensor)
        np.testing.assert_array_equal(states[-1].weights[tensor], actual)
    if RECIPES[kind].momentum:
        largest = max(np.abs(array).max() for array in velocity.values())
        assert states[-1].velocity.keys() == {n for n, v in velocity.items() if np.any(v)}
        for tensor, actual in states[-1].velocity.items():
            value = np.abs(actual - velocity[tensor]).max() / largest
            deviations.check("trajectory float64", backend.NAME, value, f"velocity of {tensor}")


def test_a_run_resumes_bit_for_bit(backend):
    spec = tiny(in_channels=1)
    data, recipe = as_float32(examples(spec)), replace(RECIPES["smooth"], average=1)
    states, arguments = {}, {"validation": data}
    whole = backend.build(spec)
    history = backend.fit(
        whole, data, recipe, **arguments, checkpoint=lambda now: states.update({now().steps: now()})
    )
    assert list(states) == [1, 2, 3, 4, 5, 6, 7, 8]
    expected = backend.export_weights(whole)
    for name, mean in history.mean.items():  # of the weights at the end of both epochs
        ends = [states[steps].weights[name].astype(np.float64) for steps in (4, 8)]
        np.testing.assert_allclose(mean, (ends[0] + ends[1]) / 2, rtol=1e-6, atol=1e-8)
    assert [states[steps].averaged for steps in (3, 4, 7, 8)] == [0, 1, 1, 2]
    assert states[3].mean is None
    for steps in (2, 4):  # within an epoch, and at its end
        resumed, heard = backend.build(spec, seed=7), []
        again = backend.fit(
            resumed, data, recipe, **arguments, resume=states[steps], callbacks=[heard.append]
        )
        for name, array in backend.export_weights(resumed).items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)
            np.testing.assert_array_equal(again.mean[name], history.mean[name], err_msg=name)
        assert [e for e in heard if isinstance(e, Step)] == history.steps[steps:]
        assert [untimed(epoch) for epoch in again.epochs] == [untimed(e) for e in history.epochs]


def as_float32(data):
    return data[0].astype(np.float32), data[1]


def untimed(epoch):
    return replace(epoch, seconds=0.0, images_per_second=0.0)


@pytest.mark.long("keras", "flax")
def test_a_state_of_another_run_is_refused(backend):
    spec = small("plain")
    states, model = [], backend.build(spec)
    recipe = dm.Recipe(epochs=1, batch_size=3)
    backend.fit(model, examples(spec), recipe, checkpoint=lambda now: states.append(now()))
    before = backend.export_weights(model)
    with pytest.raises(dm.ConfigError, match=r"resume: expected the state of this run"):
        backend.fit(model, examples(spec, 30), recipe, resume=states[-1])
    assert states[-1].began == Began(recipe)
    other = replace(recipe, learning_rate=0.05)
    changed = r"^resume: expected the recipe .* found changes: learning_rate: expected 0\.1,"
    for began in Began(recipe), Began(recipe, "chapter", "a.safetensors", {"pixels": {"std": 1}}):
        with pytest.raises(dm.ConfigError, match=changed):
            backend.fit(model, examples(spec), other, resume=replace(states[0], began=began))
    for name, array in backend.export_weights(model).items():
        np.testing.assert_array_equal(array, before[name])
    on_purpose = replace(states[0], began=None)
    backend.fit(
        model,
        examples(spec),
        other,
        resume=on_purpose,
        checkpoint=lambda now: states.append(now()),
    )
    assert (states[-1].steps, states[-1].began) == (states[-1].epochs[0].steps, Began(other))


@pytest.mark.long("keras", "flax")
def test_a_state_of_a_run_that_trains_other_tensors_is_refused(backend):
    spec = small("plain")
    model, recipe = backend.build(spec), dm.Recipe(epochs=1, batch_size=3)
    for first in (False, True):
        states = []
        one, other = (replace(recipe, train_features=f) for f in (first, not first))
        backend.fit(model, examples(spec), one, checkpoint=lambda now: states.append(now()))  # noqa: B023  # called at once
        with pytest.raises(dm.ConfigError, match=r"resume: expected .* which trains \d+ tensors"):
            backend.fit(model, examples(spec), other, resume=replace(states[0], began=None))


@pytest.mark.long("keras", "flax")
def test_a_state_of_a_run_that_averages_other_epochs_is_refused(backend):
    spec, states = small("plain"), []
    model = backend.build(spec)
    recipe = dm.Recipe(epochs=3, batch_size=4, average=0.5)
    backend.fit(model, examples(spec), recipe, checkpoint=lambda now: states.append(now()))
    for steps, found, change, expected in (
        (9, 2, {"average": 0}, "epoch 3 has a mean over 0 epochs (average=0, epochs=3)"),
        (9, 2, {"average": 1}, "epoch 3 has a mean over 3 epochs (average=1, epochs=3)"),
        (6, 1, {"epochs": 6}, "epoch 2 has a mean over 0 epochs (average=0.5, epochs=6)"),
        (3, 0, {"average": 1}, "epoch 1 has a mean over 1 epochs (average=1, epochs=3)"),
    ):
        message = f"after {expected}; found 'a mean over {found} epochs'"
        older = replace(states[steps - 1], began=None)
        with pytest.raises(dm.ConfigError, match=re.escape(message)):
            backend.fit(model, examples(spec), replace(recipe, **change), resume=older)


@pytest.mark.long("keras", "flax")
def test_an_error_in_a_later_batch_names_its_example(backend):
    spec = small("plain")
    x, y = examples(spec)
    broken = epoch_order(12, 0, 0)[7]
    x[broken, 0, 3, 3] = np.nan
    recipe, why = dm.Recipe(epochs=1, batch_size=3), "images: expected finite pixels, found 1"
    with pytest.raises(dm.ImageError, match=f"data: example {broken}: {why}"):
        backend.fit(backend.build(spec), (x, y), recipe)
    with pytest.raises(dm.ImageError, match=f"validation: example {broken}: {why}"):
        backend.fit(backend.build(spec), examples(spec), recipe, validation=(x, y))


def test_a_callback_may_use_the_model_after_requesting_the_state(backend):
    spec = small("plain")
    data, model = examples(spec), backend.build(spec)
    seen = []

    def look(now):
        now()
        seen.append(backend.predict(model, data[0][:1]))

    backend.fit(model, data, dm.Recipe(epochs=2, batch_size=4), checkpoint=look)
    assert np.isfinite(seen).all()


def test_frozen_features_stay_and_the_classifier_learns(backend, deviations):
    spec = small("bottleneck")
    data, weights = examples(spec), random_weights(spec)
    recipe = dm.Recipe(
        epochs=2, batch_size=3, learning_rate=0.5, momentum=0.9, train_features=False
    )
    model = backend.build(spec, dtype="float64")
    backend.import_weights(model, weights)
    states = []
    backend.fit(model, data, recipe, checkpoint=lambda now: states.append(now()))
    trained = backend.export_weights(model)
    assert set(states[-1].velocity) == {"classifier.weight", "classifier.bias"}
    for name, array in trained.items():
        if not name.startswith("classifier."):
            np.testing.assert_array_equal(array, weights[name], err_msg=name)

    run = Run(Subject(spec, "float64"), data, recipe)
    w, b = weights["classifier.weight"], weights["classifier.bias"]
    vw, vb = 0.0, 0.0
    for step, rate in enumerate(run.rates):
        x, targets = run.batch(*divmod(step, run.steps_per_epoch))
        maps = backend.features(model, x)["norm5"]
        pooled = np.maximum(maps, 0).mean(axis=(2, 3))
        scores = pooled @ w.T + b
        shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        vw = run.recipe.momentum * vw + (shares - targets).T @ pooled / len(x)
        vb = run.recipe.momentum * vb + (shares - targets).mean(axis=0)
        w, b = w - rate * vw, b - rate * vb
    for name, expected in ("classifier.weight", w), ("classifier.bias", b):
        value = np.abs(trained[name] - expected).max() / np.abs(w).max()
        deviations.check("trajectory float64", backend.NAME, value, name)
    _, gradients = backend.loss_and_gradients(model, *data)  # nothing stays frozen
    assert np.abs(gradients["features.conv0.weight"]).max() > 0


def test_bfloat16_is_close_to_float32_or_refused_by_name(backend):
    spec = tiny()
    data = as_float32(examples(spec))
    losses = {}
    for bfloat16 in (False, True):
        model = backend.build(spec)
        recipe = dm.Recipe(epochs=1, batch_size=3, bfloat16=bfloat16)
        if bfloat16 and backend.NAME == "gluon":
            with pytest.raises(dm.ConfigError, match="bfloat16: expected False: MXNet"):
                backend.fit(model, data, recipe)
            return
        history = backend.fit(model, data, recipe, validation=data)
        losses[bfloat16] = [step.loss for step in history.steps]
        exported = backend.export_weights(model)
        assert {array.dtype.name for array in exported.values()} == {"float32"}
    assert 0 < abs(losses[True][0] - losses[False][0]) < 0.01  # errors accumulate in later steps
    expected = dm.reference.predict(spec, exported, data[0])
    assert deviation(backend.predict(model, data[0]), expected) < 1e-5  # computed in float32


def test_history_holds_every_step_and_epoch(backend):
    spec = tiny(in_channels=1, num_classes=10)
    pixels, targets = load_sample("train")
    train = FashionMNIST(pixels[:40], targets[:40], image_size=32)
    test = FashionMNIST(pixels[40:60], targets[40:60], image_size=32)
    recipe = dm.Recipe(epochs=2, batch_size=16, learning_rate=0.1, milestones=(0.5,))
    heard = []
    model = backend.build(spec)
    history = backend.fit(model, train, recipe, validation=test, callbacks=[heard.append])

    assert history.recipe == recipe
    assert [(s.number, s.epoch) for s in history.steps] == [
        (1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2),
    ]  # fmt: skip
    rates = [step.learning_rate for step in history.steps]
    np.testing.assert_allclose(rates, [0.1] * 3 + [0.01] * 3, rtol=1e-7)
    first, second = history.epochs
    assert heard == [*history.steps[:3], first, *history.steps[3:], second]
    assert [type(event) for event in heard] == [Step, Step, Step, Epoch] * 2
    sizes = [16, 16, 8]
    for epoch, steps in (first, history.steps[:3]), (second, history.steps[3:]):
        mean = np.average([step.loss for step in steps], weights=sizes)
        np.testing.assert_allclose(epoch.loss, mean, rtol=1e-12)
        right = [step.accuracy * size for step, size in zip(steps, sizes, strict=True)]
        np.testing.assert_allclose(right, np.round(right), atol=1e-5)
        np.testing.assert_allclose(epoch.accuracy, sum(right) / 40, rtol=1e-6)
        assert epoch.seconds > 0
        np.testing.assert_allclose(epoch.images_per_second, 40 / epoch.seconds, rtol=1e-12)

    logits = backend.predict(model, test.take(np.arange(20)))
    loss = dm.reference.cross_entropy(logits, targets[40:60])
    np.testing.assert_allclose(second.validation_loss, loss, rtol=1e-5)
    assert second.validation_accuracy == np.mean(logits.argmax(axis=1) == targets[40:60])


@pytest.mark.long("keras", "flax")
def test_fitting_lowers_the_loss_on_real_images(backend):
    spec = small("bottleneck", in_channels=1, num_classes=10)
    pixels, targets = load_sample("train")
    train = FashionMNIST(pixels[:64], targets[:64], image_size=32)
    recipe = dm.Recipe(epochs=8, batch_size=32, learning_rate=0.1, momentum=0.9)
    history = backend.fit(backend.build(spec), train, recipe)
    assert history.epochs[-1].loss < history.epochs[0].loss - 0.5


def test_fitting_again_continues_from_the_current_weights(backend):
    spec = small("cubic", bn_decay=0.875, block_config=(1,))
    data, recipe = examples(spec), dm.Recipe(epochs=1, batch_size=3)
    model, other = backend.build(spec, dtype="float64"), backend.build(spec, dtype="float64")
    first = backend.fit(model, data, recipe)
    backend.import_weights(other, backend.export_weights(model))
    again, fresh = backend.fit(model, data, recipe), backend.fit(other, data, recipe)
    assert again.steps == fresh.steps
    assert again.steps[0].loss != first.steps[0].loss


def test_fitting_does_not_change_its_arguments(backend):
    spec = tiny()
    data, weights = examples(spec), random_weights(spec)
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    copies = [array.copy() for array in (*data, *weights.values())]
    model = backend.build(spec)
    backend.import_weights(model, weights)
    before = backend.export_weights(model)
    backend.fit(model, data, dm.Recipe(epochs=1, batch_size=4))
    for given, copy in zip((*data, *weights.values()), copies, strict=True):
        np.testing.assert_array_equal(given, copy)
    for name, array in weights.items():
        np.testing.assert_array_equal(before[name], array)


@pytest.mark.parametrize("memory_efficient", [False, True])
def test_a_loss_that_is_not_finite_stops_the_run(backend, memory_efficient):
    spec = small("plain")
    heard = []
    with pytest.raises(dm.TrainingError, match=r"step \d+ \(epoch 1\): expected a finite loss"):
        backend.fit(
            backend.build(spec, memory_efficient=memory_efficient),
            examples(spec),
            dm.Recipe(epochs=1, batch_size=2, learning_rate=1e38, weight_decay=1e10),
            callbacks=[heard.append],
        )
    assert all(np.isfinite(event.loss) for event in heard)


def test_a_destroyed_network_is_not_a_result(backend):
    # MXNet's ReLU turns NaN into 0, so the loss stays finite
    spec = tiny()
    recipe = dm.Recipe(epochs=1, batch_size=2, learning_rate=1e10)
    expected = "expected (a finite loss|finite weights and velocities), found"
    with pytest.raises(dm.TrainingError, match=expected):
        backend.fit(backend.build(spec), examples(spec), recipe)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda x, y: (x[:, :, 0], y),
            dm.ImageError,
            r"data: images: expected shape .* found \(11, ",
        ),
        (lambda x, y: (x, y + 9), dm.ImageError, r"data: labels: expected values from 0 to 4"),
        (lambda x, y: (x, y[:-1]), dm.ImageError, r"data: labels: expected 11 integers"),
        (lambda x, y: (x[:0], y[:0]), dm.ImageError, r"data: images: expected at least one"),
        (lambda x, y: (x[:2], y[:2]), dm.ConfigError, r"batch_size: expected at most the 2 ex"),
        (lambda x, _: x, dm.ConfigError, r"data: expected \(images, labels\)"),
    ],
    ids=["rank", "label", "count", "empty", "batch", "no labels"],
)
def test_unsuitable_data_are_refused_by_name(backend, change, error, message):
    spec = small("plain")
    model = backend.build(spec)
    before = backend.export_weights(model)
    with pytest.raises(error, match=message):
        backend.fit(model, change(*examples(spec, 11)), dm.Recipe(epochs=1, batch_size=3))
    for name, array in backend.export_weights(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_a_model_on_a_gpu_if_available_computes_the_same_function(backend):
    spec = small("bottleneck")
    weights, x = random_weights(spec), images(spec, 32)
    model = backend.build(spec, dtype="float64")
    assert backend.use_gpu(model) in {True, False}
    backend.import_weights(model, weights)
    expected = dm.reference.predict(spec, weights, x)
    assert deviation(backend.predict(model, x), expected) < 1e-12
    for name, array in backend.export_weights(model).items():
        np.testing.assert_array_equal(array, weights[name])
