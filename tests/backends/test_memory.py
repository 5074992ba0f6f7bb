"""Memory-efficient training gives the same results in less memory."""

import numpy as np
import pytest

import densenet_multi as dm
import native
from cases import SMALL, as_float32, images, labels, random_weights, small, tiny
from densenet_multi.comparison import bench


def pair(backend, spec, weights, *, level=True):
    """Yield the same model twice: plain, then memory-efficient."""
    for memory_efficient in (False, level):
        native.seed(backend.NAME, 5)
        model = backend.build(spec, dtype="float64", memory_efficient=memory_efficient)
        backend.import_weights(model, weights)
        yield model


def assert_equal_step(backend, spec, x, y, level):
    results = []
    for model in pair(backend, spec, random_weights(spec), level=level):
        loss, gradients = backend.loss_and_gradients(model, x, y)
        results.append((loss, gradients, backend.export_weights(model)))
    (loss, gradients, after), (same_loss, same_gradients, same_after) = results
    assert list(same_gradients) == list(gradients)
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for name, gradient in gradients.items():  # sums in another order
        assert np.abs(same_gradients[name] - gradient).max() <= 1e-14 * largest
    # XLA fuses different operations; elsewhere the results are identical
    rounding = 1e-14 if backend.NAME == "flax" else 0
    assert abs(same_loss - loss) <= rounding * loss
    for name, array in after.items():  # running statistics are updated once
        # a mean near 0 has the rounding error of its summands
        assert np.abs(same_after[name] - array).max() <= rounding * np.abs(array).max()


KINDS = [*((name, True) for name in SMALL), ("bottleneck", "max")]
FEW = [("bottleneck", True), ("bottleneck", "max")]  # tracing is slow


@pytest.mark.parametrize(
    ("name", "level", "drop_rate"),
    [
        *((*kind, 0.4) for kind in FEW),
        *(
            pytest.param(*kind, 0.4, marks=pytest.mark.long("keras", "flax"))
            for kind in KINDS
            if kind not in FEW
        ),
        *(pytest.param(*kind, 0.0, marks=pytest.mark.long) for kind in KINDS),
    ],
)
def test_a_step_is_the_same(backend, name, level, drop_rate):
    spec = small(name, drop_rate=drop_rate)
    assert_equal_step(backend, spec, images(spec, 35, count=3), labels(spec, 3), level)


@pytest.mark.parametrize("level", ["some", "max"])
@pytest.mark.long("keras", "flax")
def test_training_is_the_same(backend, level):
    spec = tiny()
    data = images(spec, 32, count=8), labels(spec, 8)
    recipe = dm.Recipe(epochs=2, batch_size=4, momentum=0.9, nesterov=True, weight_decay=1e-3)
    ends = []
    for model in pair(backend, spec, random_weights(spec), level=level):
        history = backend.fit(model, data, recipe, validation=data)
        ends.append((history.epochs[-1].validation_loss, backend.export_weights(model)))
    (loss, weights), (same_loss, same_weights) = ends
    assert same_loss == pytest.approx(loss, rel=1e-12)
    for name, array in weights.items():
        np.testing.assert_allclose(same_weights[name], array, rtol=1e-10, atol=1e-12)


def test_frozen_features_stay_as_they_are(backend):
    spec = tiny()
    data = images(spec, 32, count=8), labels(spec, 8)
    before = random_weights(spec)
    for model in pair(backend, spec, before):
        backend.fit(model, data, dm.Recipe(epochs=1, batch_size=4, train_features=False))
        for name, array in backend.export_weights(model).items():
            assert np.array_equal(array, before[name]) != name.startswith("classifier.")


def test_evaluation_is_the_same(backend):
    spec = tiny(drop_rate=0.3)
    x = images(spec, 33)
    plain, efficient = pair(backend, spec, random_weights(spec), level="max")
    np.testing.assert_array_equal(backend.predict(efficient, x), backend.predict(plain, x))
    np.testing.assert_equal(backend.features(efficient, x), backend.features(plain, x))
    optimized = backend.predict(backend.optimize(efficient), x)
    np.testing.assert_array_equal(optimized, backend.predict(backend.optimize(plain), x))
    assert backend.count_parameters(efficient) == dm.count_parameters(spec)
    assert isinstance(efficient, backend.DenseNet)


@pytest.mark.parametrize("level", [True, "max"])
def test_a_float32_step_is_the_same(backend, level):
    spec = tiny()
    x, y = images(spec, 32, count=4), labels(spec, 4)
    before, ends = as_float32(random_weights(spec)), []
    for efficient in (False, level):
        model = backend.build(spec, memory_efficient=efficient)
        backend.import_weights(model, before)
        _, gradients = backend.loss_and_gradients(model, x, y)
        ends.append((gradients, backend.export_weights(model)))
    (gradients, plain), (same_gradients, same) = ends
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert np.abs(same_gradients[name] - gradient).max() <= 1e-5 * largest, name
    for name, array in plain.items():  # a second update would move statistics by another tenth
        assert np.abs(same[name] - array).max() <= 1e-5 * np.abs(array).max(), name


@pytest.mark.parametrize("level", [pytest.param(True, marks=pytest.mark.long), "max"])
def test_a_step_in_bfloat16_is_close(backend, level):
    spec = tiny(drop_rate=0.2)
    data = images(spec, 32, count=8), labels(spec, 8)
    recipe = dm.Recipe(epochs=1, batch_size=8, bfloat16=True)
    if backend.NAME == "gluon":
        with pytest.raises(dm.ConfigError, match="bfloat16"):
            backend.fit(backend.build(spec, memory_efficient=level), data, recipe)
        return
    ends = []
    for efficient in (False, level):
        native.seed(backend.NAME, 5)
        model = backend.build(spec, memory_efficient=efficient)
        backend.import_weights(model, before := as_float32(random_weights(spec)))
        history = backend.fit(model, data, recipe)
        ends.append((history.epochs[-1].loss, backend.export_weights(model)))
    (loss, plain), (same_loss, same) = ends
    assert same_loss == pytest.approx(loss, rel=0.02)
    for name, array in plain.items():
        if "running" in name:  # with so few images, rounding changes gradients by a fifth
            moved = np.abs(array - before[name]).max()
            assert np.abs(same[name] - array).max() <= 0.1 * moved, name


def test_an_unknown_level_is_refused_with_the_known_ones(backend):
    with pytest.raises(dm.ConfigError, match="memory_efficient: expected False, 'some' or 'max'"):
        backend.build(small("plain"), memory_efficient="min")


@pytest.mark.parametrize(  # deeper networks save more; a ratio of 1 means nothing saved
    ("depth", "batch_size", "ratio"),
    [(22, 48, 0.9), pytest.param(40, 128, 0.75, marks=pytest.mark.long)],
)
@pytest.mark.long("keras", "flax")
def test_a_step_takes_less_memory(backend, depth, batch_size, ratio):
    grown: dict[str, int] = {}
    for _ in range(3):  # the minimum counts: a process may keep more memory by chance
        report = bench.bench(
            backends=[backend.NAME],
            work="memory",
            depth=depth,
            batch_size=batch_size,
            rounds=1,
            steps=1,
            threads=1,  # other tests run at the same time
        )
        for case, found in report["backends"][backend.NAME]["cases"].items():
            grown[case] = min(found["grown_bytes"], grown.get(case, found["grown_bytes"]))
        if grown["max"] < grown["efficient"] < ratio * grown["plain"]:
            return
    pytest.fail(f"too little memory saved; bytes: {grown}")
