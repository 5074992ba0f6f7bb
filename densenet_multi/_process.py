"""A backend at work in a process of its own, and the report that it leaves in a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .backends import Backend, BackendNotInstalledError, framework_versions, load_backend


def in_its_own_process(
    module: str, backend: str, folder: Path, hear: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """What ``python -m module folder backend`` reports; each line that it prints goes to ``hear``.

    A process that dies reports too: its ``status`` is "failed".
    """
    # -P: a folder called torch where the user stands is not PyTorch
    command = [sys.executable, "-P", "-m", module, str(folder), backend]
    # OpenMP threads that spin while they wait take the cores from whoever has work
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(  # noqa: S603  # this interpreter, this package
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            env=environment,
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                hear(line.rstrip("\n"))
            process.wait()
        except BaseException:  # an interruption ends it too
            process.kill()
            raise
        errors.seek(0)
        last = "\n".join(errors.read().strip().splitlines()[-5:])
    written = folder / f"{backend}.json"
    if process.returncode == 0 and written.exists():
        report: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
        return report
    error = f"its process ended with {process.returncode} and no report: {last}"
    return {"status": "failed", "error": error, "versions": {}}


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
