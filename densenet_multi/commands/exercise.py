"""``densenet-multi exercise``: one of the chapter's exercises, answered by measurement."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..exercises import DATA, NAMES, Settings
from ..exercises import exercise as load_exercise
from .options import (
    AT_LEAST_1,
    BACKEND,
    EXISTING_FILE,
    Name,
    NewEntry,
    example,
    format_option,
)
from .output import errors_as_exit_codes, plain, print_result, say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..exercises import Exercise, Table


@click.command(
    epilog=f"Exercises: {', '.join(NAMES)}.\n\n"
    f"{example('densenet-multi exercise table1 --output results')}"
)
@click.argument("name", type=Name(lambda: NAMES))
@click.option(
    "--backend", type=BACKEND, help="Backend to measure.  [default: the exercise's, see above]"
)
@click.option(
    "--data",
    type=click.Choice(DATA),
    help="Images to train on. Fashion-MNIST is downloaded (30 MB) if this machine does not have "
    "it.  [default: fashion-mnist, or sample where it is not available]",
)
@click.option("--seeds", type=AT_LEAST_1, help="Number of runs.  [default: the exercise's]")
@click.option("--csv", type=EXISTING_FILE, help="Table of house-prices: Kaggle's train.csv.")
@click.option("--full", is_flag=True, help="Run the long version of the published tables.")
@click.option(
    "--output",
    type=NewEntry(file_okay=False, writable=True),
    help="Also write the result, NAME.json, and its drawing, NAME.svg, into FOLDER.",
    metavar="FOLDER",
)
@format_option
@errors_as_exit_codes
def exercise(
    name: str, *, data: str | None, output: Path | None, output_format: str, **given: Any
) -> None:
    """Measure the answer to one of the chapter's exercises.

    The exercises: pooling (average or maximum in a transition?), parameters (why fewer than
    ResNet?), memory (how much, and what helps?), table1 (the paper's networks), house-prices (a
    DenseNet for the table --csv). Training uses the fastest installed backend, but parameters
    always PyTorch: its ResNet is written in it alone. memory and table1 run in every installed one.
    """
    chosen = load_exercise(name)
    settings = Settings(data=data or DATA[0], **given)
    chosen.check(settings)
    say(f"exercise {name}: takes about {chosen.duration}")
    if data is None and "data" in chosen.uses:
        settings = replace(settings, data=_found_data())
    result = chosen.run(settings)
    for note in result.get("notes", ()):
        say(note)
    if output is not None:  # before anything that could fail, and lose hours of measuring
        _write(result, output, name)
    print_result(result, output_format, lambda plain_result: tables(chosen.tables(plain_result)))
    if output is not None:
        _draw(chosen, result, output)


def _found_data() -> str:
    """Return the name of the data to train on, and say so if it is only the sample."""
    from ..data import DataNotFoundError, load_data

    try:
        load_data(DATA[0], image_size=28)
    except DataNotFoundError as error:
        say(f"trains on the sample of 1,000 images (data='sample'): {_first_line(error)}")
        return DATA[1]
    return DATA[0]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(":")


def _write(result: dict[str, Any], folder: Path, name: str) -> None:
    """Write the numbers, and remove the drawing of earlier ones."""
    from .._files import replace_file

    folder.mkdir(exist_ok=True)
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    replace_file(folder / f"{name}.json", text.encode())
    (folder / f"{name}.svg").unlink(missing_ok=True)


def _draw(exercise: Exercise, result: dict[str, Any], folder: Path) -> None:
    from .._files import replace_file

    replace_file(folder / f"{exercise.name}.svg", exercise.draw(result).encode())


def tables(found: list[Table]) -> RenderableType:
    """Return the tables of a result, one below the other."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable

    drawn: list[RenderableType] = []
    for each in found:
        table = RichTable(
            box=box.SIMPLE_HEAD,
            padding=0,
            title=plain(each.title),
            title_justify="left",
            caption=plain(each.note) or None,
            caption_justify="left",
        )
        for heading, is_number in zip(each.columns, each.is_number, strict=True):
            table.add_column(heading, justify="right" if is_number else "left")
        for row in each.rows:
            table.add_row(*row)
        drawn += [table, ""]
    return Group(*drawn[:-1])
