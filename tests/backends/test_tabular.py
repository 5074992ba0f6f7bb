"""Every backend's network for tables computes the same as the NumPy reference, and learns alike."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings

import densenet_multi as dm
import native
from cases import (
    TABULAR,
    as_float32,
    derivative_on_rows,
    random_weights,
    rows,
    small,
    small_table,
    trained_on_rows,
)
from densenet_multi.backends import Backend, TabularBackend, load_tabular
from densenet_multi.comparison.deviation import deviation
from densenet_multi.data import epoch_order
from densenet_multi.tabular import TabularConfig, predict
from densenet_multi.training.history import Epoch, Step
from densenet_multi.training.rows import RowRun
from densenet_multi.training.run import Run, Subject
from parity import gradient_scale
from strategies import tabular_configs

FUNCTIONS = [name for name, value in vars(TabularBackend).items() if inspect.isfunction(value)]
FUNCTIONS = [name for name in FUNCTIONS if not name.startswith("_")]


@pytest.fixture
def tables(backend):
    return load_tabular(backend.NAME)


def filled(tables, spec, weights, dtype="float64"):
    """A model with these weights."""
    model = tables.build(spec, dtype=dtype)
    tables.import_weights(model, weights)
    return model


# --- The contract -------------------------------------------------------------------------------


def test_the_module_offers_exactly_the_contract(tables, backend):
    assert tables.__all__ == sorted([*FUNCTIONS, "TabularLayer", "TabularNet"])
    assert dir(tables) == tables.__all__
    module = dm.load_backend(backend.NAME)
    assert module.tabular is tables
    for name in ("TabularLayer", "TabularNet"):
        assert f"in {module.FRAMEWORK}'s own layers." in getattr(tables, name).__doc__


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_contracts_docstring_and_parameters(tables, name):
    function, promised = getattr(tables, name), getattr(TabularBackend, name)
    assert function.__doc__ == inspect.cleandoc(promised.__doc__)
    _, *parameters = inspect.signature(promised).parameters.values()  # without self
    found = inspect.signature(function).parameters.values()
    plain = [[(p.name, p.kind, p.default) for p in ps] for ps in (found, parameters)]
    assert plain[0] == plain[1]


def test_a_model_or_spec_of_the_other_kind_is_refused(tables, backend):
    image, table = backend.build(small("plain")), tables.build(small_table("dense"))
    x, _ = rows(table.spec)
    with pytest.raises(dm.ConfigError, match=rf"expected a model of .*{backend.NAME}.tabular, f"):
        tables.predict(image, x)
    with pytest.raises(dm.ConfigError, match=rf"expected a model of .*{backend.NAME}, found a"):
        backend.predict(table, x)
    with pytest.raises(dm.ConfigError, match=r"spec: expected a DenseNetSpec"):
        backend.build(table.spec)
    with pytest.raises(dm.ConfigError, match=r"spec: expected a TabularSpec"):
        tables.build(image.spec)
    with pytest.raises(dm.ConfigError, match=r"spec: expected a TabularSpec"):
        tables.build(table.spec.config)


# --- Counts, weights, predictions ---------------------------------------------------------------


@pytest.mark.parametrize("name", TABULAR)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_counts_equal_the_manifest_and_every_bit_returns(tables, name, dtype):
    spec = small_table(name)
    weights = {n: a.astype(dtype) for n, a in random_weights(spec).items()}
    model = filled(tables, spec, weights, dtype)
    assert tables.count_parameters(model) == dm.count_parameters(spec)
    exported = tables.export_weights(model)
    assert list(exported) == list(dm.tensors(spec))
    for tensor, expected in weights.items():
        assert exported[tensor].dtype == dtype
        np.testing.assert_array_equal(exported[tensor], expected)


def test_build_starts_from_the_seeded_weights(tables):
    spec = small_table("dense")
    exported = tables.export_weights(tables.build(spec, seed=5))
    for name, expected in dm.init_weights(spec, 5, "xavier").items():
        np.testing.assert_array_equal(exported[name], expected)


@pytest.mark.parametrize("name", TABULAR)
def test_predictions_are_the_references(tables, backend, deviations, name):
    spec = small_table(name, drop_rate=0.5)  # which evaluation ignores
    weights, (x, _) = random_weights(spec), rows(spec)
    for dtype in ("float64", "float32"):
        w = weights if dtype == "float64" else as_float32(weights)
        actual = tables.predict(filled(tables, spec, w, dtype), x)
        assert (actual.shape, actual.dtype) == ((len(x),), dtype)
        value = deviation(actual, predict(spec, w, x.astype(dtype)))
        deviations.check(f"forward {dtype}", backend.NAME, value, "the output")


@settings(max_examples=5)
@given(config=tabular_configs())
def test_drawn_networks_have_the_references_predictions(backend, config):
    tables, spec = load_tabular(backend.NAME), config.resolve()
    weights, (x, _) = random_weights(spec), rows(spec)
    actual, expected = tables.predict(filled(tables, spec, weights), x), predict(spec, weights, x)
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(actual / scale, expected / scale, rtol=0, atol=1e-12)


def test_prediction_changes_nothing_and_accepts_one_row(tables):
    spec = small_table("dense", drop_rate=0.5)
    model = tables.build(spec)
    before, (x, _) = tables.export_weights(model), rows(spec)
    whole = tables.predict(model, x)
    np.testing.assert_allclose(tables.predict(model, x[:1]), whole[:1], rtol=1e-5)
    for name, array in tables.export_weights(model).items():
        np.testing.assert_array_equal(array, before[name])


# --- A step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABULAR)
def test_loss_statistics_and_gradients_of_a_step(tables, backend, deviations, name):
    spec = small_table(name)
    weights, (x, y) = random_weights(spec), rows(spec)
    model = filled(tables, spec, weights)
    loss, gradients = tables.loss_and_gradients(model, x, y)
    unbiased = backend.RUNNING_VARIANCE == "unbiased"
    predictions, statistics = trained_on_rows(spec, weights, x, unbiased=unbiased)
    wanted = np.mean((predictions - y) ** 2)
    deviations.check("loss float64", backend.NAME, abs(loss - wanted) / wanted, "the loss")
    after, infos = tables.export_weights(model), dm.tensors(spec)
    for tensor, info in infos.items():
        expected = statistics[tensor] if info.role == "statistic" else weights[tensor]
        value = deviation(after[tensor], expected)
        deviations.check("statistics float64", backend.NAME, value, tensor)
    assert list(gradients) == [n for n, info in infos.items() if info.role == "trainable"]
    rng = np.random.default_rng(4)
    for tensor, gradient in gradients.items():
        assert gradient.shape == infos[tensor].shape
        direction = rng.normal(size=gradient.shape)
        direction /= np.linalg.norm(direction)
        exact = derivative_on_rows(spec, weights, x, y, tensor, direction)
        value = abs(np.sum(gradient * direction) - exact) / gradient_scale(gradients)
        deviations.check("gradients float64", backend.NAME, value, tensor)


def test_batch_variances_keep_their_digits_far_from_zero(tables):
    spec = small_table("dense", num_init_features=5, block_config=())
    weights = random_weights(spec)
    weights |= {"stem.weight": np.eye(5), "stem.bias": np.full(5, 1e6)}
    x, y = rows(spec)
    near, far = (
        tables.loss_and_gradients(filled(tables, spec, weights | {"stem.bias": bias}), x, y)[0]
        for bias in (np.zeros(5), weights["stem.bias"])
    )
    np.testing.assert_allclose(far, near, rtol=1e-8)


def test_dropout_follows_dense_layers_while_training_only(tables, backend):
    spec = small_table("bare", block_config=(1,), growth_rate=512, drop_rate=0.3)
    native.seed(backend.NAME, 0)
    model, (x, y) = tables.build(spec), rows(spec, 2)
    _, gradients = tables.loss_and_gradients(model, x, y)
    # an output that is dropped for both rows has no gradient: 0.3**2 of 512
    dropped = np.mean(~gradients["block1_layer1.linear.weight"].any(axis=1))
    _, whole = tables.loss_and_gradients(
        tables.build(small_table("bare", block_config=(1,), growth_rate=512)), x, y
    )
    unused = np.mean(~whole["block1_layer1.linear.weight"].any(axis=1))
    assert 0.03 < dropped - unused < 0.2


# --- Training -----------------------------------------------------------------------------------

RECIPES = {  # of 11 rows, one recipe has a smaller last batch, and the other leaves one row out
    "nesterov": dm.Recipe(
        epochs=2,
        batch_size=3,
        learning_rate=0.02,
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-2,
        schedule="cosine",
        warmup=0.25,
    ),
    "plain": dm.Recipe(epochs=2, batch_size=5, learning_rate=0.05),
}


@pytest.mark.parametrize(("name", "kind"), [("dense", "nesterov"), ("chain", "plain")])
def test_steps_follow_the_rule(tables, backend, deviations, name, kind):
    spec, recipe = small_table(name), RECIPES[kind]
    weights, data = random_weights(spec), rows(spec, 11)
    model = filled(tables, spec, weights)
    history = tables.fit(model, data, recipe)
    rule, other = recipe.rounded(), tables.build(spec, dtype="float64")
    orders = [epoch_order(11, recipe.seed, epoch) for epoch in range(recipe.epochs)]
    starts = range(0, 11 - (11 % recipe.batch_size == 1), recipe.batch_size)
    batches = [order[start : start + recipe.batch_size] for order in orders for start in starts]
    w, v, losses = weights, dict.fromkeys(weights, 0.0), []
    for part, rate in zip(batches, rule.learning_rates(len(batches)), strict=True):
        tables.import_weights(other, w)
        loss, gradients = tables.loss_and_gradients(other, data[0][part], data[1][part])
        w = tables.export_weights(other)  # with the new running statistics
        losses.append(loss)
        for tensor, gradient in gradients.items():
            g = gradient + rule.weight_decay * w[tensor]
            v[tensor] = rule.momentum * v[tensor] + g
            moved = g + rule.momentum * v[tensor] if rule.nesterov else v[tensor]
            w[tensor] = w[tensor] - rate * moved
    assert len(losses) == {"nesterov": 8, "plain": 4}[kind]
    value = deviation([step.loss for step in history.steps], losses)
    deviations.check("trajectory float64", backend.NAME, value, "the loss")
    largest = max(np.abs(array).max() for array in w.values())
    for tensor, actual in tables.export_weights(model).items():
        value = np.abs(actual - w[tensor]).max() / largest
        deviations.check("trajectory float64", backend.NAME, value, tensor)


def test_history_holds_every_step_and_epoch(tables):
    spec, (x, y), heard = small_table("dense"), rows(small_table("dense"), 11), []
    recipe = dm.Recipe(epochs=2, batch_size=5, learning_rate=0.1, average=1)
    model = tables.build(spec, dtype="float64")
    other = rows(spec, 4, seed=9)
    history = tables.fit(model, (x, y), recipe, validation=other, callbacks=[heard.append])
    assert history.recipe == recipe
    assert [(type(event), event.number) for event in heard] == [
        (Step, 1), (Step, 2), (Epoch, 1), (Step, 3), (Step, 4), (Epoch, 2),
    ]  # fmt: skip
    assert heard == [*history.steps[:2], history.epochs[0], *history.steps[2:], history.epochs[1]]
    last = history.epochs[-1]
    error = np.mean((tables.predict(model, other[0]) - other[1]) ** 2)
    np.testing.assert_allclose(last.validation_loss, error, rtol=1e-12)
    np.testing.assert_allclose(last.loss, np.mean([s.loss for s in history.steps[2:]]), rtol=1e-12)
    assert np.isnan([last.accuracy, *(step.accuracy for step in history.steps)]).all()
    assert last.validation_accuracy is None
    assert history.mean.keys() == dm.tensors(spec).keys()


def test_fitting_learns_a_function_of_two_columns(tables):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 5)).astype("float32")
    recipe = dm.Recipe(epochs=20, batch_size=32, learning_rate=0.05, momentum=0.9)
    spec = TabularConfig(5, growth_rate=8, num_init_features=8, block_config=(2,)).resolve()
    history = tables.fit(tables.build(spec), (x, x[:, 0] * x[:, 1]), recipe)
    assert history.epochs[-1].loss < 0.2 * history.epochs[0].loss


def test_fitting_does_not_change_its_arguments(tables):
    spec = small_table("dense")
    x, y = (array.astype("float32") for array in rows(spec))
    copies = x.copy(), y.copy()
    tables.fit(tables.build(spec), (x, y), dm.Recipe(epochs=1, batch_size=4))
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(y, copies[1])


def test_a_destroyed_network_is_not_a_result(tables):
    recipe = dm.Recipe(epochs=3, batch_size=2, learning_rate=1e10)
    expected = "expected (a finite loss|finite weights and velocities), found"
    with pytest.raises(dm.TrainingError, match=expected):
        tables.fit(tables.build(small_table("bare")), rows(small_table("bare")), recipe)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, y: (x[:, :4], y), dm.ImageError, r"rows: expected shape \(N, 5\)"),
        (lambda x, y: (x, y[:-1]), dm.ImageError, "targets: expected 7 numbers, found shape"),
        (lambda x, y: (x, y[:, None]), dm.ImageError, r"targets: .* found shape \(7, 1\)"),
        (lambda x, y: (x, y / 0), dm.ImageError, "targets: expected finite numbers"),
        (
            lambda x, y: (x[:1], y[:1]),
            dm.ImageError,
            r"rows: expected shape \(N, 5\) with N at least 2",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_unsuitable_rows_are_refused_by_name(tables, change, error, message):
    spec = small_table("dense")
    model = tables.build(spec)
    before, data = tables.export_weights(model), change(*rows(spec))
    recipe = dm.Recipe(epochs=1, batch_size=2)
    with pytest.raises(error, match=f"^data: {message}"):
        tables.fit(model, data, recipe)
    with pytest.raises(error, match=f"^{message}"):
        tables.loss_and_gradients(model, *data)
    if len(data[0]) > 1:  # one row is enough for validation
        with pytest.raises(error, match=f"^validation: {message}"):
            tables.fit(model, rows(spec), recipe, validation=data)
    for name, array in tables.export_weights(model).items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("data", "recipe", "message"),
    [
        (3, {}, r"data: expected \(rows, targets\), found int"),
        (None, {"batch_size": 8}, "batch_size: expected at most the 7 examples, found 8"),
        (None, {"flip": True}, "flip: expected False for a network for tables; found True"),
        (None, {"label_smoothing": 0.1}, "label_smoothing: expected 0.0 for a network for tables"),
        (None, {"train_features": False}, "train_features: expected True for a network for"),
        (None, {"bfloat16": True}, "bfloat16: expected False for a network for tables"),
    ],
)
def test_recipes_for_images_are_refused_by_name(tables, data, recipe, message):
    spec = small_table("dense")
    given = rows(spec) if data is None else data
    with pytest.raises(dm.ConfigError, match=message):
        tables.fit(tables.build(spec), given, dm.Recipe(**{"epochs": 1, "batch_size": 2, **recipe}))


def test_a_run_draws_no_progress_bar_even_on_a_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    spec = small_table("dense")
    run = RowRun(Subject(spec, "float64"), rows(spec), dm.Recipe(batch_size=2))
    assert run._new_bar().disable
    assert not Run._new_bar(run).disable


def test_the_contract_shares_what_images_have():
    for name in ("import_weights", "export_weights", "count_parameters"):
        assert getattr(TabularBackend, name) is getattr(Backend, name)
