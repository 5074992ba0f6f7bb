"""Predict prices from a table: cross-validate a network, train one on all rows, save it.

The error is the root mean square of the differences of the prices' natural logarithms.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import ConfigError, check_names, listed
from .._files import replace_file
from .._installed import framework
from ..backends import load_tabular
from ..data.table import Table
from ..formats import portable
from ..tabular import TabularConfig, plain, predict
from ..training.fields import NUMBER, TEXT, FieldError, check
from ..training.recipe import Recipe

Array = npt.NDArray[Any]
Fitted = dict[str, Any]
Step = Callable[[str], None]

FOLDS = 5
LEAST_ROWS = 20
MOST_LEVELS = 255  # different texts in a column
MOST_DEVIATIONS = 5  # of a number from its mean; a pool in one house of 1,000 is 30 away
MISSING = ("", "?", "na", "n/a", "nan", "null")  # cells, in lower case
ID = "id"  # a column that is no feature, in lower case
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
FITTED = {  # what a file has as ``preprocessing``
    "target": TEXT,
    "columns": [TEXT, ...],
    "numbers": [{"name": TEXT, "median": NUMBER, "mean": NUMBER, "std": NUMBER}],
    "texts": [{"name": TEXT, "levels": [TEXT, ...]}],
    "log_price": {"mean": NUMBER, "std": NUMBER},
}
ANY_INPUTS = TabularConfig(1)  # replaced by the number of inputs
RECIPE = Recipe(
    epochs=40,
    batch_size=64,
    learning_rate=0.01,
    schedule="cosine",
    warmup=0.1,
    momentum=0.9,
    nesterov=True,
    weight_decay=0.02,
)


@dataclass(frozen=True)
class Houses:
    """A validated table with prices.

    ``others`` names all columns but the target. Those of ``numbers`` and ``texts`` are features,
    with values in ``cells`` (see ``cells_of``). The cells of ``constant`` are equal or missing.
    ``notes`` are sentences for the user about columns that are dropped or mixed.
    """

    target: str
    others: list[str]
    log_price: Array
    numbers: list[str]
    texts: list[str]
    constant: list[str]
    notes: list[str]
    cells: tuple[Array, Array]


def read_houses(table: Table, target: str) -> Houses:
    """Validate a table with prices; ``ConfigError`` names what cannot be used."""
    check_names(f"{table.name}: column", [target], table.columns)
    prices = _numbers(table, target, "a price above 0", lambda value: 0 < value < math.inf)
    if len(prices) < LEAST_ROWS or len(set(prices)) < 2:
        found = f"{len(prices)} rows with {len(set(prices))} prices"
        raise ConfigError(
            f"{table.name}: expected at least {LEAST_ROWS} rows and different prices, found "
            f"{found}; use a larger table"
        )
    others = [name for name in table.columns if name != target]
    numbers: list[str] = []
    texts: list[str] = []
    constant: list[str] = []
    notes: list[str] = []
    for name in others:
        levels = set(_texts(table, name))
        words = sorted(level for level in levels if math.isinf(_number(level)))
        if len(levels - {""} if not words else levels) < 2:
            constant.append(name)
            notes.append(f"column {name!r} is dropped: all its cells are equal or missing")
        elif name.lower() != ID:
            (texts if words else numbers).append(name)
            if words and any(math.isfinite(_number(level)) for level in levels):
                notes.append(f"column {name!r} is read as text: {words[0]!r} is not a number")
        if name in texts and len(levels) > MOST_LEVELS:
            raise ConfigError(
                f"{table.name}: expected numbers or at most {MOST_LEVELS} different texts in "
                f"column {name!r}, found {len(levels):,}, such as {words[0]!r}; remove the column"
            )
    if not numbers + texts:
        raise ConfigError(f"{table.name}: expected a column beside {target!r} that varies")
    cells = cells_of(table, numbers, texts)
    return Houses(target, others, np.log(prices), numbers, texts, constant, notes, cells)


def cells_of(table: Table, numbers: Iterable[str], texts: Iterable[str]) -> tuple[Array, Array]:
    """Return the cells of columns of numbers, NaN if missing, and of columns of texts.

    Both have the shape (rows, columns). Raises ``ConfigError`` for a number that is none.
    """
    real = "a finite number or nothing", lambda value: not math.isinf(value)
    values = [_numbers(table, name, *real) for name in numbers]
    levels = [_texts(table, name) for name in texts]
    rows = len(next(iter(table.columns.values())))
    return (
        np.array(values).reshape(len(values), rows).T,
        np.array(levels, object).reshape(len(levels), rows).T,
    )


def _texts(table: Table, name: str) -> list[str]:
    return ["" if cell.lower() in MISSING else cell for cell in table.columns[name]]


def _number(cell: str) -> float:
    """Return a cell's value: NaN if it is missing, infinity if it is no number."""
    if cell.lower() in MISSING:
        return math.nan
    return float(cell) if DECIMAL.fullmatch(cell) else math.inf


def _numbers(table: Table, name: str, expected: str, allowed: Callable[[float], bool]) -> Array:
    values = list(map(_number, table.columns[name]))
    if wrong := [row for row, value in enumerate(values) if not allowed(value)]:
        found = f"{table.columns[name][wrong[0]]!r} in row {wrong[0] + 1} below the header"
        raise ConfigError(
            f"{table.name}: expected {expected} in column {name!r}, found {found}; correct the row"
        )
    return np.array(values)


# --- Preprocessing ------------------------------------------------------------------------------


def fit_preprocessing(houses: Houses, rows: Any = slice(None)) -> Fitted:
    """Fit the preprocessing to some rows: plain values, which have the shape ``FITTED``.

    Columns are in lists: a file may store the fields of an object in another order. ``mean`` and
    ``std`` are those of the ``signed_log``.
    """
    with framework("tabular", "sklearn", user="house-prices"):
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import OneHotEncoder, StandardScaler
    (numbers, texts), prices = (each[rows] for each in houses.cells), houses.log_price[rows]
    columns: Any = []
    levels: Any = []
    if houses.numbers:
        imputer = SimpleImputer(strategy="median", keep_empty_features=True)
        scaler = StandardScaler().fit(signed_log(imputer.fit_transform(numbers)))
        columns = np.stack([imputer.statistics_, scaler.mean_, scaler.scale_], axis=1).tolist()
    if houses.texts:
        levels = OneHotEncoder().fit(texts).categories_
    return {
        "target": houses.target,
        "columns": houses.others,
        "numbers": [
            {"name": name, "median": median, "mean": middle, "std": std}
            for name, (median, middle, std) in zip(houses.numbers, columns, strict=True)
        ],
        "texts": [
            {"name": name, "levels": each.tolist()}
            for name, each in zip(houses.texts, levels, strict=True)
        ],
        "log_price": {"mean": float(prices.mean()), "std": float(prices.std()) or 1.0},
    }


def signed_log(x: Array) -> Array:
    """Return sign(x) * log(1 + abs(x)), which shortens the long tails of areas."""
    return np.sign(x) * np.log1p(np.abs(x))


def inputs(fitted: Fitted, cells: tuple[Array, Array]) -> Array:
    """Return (rows, features): scaled numbers, then a 1 for the level of each text, if known."""
    numbers, texts = cells
    median, middle, std = (
        [each[f] for each in fitted["numbers"]] for f in ("median", "mean", "std")
    )
    scaled = (signed_log(np.where(np.isnan(numbers), median, numbers)) - middle) / std
    parts = [scaled.clip(-MOST_DEVIATIONS, MOST_DEVIATIONS)]
    for i, each in enumerate(fitted["texts"]):
        parts.append(texts[:, i : i + 1] == np.array(each["levels"], object))
    return np.concatenate(parts, axis=1).astype(np.float32)


def targets(fitted: Fitted, houses: Houses) -> Array:
    """Return the standardized logarithms of the prices."""
    price = fitted["log_price"]
    standardized: Array = ((houses.log_price - price["mean"]) / price["std"]).astype(np.float32)
    return standardized


# --- Training -----------------------------------------------------------------------------------


@dataclass
class Network:
    """A network of a backend, with the methods of scikit-learn's regressors.

    ``config`` is for any number of inputs; ``chain`` makes its ``plain`` counterpart.
    """

    backend_name: str
    config: TabularConfig = ANY_INPUTS
    recipe: Recipe = RECIPE
    chain: bool = False

    def fit(self, x: Array, z: Array) -> Network:
        """Build and train the network for inputs x and targets z."""
        config = replace(self.config, in_features=x.shape[1])
        self.backend = load_tabular(self.backend_name)
        spec = (plain(config) if self.chain else config).resolve()
        self.model = self.backend.build(spec, seed=self.recipe.seed)
        size = min(self.recipe.batch_size, len(x))
        self.backend.fit(self.model, (x, z), replace(self.recipe, batch_size=size))
        return self

    def predict(self, x: Array) -> Array:
        """Return the predicted targets (rows,)."""
        return self.backend.predict(self.model, x)


def cross_validate(
    make: Callable[[], Any], houses: Houses, seed: int, step: Step = lambda _: None
) -> list[float]:
    """Return the error of each fold; the folds depend on the seed and the number of rows alone.

    ``make`` returns a regressor. It and the preprocessing are fitted to the other folds.
    """
    with framework("tabular", "sklearn", user="house-prices"):
        from sklearn.model_selection import KFold
    errors: list[float] = []
    for fit, test in KFold(FOLDS, shuffle=True, random_state=seed).split(houses.log_price):
        step(f"fold {len(errors) + 1}")
        fitted = fit_preprocessing(houses, fit)
        x, z = inputs(fitted, houses.cells), targets(fitted, houses)
        error = np.float64(make().fit(x[fit], z[fit]).predict(x[test])) - z[test]
        errors.append(float(fitted["log_price"]["std"] * np.sqrt(np.mean(error**2))))
    return errors


def house_prices(
    houses: Houses,
    network: Network,
    output: Path,
    *,
    test: Table | None = None,
    submission: Path | None = None,
    step: Step = lambda _: None,
) -> dict[str, Any]:
    """Cross-validate a network, then train it on all rows and save it; return a report.

    ``output`` is a portable file with network and preprocessing. ``submission`` is a CSV file of
    the predicted prices of ``test`` (see ``write_prices``). Raises ``ConfigError``, before
    training, if ``test`` cannot be used.
    """
    fitted = fit_preprocessing(houses)
    if test is not None:
        inputs_of(test, fitted)
    errors = cross_validate(lambda: network, houses, network.recipe.seed, step)
    step("all rows")
    network.fit(inputs(fitted, houses.cells), targets(fitted, houses))
    spec, weights = network.model.spec, network.backend.export_weights(network.model)
    portable.save_weights(output, spec, weights, preprocessing=fitted)
    if test is not None and submission is not None:
        write_prices(submission, output, test)
    return {
        "backend": network.backend_name,
        "rows": len(houses.log_price),
        "features": spec.config.in_features,
        "constant": houses.constant,
        "folds": [{"fold": i, "rmse_log": error} for i, error in enumerate(errors, 1)],
        "rmse_log": {"mean": mean(errors), "std": stdev(errors)},
        "model": str(output),
        "submission": submission and str(submission),
    }


def predict_prices(path: str | Path, table: Table) -> Array:
    """Return the prices (rows,) that a file of ``house_prices`` predicts, by the NumPy reference.

    Raises ``ConfigError`` for a table with other columns, and as ``portable.load_tabular``.
    """
    return _predicted(path, table)[1]


def _predicted(path: str | Path, table: Table) -> tuple[str, Array]:
    """Return the name of the prices' column, and ``predict_prices``."""
    spec, weights, fitted = portable.load_tabular(path)
    try:
        check(fitted, FITTED, "preprocessing")
    except FieldError as error:
        raise ConfigError(f"{path}: {error}; use a file that house_prices wrote") from None
    z, price = predict(spec, weights, inputs_of(table, fitted)), fitted["log_price"]
    found: Array = np.exp(price["mean"] + price["std"] * z)
    return fitted["target"], found


def ids_of(table: Table) -> list[str] | None:
    """Return the cells of the column Id, None if a table has none."""
    return next((cells for name, cells in table.columns.items() if name.lower() == ID), None)


def write_prices(output: Path, path: str | Path, table: Table) -> dict[str, Any]:
    """Write ``predict_prices`` as a CSV file with a column Id, as Kaggle accepts it.

    The rows of a table without a column Id are numbered from 1. Raises as ``predict_prices``;
    returns the number of rows, and the lowest and the highest price.
    """
    target, prices = _predicted(path, table)
    ids = ids_of(table) or range(1, len(prices) + 1)
    text = StringIO(newline="")
    rows = [("Id", target), *zip(ids, prices.tolist(), strict=True)]
    csv.writer(text, lineterminator="\n").writerows(rows)
    replace_file(output, text.getvalue().encode())
    lowest, highest = float(prices.min()), float(prices.max())
    return {"rows": len(prices), "lowest": lowest, "highest": highest, "submission": str(output)}


def inputs_of(table: Table, fitted: Fitted) -> Array:
    """Return ``inputs`` for a table without prices. Raises ``ConfigError`` for other columns."""
    known, found = set(fitted["columns"]), set(table.columns)
    wrong = {"add": known - found, "remove": found - known}
    if any(wrong.values()):
        how = [
            f"{verb} {listed(sorted(map(repr, names)), more='... ({} in all)')}"
            for verb, names in wrong.items()
            if names
        ]
        raise ConfigError(
            f"{table.name}: expected the columns of the training table without "
            f"{fitted['target']!r}, found others; {' and '.join(how)}"
        )
    if not all(table.columns.values()):
        raise ConfigError(f"{table.name}: expected at least one row, found none; use another table")
    names = [[each["name"] for each in fitted[kind]] for kind in ("numbers", "texts")]
    return inputs(fitted, cells_of(table, *names))
