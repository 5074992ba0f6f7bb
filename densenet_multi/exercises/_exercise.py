"""What an exercise is: a question, what is measured, its tables and its drawing."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from .._checks import bad, instance, integer, one_of, text, truth
from ..backends import first_installed, framework_versions, installed_backends
from ..comparison.machine import cpus, processor

FASTEST = ("gluon", "keras", "torch", "flax")  # "fit" in the table of docs/results/speed.md
DATA = ("fashion-mnist", "sample")
NUMBER = re.compile(r"|[^\w]*\d.*")  # no text, or a number with its sign and unit

Result = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table as the command prints it and the page shows it.

    Attributes:
        title: what the table shows.
        columns: the headings.
        rows: formatted cells, one row for each line of the table.
        note: a sentence below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    @property
    def is_number(self) -> tuple[bool, ...]:
        """Whether every cell of a column is a number or empty: such a column is aligned right."""
        cells = [[row[i] for row in self.rows] for i in range(len(self.columns))]
        return tuple(all(map(NUMBER.fullmatch, column)) and any(column) for column in cells)


@dataclass(frozen=True)
class Settings:
    """What a user chooses; ``ConfigError`` names the field that is wrong.

    Attributes:
        backend: name of the backend; None is the exercise's choice (see ``chosen_backend``).
        data: one of ``DATA``.
        seeds: how many runs, with the seeds 0, 1, …, at least 1; None is the exercise's own number.
        full: whether to run the long version, which made the published tables.
        csv: the table of house prices.
    """

    backend: str | None = None
    data: str = "fashion-mnist"
    seeds: int | None = None
    full: bool = False
    csv: Path | None = None

    def __post_init__(self) -> None:
        if self.backend is not None:
            text("backend", self.backend)
        one_of("data", self.data, DATA)
        if self.seeds is not None:
            integer("seeds", self.seeds, 1)
        truth("full", self.full)
        if self.csv is not None:
            instance("csv", self.csv, Path, "a Path")


@dataclass(frozen=True)
class Exercise:
    """A question of the chapter, and how it is measured.

    Attributes:
        name: of the command and of the files of results.
        question: the question, in a sentence.
        duration: how long it takes, such as "10 minutes on two cores; 1 hour with full=True".
        measure: runs the measurement; its result is ``header`` and the measured numbers, as JSON.
            Its entry "notes", if there is one, is a list of sentences for the user.
        tables: the result as tables.
        draw: the result as an SVG document.
        uses: the fields of ``Settings`` that ``measure`` reads. The others must keep their default.
        backend: the only backend that it trains with; None if any will do.
    """

    name: str
    question: str
    duration: str
    measure: Callable[[Settings], Result]
    tables: Callable[[Result], list[Table]]
    draw: Callable[[Result], str]
    uses: tuple[str, ...] = ("backend", "data", "seeds", "full")
    backend: str | None = None

    def run(self, settings: Settings) -> Result:
        """Measure, and return the result as a reader of its JSON file gets it.

        Raises ``ConfigError`` for a setting that this exercise cannot use, and what ``measure``
        raises.
        """
        self.check(settings)
        found: Result = json.loads(json.dumps(self.measure(settings), allow_nan=False))
        return found

    def check(self, settings: Settings) -> None:
        """Raise ``ConfigError`` for a setting that this exercise cannot use."""
        given, default = asdict(settings), asdict(Settings())
        for name in given.keys() - set(self.uses):
            if given[name] != default[name]:
                raise bad(name, str(given[name]), f"nothing (the exercise {self.name!r} has none)")
        if self.backend and settings.backend not in (None, self.backend):
            only = f"{self.backend!r}, the only backend that the exercise {self.name!r} trains in"
            raise bad("backend", settings.backend, only)


def header(name: str, settings: Settings, backends: Sequence[str] = ()) -> Result:
    """Return how every result begins: the exercise, its settings, the machine and the versions.

    ``backends`` are the names of the backends that measure.
    """
    given = asdict(settings)
    given["csv"] = settings.csv and settings.csv.name  # no folder of this machine
    return {
        "exercise": name,
        "settings": given,
        "machine": {
            "platform": platform.platform(),
            "processor": processor(),
            "cpus": len(cpus(None)),
        },
        "versions": {
            "densenet_multi": __version__,
            "python": platform.python_version(),
            **{name: framework_versions(name) for name in backends},
        },
    }


def chosen_backend(settings: Settings) -> str:
    """Return the requested backend, or the fastest one that is installed.

    Raises ``BackendNotInstalledError`` if none is.
    """
    if settings.backend is not None:
        return settings.backend
    installed = installed_backends()
    return next((name for name in FASTEST if name in installed), None) or first_installed()
