"""House prices: which tables are refused, what preprocessing knows, and what a file keeps."""

import csv
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import densenet_multi as dm
from densenet_multi.data.table import Table
from densenet_multi.formats import portable
from densenet_multi.tabular import TabularConfig, predict
from densenet_multi.tasks import house_prices as task

ROWS = 60


def houses(rows=ROWS, **changed):
    """A table whose prices follow from the area and the street; some cells are missing."""
    draw = np.random.default_rng(0)
    area, street = draw.uniform(50, 300, rows), draw.integers(0, 3, rows)
    price = 1000 * area * (1 + street) * draw.uniform(0.95, 1.05, rows)
    columns = {
        "Id": range(1, rows + 1),
        "Area": [f"{a:.1f}" if i % 9 else "NA" for i, a in enumerate(area)],
        "Street": [("Pave", "Grvl", "")[s] for s in street],
        "Year": draw.integers(1900, 2000, rows),
        "Fence": ["wood" if i % 4 else "" for i in range(rows)],
        "Country": ["US"] * rows,
        "Pool": ["NA"] * rows,
        "Floors": ["2" if i % 2 else "NA" for i in range(rows)],
        "SalePrice": [f"{p:.0f}" for p in price],
        **changed,
    }
    return Table("train.csv", {name: [*map(str, cells)] for name, cells in columns.items()})


def without_prices(table, name="test.csv"):
    columns = {column: cells for column, cells in table.columns.items() if column != "SalePrice"}
    return Table(name, columns)


def test_columns_are_numbers_texts_or_dropped_and_the_id_is_no_feature():
    found = task.read_houses(houses(), "SalePrice")
    assert found.numbers == ["Area", "Year"]
    assert found.texts == ["Street", "Fence"]  # a text that may be missing says something
    assert found.constant == ["Country", "Pool", "Floors"]  # a number that may be missing: nothing
    assert np.isnan(found.cells[0][::9, 0]).all()
    assert not np.isnan(found.cells[0][1:9]).any()
    dropped = "column '{}' is dropped: all its cells are equal or missing"
    assert found.notes == [dropped.format(name) for name in found.constant]
    np.testing.assert_allclose(np.exp(found.log_price[0]), float(houses().columns["SalePrice"][0]))


@pytest.mark.parametrize("cell", ["7 x", "1_000", "inf", "nan()", "١٢", "0x1f"])
def test_a_column_with_numbers_and_a_word_is_read_as_text_and_that_is_said(cell):
    found = task.read_houses(
        houses(Year=["1.5e3", *[str(1900 + i) for i in range(58)], cell]), "SalePrice"
    )
    assert "Year" in found.texts
    assert f"column 'Year' is read as text: {cell!r} is not a number" in found.notes


@pytest.mark.parametrize("cell", ["7", "+7.", ".5", "-7.5E-3"])
def test_a_decimal_number_is_a_number(cell):
    found = task.read_houses(houses(Year=[cell, *range(1, ROWS)]), "SalePrice")
    assert "Year" in found.numbers
    assert found.cells[0][0, found.numbers.index("Year")] == float(cell)


REFUSED = [
    ({}, "Price", "train.csv: column 'Price' does not exist; did you mean 'SalePrice'"),
    ({"SalePrice": [0, *range(1, ROWS)]}, "SalePrice", "price above 0 .* found '0' in row 1 below"),
    ({"SalePrice": [*range(1, ROWS), -5]}, "SalePrice", "price above 0 .* found '-5' in row 60"),
    ({"SalePrice": [*range(1, ROWS), ""]}, "SalePrice", "'SalePrice', found '' in row 60"),
    ({"SalePrice": ["many"] * ROWS}, "SalePrice", "in column 'SalePrice', found 'many' in row 1"),
    ({"SalePrice": ["inf"] * ROWS}, "SalePrice", "in column 'SalePrice', found 'inf' in row 1"),
    ({"SalePrice": [7] * ROWS}, "SalePrice", "different prices, found 60 rows with 1 prices"),
]


@pytest.mark.parametrize(("changed", "target", "message"), REFUSED)
def test_a_target_that_is_no_price_is_refused_by_name(changed, target, message):
    with pytest.raises(dm.ConfigError, match=message):
        task.read_houses(houses(**changed), target)


def test_three_rows_are_refused():
    with pytest.raises(dm.ConfigError, match="at least 20 rows and different prices, found 3 rows"):
        task.read_houses(houses(3), "SalePrice")


def test_a_text_of_a_thousand_levels_is_refused_by_name():
    names = [f"{i} Main Street" for i in range(1000)]
    table = houses(1000, Address=names)
    message = "255 different texts in column 'Address', found 1,000, such as '0 Main Street'"
    with pytest.raises(dm.ConfigError, match=message):
        task.read_houses(table, "SalePrice")
    table.columns["Address"] = [f"Street {i % 255}" for i in range(1000)]
    assert "Address" in task.read_houses(table, "SalePrice").texts


def test_a_table_without_a_feature_is_refused():
    table = Table("t.csv", {"Id": [*map(str, range(30))], "Price": [*map(str, range(1, 31))]})
    with pytest.raises(
        dm.ConfigError, match=r"t\.csv: expected a column beside 'Price' that varies"
    ):
        task.read_houses(table, "Price")


# --- Preprocessing ------------------------------------------------------------------------------


def test_inputs_are_those_of_scikit_learns_own_transformers():
    found = task.read_houses(houses(), "SalePrice")
    fit, test = np.arange(40), np.arange(40, ROWS)
    numbers = make_pipeline(
        SimpleImputer(strategy="median"), FunctionTransformer(task.signed_log), StandardScaler()
    )
    levels = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    both = ColumnTransformer([("numbers", numbers, [0, 1]), ("texts", levels, [2, 3])])
    table = np.concatenate([each.astype(object) for each in found.cells], axis=1)
    both.fit(table[fit])
    fitted = task.fit_preprocessing(found, fit)
    actual = task.inputs(fitted, found.cells)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual[test], both.transform(table[test]), rtol=1e-6, atol=1e-6)


def test_a_number_far_from_all_others_is_clipped():
    """Otherwise one house with a pool would decide the gradient, and training diverge."""
    areas = ["100", "110"] * (ROWS // 2)
    areas[7] = "1e9"
    found = task.read_houses(houses(Area=areas), "SalePrice")
    x = task.inputs(task.fit_preprocessing(found), found.cells)
    assert x[7, 0] == task.MOST_DEVIATIONS
    assert (np.abs(x[:, 0]) < 1).sum() == ROWS - 1


def test_preprocessing_is_fitted_to_the_given_rows_alone():
    fit = np.arange(40)
    changed = houses()
    for column in ("Area", "Year"):
        changed.columns[column][40:] = ["1e6"] * (ROWS - 40)
    changed.columns["Street"][40:] = ["Moon"] * (ROWS - 40)
    changed.columns["SalePrice"][40:] = ["5"] * (ROWS - 40)
    first, second = (task.read_houses(table, "SalePrice") for table in (houses(), changed))
    assert task.fit_preprocessing(first, fit) == task.fit_preprocessing(second, fit)
    assert task.fit_preprocessing(first) != task.fit_preprocessing(second)


def test_the_log_price_is_standardized():
    found = task.read_houses(houses(), "SalePrice")
    z = task.targets(task.fit_preprocessing(found), found)
    assert z.mean() == pytest.approx(0, abs=1e-6)
    assert z.std() == pytest.approx(1, abs=1e-6)


def test_unseen_levels_are_zeros_and_missing_numbers_the_median():
    found = task.read_houses(houses(), "SalePrice")
    fitted = task.fit_preprocessing(found)
    table = without_prices(houses())
    table.columns["Street"] = ["Moon"] * ROWS
    table.columns["Year"] = [""] * ROWS
    x = task.inputs_of(table, fitted)
    assert not x[:, 2:5].any()
    year, mean, std = (fitted["numbers"][1][name] for name in ("median", "mean", "std"))
    assert year == np.median(found.cells[0][:, 1])
    np.testing.assert_allclose(x[:, 1], (math.log1p(year) - mean) / std, rtol=1e-5)


@pytest.mark.parametrize("only", ["Area", "Street"])
def test_a_table_of_numbers_alone_or_of_texts_alone_is_enough(only):
    table = houses()
    table = Table("t.csv", {name: table.columns[name] for name in (only, "SalePrice")})
    found = task.read_houses(table, "SalePrice")
    x = task.inputs(task.fit_preprocessing(found), found.cells)
    assert x.shape == (ROWS, 1 if only == "Area" else 3)
    assert np.isfinite(x).all()


# --- Folds --------------------------------------------------------------------------------------


@pytest.fixture
def spy():
    """A regressor that writes down what it is fitted to."""
    seen = []

    class Spy(LinearRegression):
        def fit(self, x, z):
            seen.append(x)
            return super().fit(x, z)

    return SimpleNamespace(regressor=Spy, seen=seen)


def test_folds_are_the_same_for_every_model_and_follow_from_the_seed(spy):
    found = task.read_houses(houses(), "SalePrice")
    steps = []
    errors = task.cross_validate(spy.regressor, found, 3, steps.append)
    assert steps == [f"fold {i}" for i in range(1, 6)]
    again, others = (task.cross_validate(spy.regressor, found, seed) for seed in (3, 4))
    assert errors == again != others
    for one, other in zip(spy.seen[:5], spy.seen[5:10], strict=True):
        np.testing.assert_array_equal(one, other)
    assert [len(x) for x in spy.seen[:5]] == [48] * 5


def test_the_error_is_that_of_the_logarithm():
    """A model that predicts the mean of the training rows has their spread as its error."""
    found = task.read_houses(houses(), "SalePrice")

    errors = task.cross_validate(DummyRegressor, found, 0)
    split = KFold(5, shuffle=True, random_state=0).split(found.log_price)
    for error, (fit, test) in zip(errors, split, strict=True):
        difference = found.log_price[test] - found.log_price[fit].mean()
        assert error == pytest.approx(np.sqrt(np.mean(difference**2)))


def test_preprocessing_and_model_see_the_other_folds_alone(spy, monkeypatch):
    found = task.read_houses(houses(), "SalePrice")
    fitted_to = []
    fit = task.fit_preprocessing

    def fit_and_write_down(houses, rows):
        fitted_to.append(rows)
        return fit(houses, rows)

    monkeypatch.setattr(task, "fit_preprocessing", fit_and_write_down)
    task.cross_validate(spy.regressor, found, 0)
    assert [len(rows) for rows in fitted_to] == [48] * 5
    assert set.intersection(*(set(rows) for rows in fitted_to)) == set()
    for rows, x in zip(fitted_to, spy.seen, strict=True):
        np.testing.assert_array_equal(x, task.inputs(fit(found, rows), found.cells)[rows])


# --- Networks -----------------------------------------------------------------------------------


@pytest.fixture
def untrained(monkeypatch):
    """A backend whose networks keep their initial weights; it writes down the recipes."""
    recipes = []

    def build(spec, seed):
        return SimpleNamespace(spec=spec, weights=dm.init_weights(spec, seed))

    backend = SimpleNamespace(
        build=build,
        fit=lambda _model, _data, recipe: recipes.append(recipe),
        predict=lambda model, x: predict(model.spec, model.weights, x),
        export_weights=lambda model: model.weights,
    )
    monkeypatch.setattr(task, "load_tabular", lambda _: backend)
    return recipes


def test_a_network_fits_any_number_of_inputs_and_small_tables(untrained):
    network = task.Network("torch", TabularConfig(1, growth_rate=3))
    spec = network.fit(np.zeros((16, 7), np.float32), np.zeros(16)).model.spec
    assert (spec.config.in_features, spec.config.growth_rate) == (7, 3)
    assert untrained[0].batch_size == 16
    chain = task.Network("torch", TabularConfig(1, growth_rate=3), chain=True)
    spec = chain.fit(np.zeros((100, 7), np.float32), np.zeros(100)).model.spec
    assert not spec.config.concatenate
    assert untrained[1].batch_size == task.RECIPE.batch_size


@pytest.mark.usefixtures("untrained")
def test_the_saved_file_has_the_preprocessing_and_makes_the_submission(tmp_path):
    found, test = task.read_houses(houses(), "SalePrice"), without_prices(houses(5))
    test.columns["Id"] = [str(1461 + i) for i in range(5)]
    test.columns["Street"][0] = "Moon"
    output, submission = tmp_path / "net.safetensors", tmp_path / "out.csv"
    network, steps = task.Network("torch"), []
    report = task.house_prices(
        found, network, output, test=test, submission=submission, step=steps.append
    )
    fitted = task.fit_preprocessing(found)  # not the file's, whose keys may have another order
    assert portable.load_tabular(output)[2] == fitted
    mean, std = fitted["log_price"]["mean"], fitted["log_price"]["std"]
    expected = np.exp(mean + std * network.predict(task.inputs_of(test, fitted)))
    np.testing.assert_allclose(task.predict_prices(output, test), expected, rtol=1e-6)
    with submission.open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["Id", "SalePrice"]
    assert [line[0] for line in lines] == ["1461", "1462", "1463", "1464", "1465"]
    np.testing.assert_allclose([float(line[1]) for line in lines], expected, rtol=1e-6)
    assert submission.read_bytes().count(b"\n") == 6
    assert b"\r" not in submission.read_bytes()
    assert steps == [*(f"fold {i}" for i in range(1, 6)), "all rows"]
    errors = [fold["rmse_log"] for fold in report["folds"]]
    assert report["rmse_log"]["mean"] == pytest.approx(np.mean(errors))
    assert (report["rows"], report["features"]) == (ROWS, 2 + 3 + 2)
    assert report["constant"] == ["Country", "Pool", "Floors"]


def test_a_file_without_this_preprocessing_is_refused(tmp_path):
    spec, path = TabularConfig(2).resolve(), tmp_path / "net.safetensors"
    dm.save_weights(path, spec, dm.init_weights(spec), preprocessing={"target": "SalePrice"})
    message = f"^{path}: preprocessing.columns: expected a list, found none; use a file that"
    with pytest.raises(dm.ConfigError, match=message):
        task.predict_prices(path, without_prices(houses()))


def other_columns():
    table = without_prices(houses(5))
    table.columns["Garage"] = table.columns.pop("Area")
    return table


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (
            other_columns(),
            r"test.csv: .* without 'SalePrice', found others; add 'Area' and remove 'Garage'",
        ),
        (Table("test.csv", houses(5).columns), "found others; remove 'SalePrice'"),
        (
            Table("test.csv", {name: [] for name in without_prices(houses()).columns}),
            "test.csv: expected at least one row, found none",
        ),
        (
            without_prices(houses(5, Area=["1", "big", "2", "3", "4"])),
            "'Area', found 'big' in row 2",
        ),
    ],
)
def test_a_test_file_that_cannot_be_used_is_refused_before_training(
    untrained, tmp_path, test, message
):
    found = task.read_houses(houses(), "SalePrice")
    with pytest.raises(dm.ConfigError, match=message):
        task.house_prices(
            found,
            task.Network("torch"),
            tmp_path / "net.safetensors",
            test=test,
            submission=tmp_path / "out.csv",
        )
    assert not untrained
    assert not list(tmp_path.iterdir())


def test_without_scikit_learn_the_error_states_how_to_install_it(monkeypatch):
    found = task.read_houses(houses(), "SalePrice")
    for name in [each for each in sys.modules if each.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(
        dm.BackendNotInstalledError, match=r"house-prices needs 'sklearn'.*tabular\]"
    ):
        task.fit_preprocessing(found)


def test_a_trained_network_predicts_better_than_the_mean(backend):
    found = task.read_houses(houses(), "SalePrice")
    network = task.Network(backend.NAME)
    assert np.mean(task.cross_validate(lambda: network, found, 0)) < 0.6 * found.log_price.std()
