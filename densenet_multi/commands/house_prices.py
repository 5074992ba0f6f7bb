"""``densenet-multi house-prices``: predict prices from a table with a DenseNet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..backends import first_installed
from .options import (
    AT_LEAST_0,
    AT_LEAST_1,
    BACKEND,
    EXISTING_FILE,
    NewFile,
    example,
    format_option,
    given,
)
from .output import errors_as_exit_codes, print_result, progress_bar, say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..data.table import Table
    from ..tasks.house_prices import Houses, Network

OUTPUT = "house-prices.safetensors"


TRAINING = (
    "densenet-multi house-prices train.csv --target SalePrice --test test.csv --submission out.csv"
)
PREDICTING = f"densenet-multi house-prices --model {OUTPUT} --test test.csv --submission out.csv"


@click.command(name="house-prices", epilog=f"{example(TRAINING)}\n  {PREDICTING}")
@click.argument("train", type=EXISTING_FILE, required=False)
@click.option("--openml", help="OpenML's data set, instead of TRAIN; needs pandas.", metavar="NAME")
@click.option("--target", help="Column of the prices; required with a table.", metavar="COLUMN")
@click.option(
    "--model",
    type=EXISTING_FILE,
    help="Train nothing: predict with a network that this command has saved.",
)
@click.option(
    "--backend",
    "backend_name",
    type=BACKEND,
    help="Backend that trains.  [default: the first installed]",
)
@click.option("--test", type=EXISTING_FILE, help="CSV file of houses without prices.")
@click.option(
    "--submission",
    type=NewFile(".csv", "choose another"),
    help="Write the predicted prices of --test to FILE.csv.",
)
@click.option(
    "--output",
    type=NewFile(".safetensors", "choose another"),
    help=f"Write the network, trained on all rows, and its preprocessing.  [default: {OUTPUT}]",
)
@click.option("--normalization", help="none or batch.  [default: none]")
@click.option("--activation", help="relu, silu or tanh.  [default: tanh]")
@click.option("--drop-rate", type=float, help="Dropout after a dense layer.  [default: 0]")
@click.option("--epochs", type=AT_LEAST_1, help="Passes over the rows.  [default: 40]")
@click.option("--learning-rate", type=float, help="Peak learning rate.  [default: 0.01]")
@click.option("--seed", type=AT_LEAST_0, help="Seed of folds, weights and order.  [default: 0]")
@click.option("--compare", is_flag=True, help="Compare with other models; save no network.")
@format_option
@errors_as_exit_codes
def house_prices(
    train: Path | None,
    *,
    model: Path | None,
    test: Path | None,
    submission: Path | None,
    compare: bool,
    output_format: str,
    **options: Any,
) -> None:
    """Predict house prices from the table TRAIN with a DenseNet of fully connected layers.

    TRAIN is a CSV file, such as train.csv of Kaggle's "House Prices", and may be compressed
    (.csv.gz). Give TRAIN or --openml. The command prints the RMSE of log(price) in 5-fold
    cross-validation, and saves a network that was trained on all rows. --test and --submission
    belong together. Training needs scikit-learn: pip install '.[tabular]' in a clone. --model
    predicts later, and needs neither scikit-learn nor a framework.
    """
    if (test is None) != (submission is None) or (compare and test):
        raise click.UsageError("--test and --submission belong together, without --compare")
    if submission and submission.exists():
        read = [path for path in (train, test, model) if path and submission.samefile(path)]
        if read:
            raise click.UsageError(f"--submission: {submission} is read; choose another file")
    if model is None:
        houses, network = _houses_and_network(train, compare=compare, **options)
        if compare:
            _compare(houses, network, output_format)
        else:
            output = options["output"] or Path(OUTPUT)
            _train(
                houses,
                network,
                output,
                test=test,
                submission=submission,
                output_format=output_format,
            )
    elif test is None or submission is None or train or compare or given(**options):
        raise click.UsageError("--model trains nothing: give it --test and --submission alone")
    else:
        _predict(model, test, submission, output_format)


def _houses_and_network(
    train: Path | None,
    *,
    openml: str | None,
    target: str | None,
    backend_name: str | None,
    output: Path | None,
    epochs: int | None,
    learning_rate: float | None,
    seed: int | None,
    compare: bool,
    **options: Any,
) -> tuple[Houses, Network]:
    from dataclasses import replace

    from ..data.table import fetch_openml, read_csv
    from ..tasks import house_prices as task

    if (train is None) == (openml is None):
        raise click.UsageError("expected TRAIN, a CSV file, or --openml NAME, or --model FILE")
    if target is None:
        raise click.UsageError("expected --target COLUMN, the column of the prices")
    if compare and (output or seed is not None):
        raise click.UsageError(
            "--compare saves no network and uses seeds of its own: omit --output and --seed"
        )
    table = read_csv(train) if train else fetch_openml(openml or "")
    houses = task.read_houses(table, target)
    network = task.Network(
        backend_name or first_installed(),
        replace(task.ANY_INPUTS, **given(**options)),
        replace(task.RECIPE, **given(epochs=epochs, learning_rate=learning_rate, seed=seed)),
    )
    for note in houses.notes:
        say(note)
    return houses, network


def _compare(houses: Houses, network: Network, output_format: str) -> None:
    from ..exercises import house_prices as exercise
    from .exercise import tables

    with progress_bar(len(exercise.NAMES) * exercise.SEEDS) as step:
        found = exercise.compare(houses, network, exercise.SEEDS, step=step)
    print_result(found, output_format, lambda shown: tables(exercise.tables(shown)))


def _train(
    houses: Houses,
    network: Network,
    output: Path,
    *,
    test: Path | None,
    submission: Path | None,
    output_format: str,
) -> None:
    from ..data.table import read_csv
    from ..tasks import house_prices as task

    rows = read_csv(test) if test else None
    with progress_bar(task.FOLDS + 1) as step:
        report = task.house_prices(
            houses, network, output, test=rows, submission=submission, step=step
        )
    if rows:
        _say_if_numbered(rows)
    print_result(report, output_format, folds)


def _predict(model: Path, test: Path, submission: Path, output_format: str) -> None:
    from ..data.table import read_csv
    from ..tasks import house_prices as task

    table = read_csv(test)
    report = task.write_prices(submission, model, table)
    _say_if_numbered(table)
    print_result(report, output_format, predicted_prices)


def _say_if_numbered(table: Table) -> None:
    from ..tasks.house_prices import ids_of

    if ids_of(table) is None:
        say(f"{table.name} has no column Id: its rows are numbered from 1")


def predicted_prices(report: dict[str, Any]) -> str:
    """Return a sentence about predicted prices."""
    lowest, highest = (f"{report[name]:,.0f}" for name in ("lowest", "highest"))
    return f"Wrote {report['submission']}: {report['rows']:,} prices from {lowest} to {highest}."


def folds(report: dict[str, Any]) -> RenderableType:
    """Return the errors of the folds, and which files were written."""
    from ..exercises import Table as ShownTable
    from .exercise import tables

    rows = [(str(fold["fold"]), f"{fold['rmse_log']:.4f}") for fold in report["folds"]]
    names = {"mean": "mean", "std": "standard deviation"}
    rows += [(names[name], f"{value:.4f}") for name, value in report["rmse_log"].items()]
    title = f"{report['rows']:,} houses, {report['features']:,} inputs, {report['backend']}"
    files = ", ".join(filter(None, (report["model"], report["submission"])))
    return tables(
        [ShownTable(title, ("fold", "RMSE of the logarithm"), tuple(rows), f"Wrote {files}.")]
    )
