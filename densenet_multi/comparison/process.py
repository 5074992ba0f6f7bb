"""A backend at work in a process of its own, and the report that it leaves in a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from ..backends import Backend, BackendNotInstalledError, framework_versions, load_backend


@contextmanager
def started(
    module: str,
    *arguments: str,
    stdin: int | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """``python -m module arguments``, and the file of its stderr; it does not outlive the block.

    ``stdin`` is that of ``Popen``, ``environment`` changes this process' own.
    """
    # -P: a folder called torch where the user stands is not PyTorch
    command = [sys.executable, "-P", "-m", module, *arguments]
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(  # noqa: S603  # this interpreter, this package
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            env={**os.environ, **environment},
        ) as process,
    ):
        try:
            yield process, errors
        finally:  # an interruption ends it too
            process.kill()


def ending(process: subprocess.Popen[str]) -> str:
    """How a process has ended: its exit code, or the name of the signal."""
    code = process.returncode
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def last_lines(errors: IO[str], count: int) -> str:
    """The end of what a process that has ended wrote to stderr."""
    errors.seek(0)
    return "\n".join(errors.read().strip().splitlines()[-count:])


def in_its_own_process(
    module: str, backend: str, folder: Path, hear: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """What ``python -m module folder backend`` reports; each line that it prints goes to ``hear``.

    A process that dies reports too: its ``status`` is "failed".
    """
    with started(module, str(folder), backend) as (process, errors):
        for line in process.stdout or ():
            hear(line.rstrip("\n"))
        process.wait()
        last = last_lines(errors, 5)
    written = folder / f"{backend}.json"
    if process.returncode == 0 and written.exists():
        report: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
        return report
    error = (
        f"its process ended with {ending(process)} and no report: {last or 'it printed nothing'}"
    )
    return {"status": "failed", "error": error, "versions": framework_versions(backend)}


def report_of(name: str, measure: Callable[[Backend], dict[str, Any]]) -> dict[str, Any]:
    """What ``measure`` returns for the backend, with its ``versions`` and ``status``: "ok",
    "not installed" or "failed" (with ``error``)."""
    found: dict[str, Any] = {"versions": framework_versions(name), "status": "ok"}
    try:
        found.update(measure(load_backend(name)))
    except BackendNotInstalledError as error:
        found.update(status="not installed", error=str(error))
    except Exception as error:  # noqa: BLE001  # whatever a framework raises is that backend's row
        found.update(status="failed", error=f"{type(error).__name__}: {error}")
    return found


def write_report(run: Callable[[str, Path], dict[str, Any]]) -> None:
    """The other end of ``in_its_own_process``: write what ``run(backend, folder)`` returns."""
    folder, backend = Path(sys.argv[1]), sys.argv[2]
    content = json.dumps(run(backend, folder), allow_nan=False)
    (folder / f"{backend}.json").write_text(content, encoding="utf-8")
