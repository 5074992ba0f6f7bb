"""Print results on stdout and everything else on stderr, and turn errors into exit codes.

Names of tensors, classes and files are untrusted text that may contain terminal escape sequences.
All text for humans passes through ``plain`` or ``plain_lines``; JSON escapes such characters.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import BackendNotInstalledError, ConfigError
from .flags import PROGRAM, in_flags

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

NARROWEST = 80  # columns; also the width if stdout is not a terminal
LEAST_FOR_NAMES = 12  # columns; a longer name may wrap
JOINERS = "\u200c\u200d"  # needed in some scripts and in emoji


# --- Untrusted text -----------------------------------------------------------------------------


def plain(text: str) -> str:
    """Return the text on one line, with control characters such as ESC escaped as in Python."""
    if text.isprintable():
        return text
    return "".join(
        each if _is_shown(each) else each.encode("unicode_escape").decode() for each in text
    )


def _is_shown(character: str) -> bool:
    is_space = unicodedata.category(character) == "Zs"
    return character.isprintable() or is_space or character in JOINERS


def plain_lines(text: str) -> str:
    """Apply ``plain`` to each line; indent later lines, so that none can pose as a message."""
    first, *others = map(plain, text.split("\n"))
    return "\n".join([first, *(each if each[:2] == "  " else f"  {each}" for each in others)])


def _plain_inside(result: Any) -> Any:
    """Return a result with every string in its dictionaries, lists and tuples made ``plain``."""
    if isinstance(result, str):
        return plain(result)
    if isinstance(result, dict):
        shown: dict[Any, Any] = {}
        for key, value in result.items():
            name = _plain_inside(key)
            while name in shown:  # such as ESC and the text "\\x1b"
                name = f"{name} (another)"
            shown[name] = _plain_inside(value)
        return shown
    if isinstance(result, (list, tuple)):
        return type(result)(map(_plain_inside, result))
    return result


# --- Errors -------------------------------------------------------------------------------------


def errors_as_exit_codes(command: Callable[..., int | None]) -> Callable[..., None]:
    """Turn each error that a user's input can cause into one line on stderr and an exit code."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with _raised_on_signals():
                code = command(*args, **kwargs)
        except KeyboardInterrupt:
            click.echo(f"{PROGRAM}: interrupted", err=True)
            code = 128 + signal.SIGINT
        except MemoryError as error:
            hint = "out of memory; try smaller images or batches"
            click.echo(f"{PROGRAM}: {hint} ({plain_lines(str(error))})", err=True)
            code = 1
        except BrokenPipeError:  # the reader, such as head, closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except (BackendNotInstalledError, ValueError, OSError) as error:
            code = _code_of(error)
            click.echo(f"{PROGRAM}: {plain_lines(_translated(_message(error)))}", err=True)
        sys.exit(code or 0)

    return run


@contextmanager
def _raised_on_signals() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` on Ctrl-C and ``SystemExit`` on SIGTERM.

    Either exception ends child processes and removes temporary folders.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        if before[signal.SIGINT] == signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)


def _code_of(error: Exception) -> int:
    from .._inputs import ImageError
    from ..data import DataError, IdxError
    from ..training.run_folder import RunError

    if isinstance(error, BackendNotInstalledError):
        return 3
    if isinstance(error, (DataError, IdxError)):
        return 4
    return 2 if isinstance(error, (ConfigError, ImageError, RunError)) else 1


def _translated(text: str) -> str:
    return in_flags(text, click.get_current_context())


def spoken(notes: Iterable[str]) -> list[str]:
    """Translate the Python arguments in the library's sentences into flags."""
    return [_translated(note) for note in notes]


# --- While it runs ------------------------------------------------------------------------------


def say(text: str) -> None:
    """Print a sentence of the library on stderr, with Python arguments translated into flags."""
    # not click.echo: an active progress bar replaces sys.stderr to print above itself
    print(f"{PROGRAM}: {plain_lines(_translated(text))}", file=sys.stderr)  # noqa: T201


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[str], None]]:
    """Show a progress bar if stderr is a terminal; yield the function that starts the next step."""
    from .._progress import progress

    with progress() as bar:
        task = bar.add_task("", total=total)
        started = -1

        def step(text: str) -> None:
            nonlocal started
            started += 1
            bar.update(task, description=text, completed=started)

        yield step


# --- The result ---------------------------------------------------------------------------------


def print_result(
    result: Any,
    output_format: str,
    table: Callable[[Any], RenderableType],
    path: Path | None = None,
) -> None:
    """Print a result as JSON, or as what ``table`` draws, on stdout or into the file ``path``."""
    from .._files import replace_file

    if output_format == "json":
        text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    else:
        text = _drawn(table(_plain_inside(result)), to_file=path is not None)
    if path is None:
        click.echo(text, nl=False)
    else:
        replace_file(path, text.encode())


def _drawn(table: RenderableType, *, to_file: bool) -> str:
    from rich.console import Console

    wide = sys.stdout is not None and sys.stdout.isatty() and not to_file
    width = max(Console().width, NARROWEST) if wide else NARROWEST
    tables = list(_tables(table))
    for each in tables:
        for column in each.columns:
            column.overflow = "fold"  # wrap names; "ellipsis" would truncate them
            column.no_wrap = column.no_wrap or column.justify == "right"  # numbers
        if each.box and narrowest(each) > width:
            each.padding = (0, 0, 0, 0)
    width = max([width, *map(narrowest, tables)])
    # file and class names may look like markup
    console = Console(width=width, no_color=not wide, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def _tables(drawn: Any) -> Iterator[Table]:
    """Yield all tables in a renderable."""
    from rich.table import Table

    if isinstance(drawn, Table):
        yield drawn
    for inside in (*getattr(drawn, "renderables", ()), getattr(drawn, "renderable", None)):
        if inside is not None:
            yield from _tables(inside)


def narrowest(table: Table) -> int:
    """Return the smallest width of a table, in terminal cells, that truncates no number."""
    from rich.cells import cell_len

    width = len(table.columns) + 1 if table.box else 0  # vertical rules
    for column in table.columns:
        cells = [str(text) for text in (column.header, *column.cells, column.footer)]
        widest = max(cell_len(line) for cell in cells for line in cell.split("\n"))
        is_name = not column.no_wrap and column.justify != "right"
        width += min(widest, LEAST_FOR_NAMES) if is_name else widest
    return width + len(table.columns) * (table.padding[1] + table.padding[3])


def fitting(value: float, width: int) -> str:
    """Format a number with as many decimals as fit, at most 4; else in scientific notation."""
    texts = (f"{value:.{decimals}f}" for decimals in (4, 3, 2, 1, 0))
    return next((text for text in texts if len(text) <= width), f"{value:.{width - 6}e}")


def facts(result: dict[str, Any]) -> Table:
    """Return one line per value: its name, then the value."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, value in result.items():
        entries = [f"{k}: {v}" for k, v in value.items()] if isinstance(value, dict) else [value]
        entries = value if isinstance(value, list) else entries
        text = "\n".join(_short(entry) for entry in entries if entry is not None) or "none"
        table.add_row(name.replace("_", " "), text)
    return table


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1e}"
    return f"{value:,}" if isinstance(value, int) else str(value)


# --- Comparisons of backends --------------------------------------------------------------------


def print_failures(result: dict[str, Any]) -> None:
    """Print on stderr why a backend has no results, or which convention it breaks."""
    for name, report in result["backends"].items():
        if report.get("suspect"):
            click.echo(f"{name}: suspect: {plain_lines(report['suspect'])}", err=True)
        if report["status"] != "ok":
            click.echo(f"{name}: {plain_lines(_translated(report['error']))}", err=True)


def exit_code(result: dict[str, Any], requested: list[str]) -> int:
    """Return 0 if all backends that ran compute the same function, 1 if a backend differs or
    failed, 3 if a requested backend or all backends are not installed."""
    reports = result["backends"]
    if any(r["status"] == "failed" or not r.get("same", True) for r in reports.values()):
        return 1
    missing = {name for name, r in reports.items() if r["status"] == "not installed"}
    return 3 if missing & set(requested) or missing == reports.keys() else 0
