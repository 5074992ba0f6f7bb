"""Find the executed blocks of a page in its MyST source, without Sphinx.

A block is a fence::

    ```{run} torch
    :varies:
    print("code")
    ```

Options: ``:varies:`` if rounding decides the numbers, as in training, so that another machine or
version prints others; ``:alt:`` describes a picture.

Blocks are also found in directives that hold text, such as ``{dropdown}`` and ``{only-in}``. They
are not found in other code fences, which show Markdown instead of running it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

DOCS = Path(__file__).parents[1]
OUTPUTS = DOCS / "outputs"
LABELS = {"torch": "PyTorch", "keras": "tf.keras", "gluon": "MXNet Gluon", "flax": "Flax NNX"}
FRAMEWORKS = (*LABELS, "python")  # python: no framework, only densenet_multi and NumPy
OPTIONS = ("varies", "alt")
SKIPPED = ("_build", "extensions", "locale", "notebooks", "outputs", "static")  # folders of docs/

FENCE = re.compile(r"(?P<marks>`{3,}|~{3,}|:{3,})\s*(?:\{(?P<directive>[\w-]+)\})?(?P<rest>.*)")
OPTION = re.compile(r":(?P<name>[\w-]+):\s*(?P<value>.*)")
CODE = {"code", "code-block", "literalinclude", "math", "raw", "source", "sources"}


class PageError(Exception):
    """A page contains a block that cannot be read."""


@dataclass(frozen=True)
class Block:
    """An executed block: its framework, its code, and where it is.

    ``line`` is the page's line with the first line of code, counted from 1. ``index`` counts the
    blocks of this page and framework from 0. ``key`` identifies the code, all code before it
    included: it changes if any of that changes. Options are not part of it.
    """

    page: str
    framework: str
    index: int
    line: int
    code: str
    key: str
    options: dict[str, str] = field(default_factory=dict)


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
    for framework, line, body in _fences(page, text.splitlines()):
        if framework not in FRAMEWORKS:
            known = ", ".join(FRAMEWORKS)
            raise PageError(f"{page}.md:{line}: expected one of {known}, found {framework!r}")
        options, code = split_options(body)
        if unknown := options.keys() - set(OPTIONS):
            raise PageError(f"{page}.md:{line}: {{run}} has no option {min(unknown)!r}")
        before = found.setdefault(framework, [])
        key = chained(before[-1].key if before else "", "\n".join(code))
        first = line + 1 + len(body) - len(code)
        before.append(Block(page, framework, len(before), first, "\n".join(code), key, options))
    return found


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
