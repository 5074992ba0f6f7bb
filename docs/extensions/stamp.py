"""Say whether the stored outputs of a page are fresh. Reads source text: needs no framework.

``outputs/<page>-<framework>.json`` holds what the blocks of a page printed in a framework, and a
stamp: versions, date, machine, seconds. Each block's entry has three kinds of hashes:

- ``key``: of its code and of all code before it on that page in that framework;
- ``sources``: for each name of densenet_multi that the block uses, of all code that this name uses
  in turn (follow.py). Docstrings and comments do not count. A command uses its module and the
  backends that its block names;
- ``made``: of the outputs themselves.

An output is stale if one of these hashes has changed since.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from .follow import chains, code_of
from .pages import DOCS, Block, PageError, blocks_of, frameworks_of, page_names

PACKAGE = DOCS.parent / "densenet_multi"
COMMAND = "run: nox -s outputs"


@dataclass(frozen=True)
class Problem:
    """A block whose stored output is missing or stale."""

    page: str
    framework: str
    line: int
    reason: str
    needs: set[str]  # frameworks, to run the blocks of this page

    def __str__(self) -> str:
        where = f"docs/{self.page}.md:{self.line}"
        return f"{where}: the {self.framework} output {self.reason}; {COMMAND}"


def output_path(page: str, framework: str, docs: Path = DOCS) -> Path:
    """Return where the outputs of a page in a framework are stored."""
    return docs / "outputs" / f"{page}-{framework}.json"


def stored(page: str, framework: str, docs: Path = DOCS) -> dict[str, Any]:
    """Return the stored outputs of a page in a framework with their stamp; {} if there are none.

    Raises ``PageError`` for a file that cannot be read.
    """
    path = output_path(page, framework, docs)
    if not path.exists():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        where = f"docs/outputs/{path.name}"
        raise PageError(f"{where}: expected JSON, found {error}; delete it, {COMMAND}") from error
    return found


def hash_of(outputs: list[dict[str, str]]) -> str:
    """Return the hash of a block's outputs."""
    return sha256(json.dumps(outputs, sort_keys=True).encode()).hexdigest()[:16]


def problems(docs: Path = DOCS, package: Path = PACKAGE) -> list[Problem]:
    """Return what is missing or stale on all pages."""
    found = []
    for page in page_names(docs):
        for framework, blocks in blocks_of(page, docs).items():
            kept = stored(page, framework, docs)
            for block, sources in zip(blocks, sources_of(blocks, package), strict=True):
                if reason := why_stale(block, sources, kept):
                    needs = frameworks_of(blocks)
                    found.append(Problem(page, framework, block.line, reason, needs))
    return found


def leftovers(docs: Path = DOCS) -> list[Path]:
    """Return the files of outputs whose page has no block of that framework."""
    wanted = {
        output_path(page, framework, docs)
        for page in page_names(docs)
        for framework in blocks_of(page, docs)
    }
    return sorted(set((docs / "outputs").rglob("*.json")) - wanted)


def why_stale(block: Block, sources: dict[str, str], kept: dict[str, Any]) -> str:
    """Return why the stored output of a block cannot be shown, or an empty string."""
    entries = kept.get("blocks", [])
    if block.index >= len(entries):
        return "is missing"
    entry = entries[block.index]
    if entry["key"] != block.key:
        return "is stale: its code, or code before it, has changed"
    if entry.get("made") != hash_of(entry["outputs"]):
        return "was not made by its code: the file was edited"
    changed = [name for name, value in sources.items() if entry["sources"].get(name) != value]
    if changed:
        return f"is stale: {changed[0]}, or code that it uses, has changed"
    gone = sorted(entry["sources"].keys() - sources.keys())
    return f"is stale: {gone[0]} is gone" if gone else ""


def sources_of(blocks: list[Block], package: Path = PACKAGE) -> list[dict[str, str]]:
    """Return the hashed sources that each block uses, {full name: hash}.

    The blocks are those of one page and framework: imports of one hold in the next.
    """
    bound: dict[str, str] = {}  # name in the block -> full name in densenet_multi
    code = code_of(package)
    found = []
    for block in blocks:
        used = _of_commands(block) if block.commands else _names_used(block.code, bound)
        hashes = {name: code.hash_of(name) for name in sorted(used)}
        found.append({name: value for name, value in hashes.items() if value})
    return found


# --- The names that a block uses ----------------------------------------------------------------


def _of_commands(block: Block) -> Iterator[str]:
    """Yield the full names of the modules of a block's commands, and of the backends they need."""
    for command in block.commands:
        yield f"{PACKAGE.name}.commands.{command.words[0].replace('-', '_')}"
    for backend in block.needs:
        yield f"{PACKAGE.name}.{backend}"


def _names_used(code: str, bound: dict[str, str]) -> Iterator[str]:
    """Yield the full name of each use of densenet_multi; add what the code imports to ``bound``."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield f"{node.module}.{alias.name}"
        elif (backend := _loaded_backend(node)) is not None:
            bound.update(backend)
    for first, *rest in chains(tree):
        if first in bound:
            yield ".".join([bound[first], *rest])


def _loaded_backend(node: ast.AST) -> dict[str, str] | None:
    """Return {"b": "densenet_multi.torch"} for ``b = dm.load_backend("torch")``."""
    match node:
        case ast.Assign(
            targets=[ast.Name(name)],
            value=ast.Call(
                func=ast.Attribute(attr="load_backend"), args=[ast.Constant(str(backend))]
            ),
        ):
            return {name: f"densenet_multi.{backend}"}
    return None
