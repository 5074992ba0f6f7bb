"""Find the executed blocks of a page in its MyST source, without Sphinx.

A block is a fence::

    ```{run} torch
    :varies:
    print("code")
    ```

Options: ``:varies:`` if rounding decides the numbers, as in training, so that another machine or
version prints others; ``:varies: lines`` if they also decide words, such as the order of classes;
``:alt:`` describes a picture.

``{run} shell torch`` has commands, ``densenet-multi ...``, and names the frameworks that they need.
A command may continue on the next line, after a backslash. All commands of a page, and its
``{run} python`` blocks if it has commands, run in page order in one folder: together they are the
blocks of the framework ``shell``.

Blocks are also found in directives that hold text, such as ``{dropdown}`` and ``{only-in}``. They
are not found in other code fences, which show Markdown instead of running it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[1]
OUTPUTS = DOCS / "outputs"
LABELS = {"torch": "PyTorch", "keras": "tf.keras", "gluon": "MXNet Gluon", "flax": "Flax NNX"}
FRAMEWORKS = (*LABELS, "python")  # python: no framework, only densenet_multi and NumPy
SHELL = "shell"  # commands, with the framework-free blocks of their page
PROGRAM = "densenet-multi"
OPTIONS = ("varies", "alt")
SKIPPED = ("_build", "extensions", "locale", "notebooks", "outputs", "static")  # folders of docs/

FENCE = re.compile(r"(?P<marks>`{3,}|~{3,}|:{3,})\s*(?:\{(?P<directive>[\w-]+)\})?(?P<rest>.*)")
OPTION = re.compile(r":(?P<name>[\w-]+):\s*(?P<value>.*)")
CODE = {"code", "code-block", "literalinclude", "math", "raw", "source", "sources"}


class PageError(Exception):
    """A page contains a block that cannot be read."""


class Command(NamedTuple):
    """A command: its text, its words after ``densenet-multi``, and its first line on the page."""

    text: str
    words: list[str]
    line: int


@dataclass(frozen=True)
class Block:
    """An executed block: its framework, its code, and where it is.

    ``line`` is the page's line with the first line of code, counted from 1. ``index`` counts the
    blocks of this page and framework from 0. ``key`` identifies the code, all code before it
    included: it changes if any of that changes. Options are not part of it. ``needs`` has the
    frameworks that must be installed. ``commands`` is empty for Python code.
    """

    page: str
    framework: str
    index: int
    line: int
    code: str
    key: str
    options: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    commands: tuple[Command, ...] = ()


def page_names(docs: Path = DOCS) -> list[str]:
    """Return the names of all pages: their paths below ``docs`` without the suffix."""
    paths = sorted(path.relative_to(docs) for path in docs.rglob("*.md"))
    return [p.with_suffix("").as_posix() for p in paths if p.parts[0] not in SKIPPED]


def blocks_of(page: str, docs: Path = DOCS) -> dict[str, list[Block]]:
    """Return the blocks of a page, {framework: its blocks in order}."""
    return parse(page, (docs / f"{page}.md").read_text("utf-8"))


def parse(page: str, text: str) -> dict[str, list[Block]]:
    """Return the blocks in the text of a page, {framework: its blocks in order}."""
    found: dict[str, list[Block]] = {}
    fences = list(_fences(page, text.splitlines()))
    together = any(argument.split()[:1] == [SHELL] for argument, *_ in fences)
    for argument, line, body in fences:
        name, needs = _needs(argument, f"{page}.md:{line}")
        framework = SHELL if together and name == "python" else name
        options, code = split_options(body)
        if unknown := options.keys() - set(OPTIONS):
            raise PageError(f"{page}.md:{line}: {{run}} has no option {min(unknown)!r}")
        if options.get("varies", "") not in {"", "lines"}:
            found_value = f"found {options['varies']!r}"
            raise PageError(f"{page}.md:{line}: expected :varies: or :varies: lines, {found_value}")
        before = found.setdefault(framework, [])
        key = chained(before[-1].key if before else "", "\n".join(code))
        first = line + 1 + len(body) - len(code)
        commands = tuple(_commands(code, page, first)) if name == SHELL else ()
        index, text = len(before), "\n".join(code)
        before.append(Block(page, framework, index, first, text, key, options, needs, commands))
    return found


def frameworks_of(blocks: Iterable[Block]) -> set[str]:
    """Return the frameworks that these blocks need; {"python"} if they need none."""
    return {name for block in blocks for name in block.needs} or {"python"}


def _needs(argument: str, where: str) -> tuple[str, tuple[str, ...]]:
    """Split a fence's argument: "shell torch flax" into "shell" and the frameworks it needs."""
    name, *needs = argument.split() or [""]
    if name == SHELL:
        if unknown := [each for each in needs if each not in LABELS]:
            raise PageError(
                f"{where}: expected frameworks of {', '.join(LABELS)}, found {unknown[0]!r}"
            )
        return name, tuple(needs)
    if argument not in FRAMEWORKS:
        known = ", ".join((*FRAMEWORKS, SHELL))
        raise PageError(f"{where}: expected one of {known}, found {argument!r}")
    return name, () if name == "python" else (name,)


def _commands(code: list[str], page: str, first: int) -> Iterator[Command]:
    """Yield the commands in the lines of a shell block, the first of which is line ``first``."""
    lines: list[str] = []
    for number, line in enumerate(code, first):
        if not lines and not line.strip():
            continue
        lines.append(line)
        if line.endswith("\\") and number < first + len(code) - 1:
            continue
        start, text = number + 1 - len(lines), "\n".join(lines)
        try:
            program, *words = shlex.split(text.replace("\\\n", " "), comments=True)
        except ValueError:  # a quote without an end, or a comment alone
            program, words = "", []
        if program != PROGRAM or not words or words[0].startswith("-"):
            raise PageError(f"{page}.md:{start}: expected {PROGRAM} COMMAND ..., found {text!r}")
        yield Command(text, words, start)
        lines = []


def split_options(body: list[str]) -> tuple[dict[str, str], list[str]]:
    """Split the lines of a directive into its options and its code, without blank ends."""
    options = {}
    while body and (match := OPTION.fullmatch(body[0])):
        options[match["name"]] = match["value"].strip()
        body = body[1:]
    while body and not body[0].strip():
        body = body[1:]
    return options, "\n".join(body).rstrip().split("\n")


def chained(before: str, code: str) -> str:
    """Return the hash of a block's code and of ``before``, the hash of the block before it."""
    return sha256(f"{before}\n{code.strip()}".encode()).hexdigest()[:16]


def _fences(page: str, lines: list[str]) -> Iterator[tuple[str, int, list[str]]]:
    """Yield the argument, the line and the body of each {run} fence."""
    around: list[tuple[str, int]] = []  # marks and line of the text directives that are open here
    code: re.Match[str] | None = None  # the code fence that is open here
    start = 0
    body: list[str] = []
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if code:
            if fence and _closes(fence, code["marks"]):
                if code["directive"] == "run":
                    yield code["rest"].strip(), start, body
                code = None
            else:
                body.append(line)
        elif fence and (ends := [each for each in around if _closes(fence, each[0])]):
            del around[around.index(ends[-1]) :]
        elif fence and fence["directive"] not in {None, "run", *CODE}:
            around.append((fence["marks"], number))
        elif fence and (fence["directive"] or fence["marks"][0] != ":"):
            code, start, body = fence, number, []
    if code or around:
        start = start if code else around[-1][1]
        raise PageError(f"{page}.md:{start}: this fence is never closed")


def _closes(fence: re.Match[str], marks: str) -> bool:
    """Whether a line closes the fence that these marks opened."""
    bare = fence["directive"] is None and not fence["rest"].strip()
    return bare and fence["marks"].startswith(marks)
