"""Recipes, and what a run does besides its steps: batches, learning rates, checks."""

import copy
import json
from dataclasses import fields, replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import densenet_multi as dm
from cases import images, labels, small
from densenet_multi.data import (
    Arrays,
    FashionMNIST,
    Pixels,
    Preparation,
    augment,
    epoch_order,
    load_sample,
    to_input,
)
from densenet_multi.training.history import History
from densenet_multi.training.run import Run, Subject

# --- Recipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("epochs", 0, "an integer from 1 to 100,000"),
        ("epochs", 1.5, "an integer from 1 to 100,000"),
        ("batch_size", 1, "an integer from 2 to 1,048,576"),
        ("seed", -1, "an integer from 0 to 18,446,744,073,709,551,615"),
        ("learning_rate", 0, "a finite number above 0"),
        ("learning_rate", float("nan"), "a finite number above 0"),
        ("learning_rate", "0.1", "a finite number above 0"),
        ("momentum", 1, "a number from 0 up to but not including 1"),
        ("weight_decay", -1e-4, "a finite number of at least 0"),
        ("learning_rate_factor", 2, "a number above 0 and at most 1"),
        ("milestones", 0.5, "increasing fractions between 0 and 1"),
        ("milestones", (0.5, 0.5), "increasing fractions between 0 and 1"),
        ("milestones", (0.75, 0.5), "increasing fractions between 0 and 1"),
        ("milestones", (0.5, 1.0), "increasing fractions between 0 and 1"),
        ("milestones", (150, 225), "increasing fractions between 0 and 1"),
        ("nesterov", 1, "True or False"),
        ("warmup", 1, "a number from 0 up to but not including 1"),
        ("label_smoothing", 1.0, "a number from 0 up to but not including 1"),
        ("shift", -1, "an integer from 0 to 4,096"),
        ("flip", 1, "True or False"),
        ("bfloat16", "yes", "True or False"),
        ("image_size", 0, "an integer from 1 to 4,096"),
        ("recalibrate", -1, "an integer from 0 to 1,048,576"),
        ("average", 1.5, "a number from 0 to 1"),
    ],
)
def test_an_impossible_value_is_refused_by_name(field, value, allowed):
    with pytest.raises(dm.ConfigError, match=f"^{field}: expected {allowed}.*found") as caught:
        dm.Recipe(**{field: value})
    assert repr(value) in str(caught.value)


def test_nesterov_needs_momentum():
    with pytest.raises(dm.ConfigError, match="momentum: expected a number above 0 with nesterov"):
        dm.Recipe(nesterov=True)


def test_an_unknown_field_is_refused_with_the_nearest():
    with pytest.raises(dm.ConfigError, match=r"'lr' does not exist.*known: variant"):
        dm.Recipe(lr=0.1)
    with pytest.raises(dm.ConfigError, match="did you mean 'epochs'"):
        dm.Recipe(epoch=3)


def test_a_recipe_is_a_value():
    recipe = dm.RECIPES["paper"]
    assert recipe == copy.deepcopy(recipe)
    assert hash(recipe) == hash(replace(recipe))
    assert replace(recipe, epochs=40) != recipe
    assert dm.Recipe(milestones=[0.5]).milestones == (0.5,)


def test_the_chapters_recipe_is_the_chapters():
    recipe = dm.Recipe(
        initialization="xavier",
        recalibrate=24,
        average=0.5,
        epochs=10,
        batch_size=256,
        learning_rate=0.1,
    )
    assert dm.RECIPES["chapter"] == recipe


@pytest.mark.parametrize(
    ("epochs", "fraction", "averaged"),
    [
        (10, 0.5, [6, 7, 8, 9, 10]),
        (3, 0.5, [2, 3]),
        (1, 0.5, [1]),
        (4, 1, [1, 2, 3, 4]),
        (4, 0, []),
    ],
)
def test_the_last_epochs_are_averaged(epochs, fraction, averaged):
    recipe = dm.Recipe(epochs=epochs, average=fraction, recalibrate=1)
    assert list(recipe.averaged_epochs) == averaged


def test_a_fraction_of_the_epochs_is_what_is_written():
    """In floating point, 0.07 * 100 is more than 7."""
    for hundredths in range(101):
        recipe = dm.Recipe(epochs=100, average=hundredths / 100)
        assert len(recipe.averaged_epochs) == hundredths


def test_a_history_is_compared_and_shown_without_its_mean():
    one, other = (History(dm.Recipe(), mean={"w": np.ones(2)}) for _ in range(2))
    assert one == other
    assert "mean" not in repr(one)


@pytest.mark.parametrize(
    ("field", "most"),
    [
        ("epochs", 100_000),
        ("batch_size", 2**20),
        ("recalibrate", 2**20),
        ("shift", 4_096),
        ("image_size", 4_096),
        ("seed", 2**64 - 1),
    ],
)
def test_the_counts_of_a_recipe_have_bounds(field, most):
    assert getattr(dm.Recipe(**{field: most}), field) == most
    expected = f"{field}: expected an integer from [012] to {most:,}; found {most + 1}"
    with pytest.raises(dm.ConfigError, match=expected):
        dm.Recipe.from_json(json.dumps({field: most + 1}))


def test_the_steps_of_a_recipe_have_a_bound():
    recipe = dm.Recipe(epochs=100_000)
    with pytest.raises(dm.ConfigError, match="at most 10,000,000 steps in all, found 23,500,000"):
        recipe.learning_rates(recipe.epochs * 235)


def test_the_milestones_of_a_recipe_have_a_bound():
    many = [i / 1_002 for i in range(1, 1_002)]
    assert len(dm.Recipe(milestones=many[1:]).milestones) == 1_000
    with pytest.raises(dm.ConfigError, match=r"milestones: expected .*; found .{500}\.\.\.$"):
        dm.Recipe(milestones=many)


def test_the_papers_learning_rate_falls_at_half_and_at_three_quarters():
    recipe = dm.RECIPES["paper"]
    rates = recipe.learning_rates(recipe.epochs)  # as if an epoch were one step
    np.testing.assert_allclose(rates, [0.1] * 150 + [0.01] * 75 + [0.001] * 75, rtol=1e-7)
    assert (recipe.momentum, recipe.nesterov, recipe.weight_decay) == (0.9, True, 1e-4)


@given(st.floats(1e-6, 10), st.floats(0, 0.99), st.floats(1e-8, 0.1))
def test_numbers_are_rounded_to_float32_once(rate, momentum, decay):
    recipe = dm.Recipe(learning_rate=rate, momentum=momentum, weight_decay=decay)
    rounded = recipe.rounded()
    assert rounded == rounded.rounded()
    for field in fields(recipe):
        value = getattr(rounded, field.name)
        if isinstance(value, float):
            assert value == np.float32(getattr(recipe, field.name))
    assert rounded.learning_rates(3) == [np.float32(rate)] * 3


def test_cosine_and_linear_fall_to_zero_after_the_warmup():
    cosine = dm.Recipe(learning_rate=1.0, schedule="cosine", warmup=0.2).learning_rates(10)
    np.testing.assert_allclose(cosine[:3], [1 / 3, 2 / 3, 1], rtol=1e-6)
    np.testing.assert_allclose(cosine[6], 0.5, rtol=1e-6)  # halfway from step 2 to step 10
    assert cosine[2:] == sorted(cosine[2:], reverse=True)
    linear = dm.Recipe(learning_rate=1.0, schedule="linear").learning_rates(4)
    np.testing.assert_allclose(linear, [1, 0.75, 0.5, 0.25], rtol=1e-6)


def test_an_unknown_schedule_and_milestones_without_steps_are_refused():
    with pytest.raises(dm.ConfigError, match="did you mean 'cosine'"):
        dm.Recipe(schedule="cosin")
    with pytest.raises(dm.ConfigError, match="milestones: expected none with schedule='cosine'"):
        dm.Recipe(schedule="cosine", milestones=(0.5,))


@pytest.mark.parametrize("name", dm.RECIPES)
def test_a_recipe_survives_json(name):
    assert dm.Recipe.from_json(dm.RECIPES[name].to_json()) == dm.RECIPES[name]


@pytest.mark.parametrize("text", ["", "[]", "3", '{"epoch": 3}', '{"epochs": "3"}'])
def test_json_that_is_no_recipe_is_refused(text):
    with pytest.raises(dm.ConfigError):
        dm.Recipe.from_json(text)


# --- Examples -----------------------------------------------------------------------------------


def test_fashion_mnist_is_scaled_and_resized_when_it_is_taken():
    pixels, targets = load_sample("test")
    taken = FashionMNIST(pixels, targets, image_size=40).take(np.array([5, 3]))
    np.testing.assert_array_equal(taken, to_input(pixels[[5, 3]], 40))


# --- A run --------------------------------------------------------------------------------------


def training(count=11, **recipe):
    spec = small("plain")
    x = images(spec, 8, count=count)
    x[:, 0, 0, 0] = np.arange(count)  # each image contains its own number
    recipe = dm.Recipe(**{"epochs": 2, "batch_size": 3, **recipe})
    return Run(Subject(spec, "float32"), (x, np.arange(count) % 5), recipe)


def seen(run, epoch):
    batches = [run.batch(epoch, index) for index in range(run.steps_per_epoch)]
    return batches, [x[:, 0, 0, 0].astype(int).tolist() for x, _ in batches]


def idle():
    """Return functions to pass to ``started`` where nothing is computed."""
    return lambda x: x, lambda: ({}, {})


def test_an_epoch_sees_every_example_once_in_another_order():
    run = training()
    for epoch in range(2):
        batches, numbers = seen(run, epoch)
        assert [len(batch) for batch in numbers] == [3, 3, 3, 2]
        assert sorted(chain.from_iterable(numbers)) == list(range(11))
        for (x, targets), batch in zip(batches, numbers, strict=True):
            assert (x.dtype, targets.dtype) == (np.float32, np.float32)
            np.testing.assert_array_equal(targets, np.eye(5)[np.array(batch) % 5])
    assert seen(run, 0)[1] != seen(run, 1)[1]
    assert seen(run, 0)[1] == seen(training(), 0)[1]
    assert seen(run, 0)[1] != seen(training(seed=1), 0)[1]


def test_one_example_left_over_is_skipped():
    _, numbers = seen(training(count=10), 0)
    assert [len(batch) for batch in numbers] == [3, 3, 3]
    _, numbers = seen(training(count=9), 0)
    assert [len(batch) for batch in numbers] == [3, 3, 3]


def test_a_run_uses_the_rounded_recipe_and_remembers_the_given_one():
    run = training(learning_rate=0.1)
    assert run.recipe.learning_rate == run.rates[0] == float(np.float32(0.1)) != 0.1
    assert run.history.recipe.learning_rate == 0.1


def test_batches_come_with_the_learning_rate_of_their_step():
    run = training(learning_rate=0.5, milestones=(0.5,), learning_rate_factor=0.5)
    rates = []
    with run.started(*idle()):
        for epoch in run.epochs_left:
            for index, (x, _, rate) in enumerate(run.batches()):
                np.testing.assert_array_equal(x, run.batch(epoch, index)[0])
                rates.append(rate)
                run.record(1.0, 0.5)
            run.finish_epoch()
    assert rates == [0.5] * 4 + [0.25] * 4


def test_targets_are_smoothed():
    run = training(label_smoothing=0.25)
    _, targets = run.batch(0, 0)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.unique(targets), [0.05, 0.8], rtol=1e-6)


def test_every_bit_of_a_seed_makes_another_order_and_other_changes():
    seeds = [5, 6, 5 + (1 << 32), 5 + (3 << 32), 2**64 - 1]
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in seeds for epoch in (0, 1, 3)}
    assert len(orders) == 15
    images, numbers = np.arange(16 * 64, dtype=np.float32).reshape(16, 1, 8, 8), np.arange(16)
    changed = {
        augment(images, seed, epoch, numbers, flip=True, shift=3).tobytes()
        for seed in seeds
        for epoch in (0, 1, 3)
    }
    assert len(changed) == 15


def test_augmentation_follows_from_the_seed_the_epoch_and_the_example():
    run = training(flip=True, shift=2, seed=3)
    for epoch in range(2):
        plain = training(seed=3).batch(epoch, 1)[0]
        order = epoch_order(11, 3, epoch)[3:6]
        expected = augment(plain, 3, epoch, order, flip=True, shift=2)
        for _ in range(2):
            np.testing.assert_array_equal(run.batch(epoch, 1)[0], expected)
        assert not np.array_equal(expected, plain)


def test_what_nothing_was_shifted_to_is_black():
    usage = dm.Usage(value_range=(0, 1), mean=(0.5,), std=(0.25,))
    pixels = np.full((8, 1, 28, 28), 255, np.uint8)
    data = Pixels(pixels, np.arange(8) % 5, Preparation(28, 1, usage))
    spec = small("plain", in_channels=1)
    run = Run(Subject(spec, "float32"), data, dm.Recipe(batch_size=8, shift=4))
    assert np.unique(run.batch(0, 0)[0]).tolist() == [-2, 2]  # black and white, normalized


def test_what_a_network_cannot_is_refused_before_the_run():
    spec = small("plain", drop_rate=0.2)
    data = images(spec, 8, count=4), labels(spec, 4)
    with pytest.raises(dm.ConfigError, match="drop_rate: expected 0 with train_features=False"):
        Run(Subject(spec, "float32"), data, dm.Recipe(batch_size=2, train_features=False))
    with pytest.raises(dm.ConfigError, match="bfloat16: expected False for a network in float64"):
        Run(Subject(spec, "float64"), data, dm.Recipe(batch_size=2, bfloat16=True))


def test_a_checkpoint_is_offered_after_every_step_but_the_last_of_an_epoch_and_after_the_epoch():
    offered = []
    spec = small("plain")
    data = images(spec, 8, count=6), labels(spec, 6)
    recipe = dm.Recipe(batch_size=2, epochs=2)
    run = Run(Subject(spec, "float32"), data, recipe, checkpoint=lambda now: offered.append(now()))
    with run.started(*idle()):
        for _ in run.epochs_left:
            for step, _ in enumerate(run.batches()):
                run.record(float(step), 0.5)
            run.finish_epoch()
    positions = [(s.steps, len(s.epochs), [u.loss for u in s.unfinished]) for s in offered]
    assert positions == [
        (1, 0, [0.0]), (2, 0, [0.0, 1.0]), (3, 1, []), (4, 1, [0.0]), (5, 1, [0.0, 1.0]), (6, 2, [])
    ]  # fmt: skip


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_step_and_the_rate(loss):
    run = training()
    with run.started(*idle()):
        run.record(1.0, 0.5)
        with pytest.raises(dm.TrainingError, match=r"step 2 \(epoch 1\).*learning rate below 0\.1"):
            run.record(loss, 0.5)
    assert len(run.history.steps) == 1


def test_validation_counts_every_example_once():
    spec = small("plain")
    x, y = images(spec, 8, count=8), labels(spec, 8)
    run = Run(
        Subject(spec, "float32"), (x, y), dm.Recipe(epochs=1, batch_size=3), validation=(x, y)
    )
    scores = np.random.default_rng(0).normal(size=(8, 5))
    asked = []

    def logits(batch):
        start = sum(asked)
        asked.append(len(batch))
        return scores[start : start + len(batch)]

    with run.started(logits, idle()[1]):
        for _ in run.batches():
            run.record(1.0, 1.0)
        run.finish_epoch()
    assert asked == [3, 3, 2]
    (epoch,) = run.history.epochs
    np.testing.assert_allclose(epoch.validation_loss, dm.reference.cross_entropy(scores, y))
    assert epoch.validation_accuracy == np.mean(scores.argmax(axis=1) == y)


@pytest.mark.parametrize("what", ["data", "validation"])
def test_every_set_of_examples_is_checked_before_the_run(what):
    spec = small("plain")
    x, y = images(spec, 8, count=8), labels(spec, 8)
    sets = {"data": (x, y), "validation": (x, y), what: (x, y + 5)}
    with pytest.raises(dm.ImageError, match=f"^{what}: labels: expected values from 0 to 4"):
        Run(Subject(spec, "float32"), recipe=dm.Recipe(batch_size=2), **sets)


def test_a_network_without_a_classifier_is_refused():
    spec = small("plain", num_classes=0)
    x = images(spec, 8, count=8)
    with pytest.raises(dm.ImageError, match="no classifier"):
        Run(Subject(spec, "float32"), (x, np.zeros(8, int)), dm.Recipe(batch_size=2))


def test_something_else_than_a_recipe_is_refused():
    spec = small("plain")
    with pytest.raises(dm.ConfigError, match=r"recipe: expected a Recipe.*found str 'chapter'"):
        Run(Subject(spec, "float32"), (images(spec, 8), labels(spec)), "chapter")


def test_lists_and_objects_with_labels_are_examples_too():
    spec = small("plain")
    x, y = images(spec, 8, count=4), labels(spec, 4)
    recipe = dm.Recipe(batch_size=2, epochs=1)
    expected = Run(Subject(spec, "float32"), (x, y), recipe).batch(0, 0)
    for data in ([x.tolist(), y.tolist()], Arrays(x, y)):
        for actual, wanted in zip(
            Run(Subject(spec, "float32"), data, recipe).batch(0, 0), expected, strict=True
        ):
            np.testing.assert_array_equal(actual, wanted)
