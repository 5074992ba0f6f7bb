"""Results that commands have written into docs/results/data, for pages to show.

``exercise-NAME.json`` is that of ``densenet-multi exercise NAME``. ``COMMAND.json``, such as
lockstep.json, is that of a command that takes too long for ``{run} shell``. Plain data without
Sphinx, so that tests can read it. ``answers.py`` and ``results.py`` put it on a page.
"""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from densenet_multi.commands.output import print_result
from densenet_multi.exercises import NAMES, Table, exercise

from .pages import DOCS, LABELS

DATA = DOCS / "results" / "data"
PAGES = "exercises"  # folder of the pages with answers


class ResultError(Exception):
    """A page shows a result that does not exist, or a table that the result does not have."""


def path_of(name: str, data: Path = DATA) -> Path:
    """Return the path of an exercise's result."""
    return data / f"exercise-{name}.json"


def result_of(name: str, data: Path = DATA) -> dict[str, Any]:
    """Return an exercise's stored result. Raises ``ResultError`` if there is none."""
    path = path_of(name, data)
    if name not in NAMES or not path.is_file():
        raise ResultError(
            f"expected the result of an exercise in {path.relative_to(data.parents[2])}, found "
            f"none; run: densenet-multi exercise {name} --output FOLDER, then move "
            f"FOLDER/{name}.json there"
        )
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if found.get("exercise") != name:
        raise ResultError(f"{path.name}: expected a result of {name}, found another exercise's")
    return found


def tables_of(name: str, shown: str, data: Path = DATA) -> list[Table]:
    """Return the tables of an exercise; ``shown`` has their numbers, "1 3", or is "" for all.

    Raises ``ResultError``.
    """
    found = exercise(name).tables(result_of(name, data))
    if not shown:
        return found
    numbers = [int(word) if word.isdecimal() else 0 for word in shown.split()]
    if wrong := [number for number in numbers if not 1 <= number <= len(found)]:
        raise ResultError(f"expected tables from 1 to {len(found)}, found {shown!r} ({wrong[0]})")
    return [found[number - 1] for number in numbers]


def drawing_of(name: str, data: Path = DATA) -> str:
    """Return the drawing of an exercise's result, as SVG. Raises ``ResultError``."""
    return exercise(name).draw(result_of(name, data))


def measured_on(name: str, data: Path = DATA) -> str:
    """Return a sentence on the command, the data, the machine and the versions of a result."""
    result = result_of(name, data)
    settings, versions = result["settings"], result["versions"]
    used = exercise(name).uses
    keys = [key for key in ("backend", "data", "seeds") if key in used and settings[key]]
    options = [f" --{key} {settings[key]}" for key in keys]
    options += [" --csv FILE"] if settings["csv"] else []
    command = f"densenet-multi exercise {name}{''.join(options)}"
    command += " --full" if settings["full"] else ""
    libraries = [
        f"{library} {version}"
        for backend, found in versions.items()
        if backend in LABELS
        for library, version in found.items()
    ]
    with_versions = ", ".join([f"Python {versions['python']}", *dict.fromkeys(libraries)])
    return f"Measured with {command} on {_where(result)}; {with_versions}."


def _where(result: dict[str, Any]) -> str:
    """The processor, and the GPU if one was used: alone (``device``) or besides."""
    machine, gpu = result["machine"], result.get("gpu", "a GPU")
    cpus = "1 CPU" if machine["cpus"] == 1 else f"{machine['cpus']} CPUs"
    host = f"{cpus} ({machine['processor']})"
    if result.get("device") == "gpu":
        return f"{gpu}, beside {host}"
    return f"{host} and on {gpu}" if "gpu" in result else host


def printed_by(command: str, data: Path = DATA) -> str:
    """Return what a command prints for the stored COMMAND.json. Raises ``ResultError``."""
    path = data / f"{command}.json"
    if not path.is_file():
        raise ResultError(
            f"expected the result of a command in {path.relative_to(data.parents[2])}, found none; "
            f"run: densenet-multi {command} --format json --output {path.name}, then move it there"
        )
    result = json.loads(path.read_text("utf-8"))
    table = import_module(f"densenet_multi.commands.{command}").table
    with redirect_stdout(io.StringIO()) as text:
        print_result(result, "human", table)
    return text.getvalue()


def has_page(name: str, docs: Path = DOCS) -> bool:
    """Whether an exercise has a page with its answer."""
    return (docs / PAGES / f"{name}.md").is_file()
