"""A child process that works with one backend, and what it and its parent tell each other.

The parent starts ``python -m MODULE SETTINGS`` and hears the child's messages. A message is an
object: the child prints it as one marked line of JSON, and whatever else a framework prints is
ignored. A child that waits goes on when the parent sends it a line. The last message is the child's
report, and the only one with a ``status``: "ok", "not installed" or "failed", the last two with an
``error``. The parent hears a report of a child that dies, too: "failed", with how it ended.
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
LAST_LINES = 5  # of stderr, for the reason why a child ended

Message = dict[str, Any]


# --- In the parent ------------------------------------------------------------------------------


class Child:
    """A child process that has been started: see ``started``."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process, self._errors = process, errors

    def hear(self) -> Message:
        """The child's next message, or a report of how it ended."""
        for line in cast("IO[str]", self._process.stdout):
            _, mark, content = line.partition(MARK)
            if mark and content.endswith("\n"):  # all of it was printed
                message: Message = json.loads(content)
                return message
        return {"status": "failed", "error": f"its process ended with {self._ending()}"}

    def go_on(self) -> None:
        """Let a child that waits go on."""
        with suppress(BrokenPipeError):  # it is dead, and `hear` says why
            print(file=cast("IO[str]", self._process.stdin), flush=True)

    def _ending(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:  # it could not say anything: its last lines have another cause
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
    """A child that runs ``module`` with these settings; it does not outlive the block.

    ``environment`` is added to that of this process.
    """
    # -P: a folder called torch where the user stands is not PyTorch
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
            with suppress(BrokenPipeError):  # a line that the child did not live to read
                cast("IO[str]", process.stdin).close()


def report_of(
    module: str, settings: Mapping[str, Any], hear: Callable[[Message], object] = lambda _: None
) -> Message:
    """The report of a child that runs ``module``, with the ``versions`` of its framework.

    ``settings`` name its ``backend``; ``hear`` is called with each message before the report.
    """
    with started(module, settings) as child:
        while "status" not in (message := child.hear()):
            hear(message)
    return {"versions": framework_versions(settings["backend"]), **message}


# --- In the child -------------------------------------------------------------------------------


class FinishedError(Exception):
    """The parent has no further use for this process."""


def run_child(measure: Callable[[Any], Message]) -> None:
    """What a child's module does: call ``measure`` with the settings, and say what it returns.

    What ``measure`` raises becomes a report; ``FinishedError`` ends the process without one.
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
    print(MARK + json.dumps(message, allow_nan=False), flush=True)  # noqa: T201  # to be heard


def wait() -> None:
    """Wait until the parent lets this process go on; ``FinishedError`` where it does not."""
    if not sys.stdin.readline():
        raise FinishedError
