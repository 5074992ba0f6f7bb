"""Exercise 5: models are compared in the same folds, and the options one at a time or all."""

import warnings
from dataclasses import replace
from statistics import mean
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from sklearn.linear_model import Ridge

import densenet_multi as dm
from densenet_multi.exercises import Settings, exercise, house_prices
from densenet_multi.manifest import count_parameters
from densenet_multi.tabular import plain
from densenet_multi.tasks import house_prices as task

TINY = replace(task.ANY_INPUTS, growth_rate=4, num_init_features=8)
REGRESSOR = house_prices._regressor


@pytest.fixture
def path(tmp_path):
    draw = np.random.default_rng(0)
    area, rooms = draw.uniform(50, 300, 60), draw.integers(1, 9, 60)
    price = 1000 * area * rooms**0.3 * draw.uniform(0.9, 1.1, 60)
    lines = [f"{a:.1f},{r},{p:.0f}" for a, r, p in zip(area, rooms, price, strict=True)]
    path = tmp_path / "ames.csv"
    path.write_text("\n".join(["Area,Rooms,Sale_Price", *lines]))
    return path


@pytest.fixture
def made(monkeypatch):
    """What is compared: (name, network, seed); a ridge regression stands in for every model."""
    asked = []

    def regressor(name, network, seed, _hidden):
        asked.append((name, network, seed))
        options = [getattr(network.config, option) for option in house_prices.CHOICES]
        return Ridge(alpha=1 + sum(map(ord, f"{name}{options}")) % 50)

    monkeypatch.setattr(house_prices, "_regressor", regressor)
    return asked


def test_every_model_gets_each_seed_and_its_errors_are_summarized(path, made):
    result = exercise("house-prices").run(Settings(backend="torch", csv=path, seeds=2))
    assert (result["target"], result["rows"], result["features"]) == ("Sale_Price", 60, 2)
    assert list(result["models"]) == list(house_prices.NAMES)
    for name, found in result["models"].items():
        assert [len(folds) for folds in found["folds"]] == [task.FOLDS] * 2
        assert {seed for asked, _, seed in made if asked == name} == {0, 1}
        means = [mean(folds) for folds in found["folds"]]
        assert found["rmse_log"]["mean"] == pytest.approx(mean(means))
        assert found["rmse_log"]["std"] == pytest.approx(abs(means[0] - means[1]) / 2**0.5)
    assert result["settings"]["csv"] == "ames.csv"
    assert "Sale_Price" in house_prices.tables(result)[0].note


def test_models_of_a_seed_have_the_same_folds(path):
    houses = task.read_houses(house_prices.read_csv(path), "Sale_Price")
    network = task.Network("torch", TINY)
    one = house_prices.compare(houses, network, 2, ["ridge"])["models"]["ridge"]["folds"]
    assert one[0] == task.cross_validate(lambda: REGRESSOR("ridge", network, 0, ()), houses, 0)
    assert one[1] == task.cross_validate(lambda: REGRESSOR("ridge", network, 0, ()), houses, 1)
    assert one[0] != one[1]


@pytest.mark.usefixtures("made")
def test_three_seeds_are_the_default(path):
    result = exercise("house-prices").run(Settings(backend="torch", csv=path))
    assert len(result["models"]["densenet"]["folds"]) == 3


def test_options_change_one_at_a_time_or_all_in_the_long_version(path, made):
    settings = Settings(backend="torch", csv=path, seeds=1)
    options = exercise("house-prices").run(settings)["options"]
    assert sorted(each["changed"] for each in options) == [0, 1, 1, 1, 1]
    assert not any("mlp" in each for each in options)
    assert {network.config.normalization for _, network, _ in made} == {"none", "batch"}
    assert {network.config.drop_rate for _, network, _ in made} == {0.0, 0.1}
    options = exercise("house-prices").run(replace(settings, full=True))["options"]
    assert len(options) == 2 * 3 * 2
    assert all("mlp" in each for each in options)
    assert len({tuple(each[name] for name in house_prices.CHOICES) for each in options}) == 12
    default = next(each for each in options if not each["changed"])
    assert all(default[name] == getattr(task.ANY_INPUTS, name) for name in house_prices.CHOICES)


def test_the_plain_networks_have_equal_parameters(path, monkeypatch):
    houses = task.read_houses(house_prices.read_csv(path), "Sale_Price")
    network, found = task.Network("torch", TINY), []

    def regressor(*given):
        found.append(REGRESSOR(*given))
        return found[-1]

    monkeypatch.setattr(house_prices, "_regressor", regressor)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        models = house_prices.compare(houses, network, 1, ["mlp_sklearn"])["models"]
    assert not warned
    count = sum(each.size for each in (*found[0].coefs_, *found[0].intercepts_))
    assert models["mlp_sklearn"]["parameters"] == count
    assert count == count_parameters(plain(replace(TINY, in_features=2)).resolve()).trainable
    mlp, dense = (REGRESSOR(name, network, 5, ()) for name in ("mlp", "densenet"))
    assert mlp.chain
    assert (dense.chain, dense.recipe.seed, dense.config) == (False, 5, TINY)


@pytest.mark.usefixtures("made")
def test_tables_and_drawing_show_every_model_and_option(path):
    result = exercise("house-prices").run(Settings(backend="torch", csv=path, seeds=2))
    models, options = house_prices.tables(result)
    assert [row[0] for row in models.rows] == list(house_prices.NAMES.values())
    assert models.rows[3][4] == "+0.0%"  # boosting, compared with itself
    assert "95% interval" in models.note
    assert [row[-1] for row in options.rows].count("default") == 1
    means = [float(row[3]) for row in options.rows]
    assert means == sorted(means) != [means[0]] * len(means)
    drawing = ET.fromstring(house_prices.draw(result))  # noqa: S314  # ours
    dots = [each for each in drawing.iter() if each.tag.endswith("circle")]
    assert len(dots) == 2 * (len(house_prices.NAMES) + 4)
    texts = [each.text for each in drawing.iter() if each.tag.endswith("text")]
    assert {"gradient boosting", "DenseNet, normalization batch"} <= set(texts)
    del result["options"]  # as house-prices --compare prints it
    assert len(house_prices.tables(result)) == 1


@pytest.mark.usefixtures("made")
def test_one_seed_says_nothing_about_spread(path):
    result = exercise("house-prices").run(Settings(backend="torch", csv=path, seeds=1))
    assert result["models"]["ridge"]["rmse_log"]["std"] is None
    table = house_prices.tables(result)[0]
    assert table.rows[0][3] == ""
    assert "interval" not in table.note
    ET.fromstring(house_prices.draw(result))  # noqa: S314  # ours


def test_without_a_table_it_states_what_to_add():
    with pytest.raises(dm.ConfigError, match=r"^csv: expected a table .* found none; add csv="):
        exercise("house-prices").run(Settings(backend="torch"))
