"""Run the blocks of one page in one framework, in this process: see execute.py.

    python -P -m extensions.child REQUEST RESULT

``REQUEST`` is a JSON file with the page's path and its blocks; the outputs go to ``RESULT``, as
JSON. An output is ``{"text": ...}`` or ``{"svg": ...}``. A block of commands has one output for
each command, which may be empty.
"""

from __future__ import annotations

import ast
import io
import json
import linecache
import platform
import subprocess
import sys
import time
import traceback
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from densenet_multi import __version__, backends

from .pictures import picture_of

Output = dict[str, str]
PROGRAM = [sys.executable, "-P", "-m", "densenet_multi"]
HELPERS = ("numpy", "setuptools")  # in an extra, and no framework


class CommandError(Exception):
    """A command ended with an exit code that is not 0; ``line`` is its line on the page."""

    def __init__(self, command: dict[str, Any], code: int, message: str) -> None:
        super().__init__(f"{command['text']}: expected exit code 0, found {code}\n{message}")
        self.line: int = command["line"]


def run(source: str, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """Run the blocks in one namespace: their outputs, or the error that stopped them."""
    module = ModuleType("__main__")
    sys.modules["__main__"] = module  # classes that a block defines have a home
    done: list[dict[str, Any]] = []
    for block in blocks:
        began = time.perf_counter()
        try:
            if commands := block.get("commands"):
                outputs = run_commands(commands)
            else:
                outputs = run_block(block["code"], module.__dict__, source, block["line"])
        except BaseException as error:  # noqa: BLE001  # whatever a block raises, SystemExit too
            return {"error": explain(error, source), "line": line_of(error, source, block["line"])}
        done.append({"outputs": outputs, "seconds": round(time.perf_counter() - began, 2)})
    return {"blocks": done}


def run_block(code: str, names: dict[str, Any], source: str, line: int) -> list[Output]:
    """Run a block; return what it prints and then, as in a notebook, its last expression."""
    tree = ast.increment_lineno(ast.parse(code), line - 1)
    last = None
    if tree.body and isinstance(end := tree.body[-1], ast.Expr):
        last = ast.Expression(end.value)
        tree.body.pop()
    printed = io.StringIO()
    value = None
    with redirect_stdout(printed):
        exec(compile(tree, source, "exec", dont_inherit=True), names)  # noqa: S102  # the page's code
        if last is not None:
            value = eval(compile(last, source, "eval", dont_inherit=True), names)  # noqa: S307
    text = last_states(printed.getvalue())
    outputs = [{"text": text}] if text else []
    if value is not None:
        svg = picture_of(value)
        outputs.append({"text": repr(value)} if svg is None else {"svg": svg})
    return outputs


def run_commands(commands: list[dict[str, Any]]) -> list[Output]:
    """Run commands of ``densenet-multi`` in this folder; return what each prints on stdout."""
    outputs = []
    for command in commands:
        ran = subprocess.run(  # noqa: S603  # the page's command, without a shell
            [*PROGRAM, *command["words"]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        if ran.returncode:
            raise CommandError(command, ran.returncode, ran.stderr)
        shown = ran.stdout.replace(f"{Path.cwd()}/", "")  # the folder is temporary
        outputs.append({"text": last_states(shown)})
    return outputs


def last_states(text: str) -> str:
    """Drop what a terminal would overwrite: progress bars, and spaces at the ends of lines."""
    lines = [line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join(lines).strip("\n")


def explain(error: BaseException, source: str) -> str:
    """Return the traceback, from the page on."""
    frames = traceback.extract_tb(error.__traceback__)
    first = next((i for i, frame in enumerate(frames) if frame.filename == source), len(frames))
    lines = traceback.format_list(frames[first:]) + traceback.format_exception_only(error)
    return "".join(lines)


def line_of(error: BaseException, source: str, line: int) -> int:
    """Return the page's line at which an error was raised; ``line`` if that is unknown."""
    if isinstance(error, CommandError):
        return error.line
    if isinstance(error, SyntaxError) and error.filename == source:
        return error.lineno or line
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno or line for f in reversed(frames) if f.filename == source), line)


def versions(frameworks: list[str]) -> dict[str, str]:
    """Return the versions that a page states, {package: version}."""
    from importlib.metadata import version

    found: dict[str, str | None] = {}
    for framework in frameworks:
        found |= backends.framework_versions(framework) if framework != "python" else {}
    stated = {"Python": platform.python_version(), "NumPy": version("numpy")}
    named = {name: v for name, v in found.items() if v and name not in HELPERS}
    return named | stated | {"densenet_multi": __version__}


def main(request: Path, result: Path) -> None:
    """Run what the request says, and write the result."""
    asked = json.loads(request.read_text("utf-8"))
    backends.hide_gpus()
    linecache.checkcache()
    found = run(asked["source"], asked["blocks"])
    found["versions"] = versions(asked["frameworks"])
    result.write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
