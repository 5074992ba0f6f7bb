"""Say whether the stored outputs of a page are fresh. Reads source text: needs no framework.

``outputs/<page>-<framework>.json`` holds what the blocks of a page printed in a framework, and a
stamp: versions, date, machine, seconds. Each block's entry has two kinds of hashes:

- ``key``: of its code and of all code before it on that page in that framework;
- ``sources``: of the source of each name of densenet_multi that the block uses. Docstrings and
  comments do not count. Names are hashed, not everything that they call in turn.

An output is stale if one of these hashes has changed since.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from .pages import DOCS, Block, blocks_of, page_names

PACKAGE = DOCS.parent / "densenet_multi"
COMMAND = "run: nox -s outputs"


@dataclass(frozen=True)
class Problem:
    """A block whose stored output is missing or stale."""

    page: str
    framework: str
    line: int
    reason: str

    def __str__(self) -> str:
        where = f"docs/{self.page}.md:{self.line}"
        return f"{where}: the {self.framework} output {self.reason}; {COMMAND}"


def output_path(page: str, framework: str, docs: Path = DOCS) -> Path:
    """Return where the outputs of a page in a framework are stored."""
    return docs / "outputs" / f"{page}-{framework}.json"


def stored(page: str, framework: str, docs: Path = DOCS) -> dict[str, Any]:
    """Return the stored outputs of a page in a framework with their stamp; {} if there are none."""
    path = output_path(page, framework, docs)
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def problems(docs: Path = DOCS, package: Path = PACKAGE) -> list[Problem]:
    """Return what is missing or stale on all pages."""
    found = []
    for page in page_names(docs):
        for framework, blocks in blocks_of(page, docs).items():
            kept = stored(page, framework, docs)
            for block, sources in zip(blocks, sources_of(blocks, package), strict=True):
                if reason := why_stale(block, sources, kept):
                    found.append(Problem(page, framework, block.line, reason))
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
    changed = [name for name, value in sources.items() if entry["sources"].get(name) != value]
    if changed:
        return f"is stale: {changed[0]} has changed"
    gone = sorted(entry["sources"].keys() - sources.keys())
    return f"is stale: {gone[0]} is gone" if gone else ""


def sources_of(blocks: list[Block], package: Path = PACKAGE) -> list[dict[str, str]]:
    """Return the hashed sources that each block uses, {full name: hash}.

    The blocks are those of one page and framework: imports of one hold in the next.
    """
    bound: dict[str, str] = {}  # name in the block -> full name in densenet_multi
    found = []
    for block in blocks:
        sources = {}
        for name in _names_used(block.code, bound):
            if (node := _definition(name, package)) is not None:
                sources[name] = source_hash(node)
        found.append(dict(sorted(sources.items())))
    return found


# --- The names that a block uses ----------------------------------------------------------------


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
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            first, *rest = ast.unparse(node).split(".")
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


# --- Where a name is defined --------------------------------------------------------------------


def _definition(name: str, package: Path) -> ast.AST | None:
    """Return the class, function or assignment that a full name means, following imports.

    None for names of other packages, and for modules: what is used of them is a name of its own.
    """
    first, *parts = name.split(".")
    if first != package.name:
        return None
    module = package / "__init__.py"
    for part in parts:
        found = _in_module(part, module)
        if not isinstance(found, Path):
            return found
        module = found
    return None


def _in_module(name: str, module: Path) -> ast.AST | Path | None:
    """Return what a name in a module is: its definition, or the file of a module."""
    for node in _statements(_tree(module)):
        match node:
            case ast.ClassDef() | ast.FunctionDef() if node.name == name:
                return node
            case ast.Assign(targets=targets) if name in map(ast.unparse, targets):
                return node
            case ast.AnnAssign(target=target) if ast.unparse(target) == name:
                return node
            case ast.ImportFrom(level=level) if level:
                base = module.parents[level - 1].joinpath(*(node.module or "").split("."))
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return _imported(alias.name, node.module, base)
    return _file(module.parent / name) if module.name == "__init__.py" else None


def _imported(name: str, module: str | None, base: Path) -> ast.AST | Path | None:
    """Return what ``from .module import name`` imports; ``from . import name`` is a module."""
    file = _file(base if module else base / name)
    return _in_module(name, file) if module and file else file


def _file(base: Path) -> Path | None:
    """Return the file of the module or package at this path."""
    files = (base / "__init__.py", base.with_name(f"{base.name}.py"))
    return next((file for file in files if file.exists()), None)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements of a module, those inside ``with``, ``if`` and ``try`` included."""
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.With | ast.If | ast.Try):
            yield from _statements(child)


@cache
def _parsed(path: Path, _changed: int) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _tree(path: Path) -> ast.Module:
    return _parsed(path, path.stat().st_mtime_ns)


# --- Hashes -------------------------------------------------------------------------------------


def source_hash(node: ast.AST) -> str:
    """Return the hash of a definition without its docstrings and comments.

    The text that is hashed is the same on every Python: fields that only some versions have are
    empty in this package's code, and empty fields do not count.
    """
    return sha256(repr(_canonical(node)).encode()).hexdigest()[:16]


def _canonical(value: object) -> object:
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if not isinstance(value, ast.AST):
        return value
    fields = dict(ast.iter_fields(value))
    body = fields.get("body")
    if isinstance(body, list) and body and _is_docstring(body[0]):
        fields["body"] = body[1:]
    kept = [(name, _canonical(item)) for name, item in fields.items() if item not in (None, [])]
    return (type(value).__name__, *sorted(kept))


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)
