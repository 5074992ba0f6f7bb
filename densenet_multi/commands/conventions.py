"""``densenet-multi conventions``: what the installed frameworks do where ports go wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .. import backend_names
from .options import backends_option, example, format_option, requested_backends
from .output import (
    errors_as_exit_codes,
    exit_code,
    print_failures,
    print_result,
    progress_bar,
)

if TYPE_CHECKING:
    from rich.table import Table


@click.command(epilog=example("densenet-multi conventions --backends torch,keras"))
@backends_option
@format_option
@errors_as_exit_codes
def conventions(backends: str | None, output_format: str) -> int:
    """Measure what the installed frameworks do by default, where ports of networks go wrong.

    Small experiments find the padding of SAME, BatchNorm's epsilon and decay, when its statistics
    move, layouts of weights, rounding in pooling and resizing, and more. It helps whoever ports any
    network between frameworks, not only a DenseNet. It takes about half a minute.
    """
    from ..comparison.conventions import conventions as measure

    requested = requested_backends(backends)
    names = requested or backend_names()
    with progress_bar(len(names)) as step:
        result = measure(names, step)
    if any(report["status"] == "ok" for report in result["backends"].values()):
        print_result(result, output_format, table)
    print_failures(result)
    return exit_code(result, requested)


def table(result: dict[str, Any]) -> Table:
    """Return a row for each question, and a column for each framework."""
    from rich import box
    from rich.table import Table

    reports = {name: r for name, r in result["backends"].items() if r["status"] == "ok"}
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    drawn.add_column("")
    for name, report in reports.items():
        package, version = next(iter(report["versions"].items()))
        drawn.add_column(f"{name}\n{package} {str(version).partition('+')[0]}")
    for probe, question in result["questions"].items():
        drawn.add_row(question, *(report["answers"][probe] for report in reports.values()))
    return drawn
