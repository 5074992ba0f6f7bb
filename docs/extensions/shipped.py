"""Find the code of a class or function in the package, as a page shows it."""

from __future__ import annotations

import ast
from pathlib import Path, PurePosixPath
from typing import Any

from .pages import LABELS
from .stamp import PACKAGE

ROOT = PACKAGE.parent


class SourceError(Exception):
    """The code that a page shows does not exist."""


def framework_of(file: str) -> str:
    """Return the backend of a file of the package, or "python" if it is for all.

    It is a file in the backend's folder, or one that has the backend's name.
    """
    path = PurePosixPath(file)
    found = [name for name in (*path.parts[1:2], path.stem) if name in LABELS]
    return found[0] if found else "python"


def definitions(path: Path, *names: str) -> tuple[str, int]:
    """Return the code of several definitions, two blank lines apart, and the line of the first."""
    found = [definition(path, name) for name in names]
    return "\n\n\n".join(code for code, _ in found), found[0][1]


def definition(path: Path, name: str) -> tuple[str, int]:
    """Return the code of a class, function or assignment without its docstring, and its line.

    ``name`` may be that of a method: ``DenseNet.forward``. Raises ``SourceError``.
    """
    text = path.read_text("utf-8")
    node: Any = ast.parse(text)
    for part in name.split("."):
        found = [child for child in node.body if part in _names(child)]
        if not found:
            raise SourceError(f"{path.relative_to(ROOT)} has no {name}")
        node = found[0]
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
    lines = text.splitlines()
    hidden = range(0)
    documented = isinstance(node, ast.ClassDef | ast.FunctionDef)
    if documented and ast.get_docstring(node) is not None:
        after = node.body[0].end_lineno + 1
        while after <= node.end_lineno and not lines[after - 1].strip():
            after += 1  # the blank lines below the docstring too
        hidden = range(node.body[0].lineno, after)
    kept = [lines[i - 1] for i in range(first, node.end_lineno + 1) if i not in hidden]
    indent = len(kept[0]) - len(kept[0].lstrip())
    return "\n".join(line[indent:] for line in kept), first


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets]
    return [getattr(node, "name", "") or ast.unparse(getattr(node, "target", ast.Name("")))]
