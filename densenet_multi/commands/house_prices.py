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

OUTPUT = "house-prices.safetensors"


@click.command(
    name="house-prices",
    epilog=example(
        "densenet-multi house-prices train.csv --target SalePrice --test test.csv "
        "--submission out.csv"
    ),
)
@click.argument("train", type=EXISTING_FILE, required=False)
@click.option("--openml", help="OpenML's data set, instead of TRAIN; needs pandas.", metavar="NAME")
@click.option("--target", required=True, help="Column of the prices.", metavar="COLUMN")
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
    openml: str | None,
    target: str,
    backend_name: str | None,
    test: Path | None,
    submission: Path | None,
    output: Path | None,
    epochs: int | None,
    learning_rate: float | None,
    seed: int | None,
    compare: bool,
    output_format: str,
    **options: Any,
) -> None:
    """Predict house prices from the table TRAIN with a DenseNet of fully connected layers.

    TRAIN is a CSV file, such as train.csv of Kaggle's "House Prices", and may be compressed
    (.csv.gz). Give TRAIN or --openml. The command prints the RMSE of log(price) in 5-fold
    cross-validation, and saves a network that was trained on all rows. --test and --submission
    belong together. It needs scikit-learn: pip install '.[tabular]' in a clone.
    """
    from dataclasses import replace

    from ..data.table import fetch_openml, read_csv
    from ..exercises import house_prices as exercise
    from ..tasks import house_prices as task
    from .exercise import tables

    if (train is None) == (openml is None):
        raise click.UsageError("expected TRAIN, a CSV file, or --openml NAME")
    if (test is None) != (submission is None) or (compare and test):
        raise click.UsageError("--test and --submission belong together, without --compare")
    if compare and (output or seed is not None):
        raise click.UsageError(
            "--compare saves no network and uses seeds of its own: omit --output and --seed"
        )
    if (
        submission
        and submission.exists()
        and any(submission.samefile(read) for read in (train, test) if read)
    ):
        raise click.UsageError(f"--submission: {submission} is read; choose another file")
    table = read_csv(train) if train else fetch_openml(openml or "")
    houses = task.read_houses(table, target)
    network = task.Network(
        backend_name or first_installed(),
        replace(task.ANY_INPUTS, **given(**options)),
        replace(task.RECIPE, **given(epochs=epochs, learning_rate=learning_rate, seed=seed)),
    )
    for note in houses.notes:
        say(note)
    if compare:
        with progress_bar(len(exercise.NAMES) * exercise.SEEDS) as step:
            found = exercise.compare(houses, network, exercise.SEEDS, step=step)
        print_result(found, output_format, lambda shown: tables(exercise.tables(shown)))
        return
    rows = read_csv(test) if test else None
    with progress_bar(task.FOLDS + 1) as step:
        report = task.house_prices(
            houses, network, output or Path(OUTPUT), test=rows, submission=submission, step=step
        )
    print_result(report, output_format, folds)


def folds(report: dict[str, Any]) -> RenderableType:
    """Return the errors of the folds, and which files were written."""
    from ..exercises import Table
    from .exercise import tables

    rows = [(str(fold["fold"]), f"{fold['rmse_log']:.4f}") for fold in report["folds"]]
    names = {"mean": "mean", "std": "standard deviation"}
    rows += [(names[name], f"{value:.4f}") for name, value in report["rmse_log"].items()]
    title = f"{report['rows']:,} houses, {report['features']:,} inputs, {report['backend']}"
    files = ", ".join(filter(None, (report["model"], report["submission"])))
    return tables([Table(title, ("fold", "RMSE of the logarithm"), tuple(rows), f"Wrote {files}.")])
