"""Run a child process for one backend, and exchange messages with it.

The parent starts ``python -m MODULE SETTINGS`` and reads the child's messages. The child prints
each message as a JSON object on one line, after ``MARK``; the parent ignores all other output. A
waiting child continues when the parent sends it a line. The last message is the child's report.
Only the report has a ``status``: "ok", or "not installed" or "failed" with an ``error``. If the
child dies, ``receive`` returns a "failed" report instead, which states how the process ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import IO, Any, cast

from ..backends import BackendNotInstalledError, framework_versions

MARK = "densenet_multi message: "
LAST_LINES = 5  # of stderr; the error shows them if a child dies

Message = dict[str, Any]


# --- In the parent ------------------------------------------------------------------------------


class Child:
    """A running child process: see ``started``."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process, self._errors = process, errors

    def receive(self) -> Message:
        """Return the child's next message, or a report of how it ended."""
        for line in cast("IO[str]", self._process.stdout):
            _, mark, content = line.partition(MARK)
            if mark and content.endswith("\n"):  # the line is complete
                message: Message = json.loads(content)
                return message
        return {"status": "failed", "error": f"its process ended with {self._ending()}"}

    def proceed(self) -> None:
        """Let a waiting child continue."""
        with suppress(BrokenPipeError):  # the child is dead, and `receive` will report why
            print(file=cast("IO[str]", self._process.stdin), flush=True)

    def _ending(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:  # cannot be caught: the last lines do not explain it
            return "signal SIGKILL"
        self._errors.seek(0)
        last = "\n".join(self._errors.read().strip().splitlines()[-LAST_LINES:])
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        return f"{how}: {last}" if last else how


@contextmanager
def started(
    module: str,
    settings: Mapping[str, Any],
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Child]:
    """Start a child that runs ``module`` with these settings; kill it at the end of the block.

    The child's environment is that of this process, with ``environment`` added.
    """
    # -P: do not import a folder called torch in the working folder
    command = [sys.executable, "-P", "-m", module, json.dumps(settings)]
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(  # noqa: S603  # this interpreter, this package
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            env={**os.environ, **environment},
        ) as process,
    ):
        try:
            yield Child(process, errors)
        finally:  # also when the parent is interrupted
            process.kill()
            with suppress(BrokenPipeError):  # the child died before it read a line
                cast("IO[str]", process.stdin).close()


def report_of(
    module: str, settings: Mapping[str, Any], receive: Callable[[Message], object] = lambda _: None
) -> Message:
    """Run ``module`` in a child, and return its report with the framework's ``versions``.

    ``settings["backend"]`` is the backend. ``receive`` is called with each earlier message.
    """
    with started(module, settings) as child:
        while "status" not in (message := child.receive()):
            receive(message)
    return {"versions": framework_versions(settings["backend"]), **message}


# --- In the child -------------------------------------------------------------------------------


class FinishedError(Exception):
    """The parent no longer needs this process."""


def run_child(measure: Callable[[Any], Message]) -> None:
    """Call ``measure`` with the settings, and send its result as the report.

    An exception in ``measure`` is reported, except ``FinishedError``, which ends the process.
    """
    report: Message = {"status": "ok"}
    try:
        report.update(measure(json.loads(sys.argv[1])))
    except FinishedError:
        return
    except BackendNotInstalledError as error:
        report = {"status": "not installed", "error": str(error)}
    except Exception as error:  # noqa: BLE001  # whatever a framework raises
        report = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    say(report)


def say(message: Message) -> None:
    """Send the parent a message."""
    print(MARK + json.dumps(message, allow_nan=False), flush=True)  # noqa: T201  # the message


def wait() -> None:
    """Wait for the parent's line; raise ``FinishedError`` if the parent has closed the pipe."""
    if not sys.stdin.readline():
        raise FinishedError
