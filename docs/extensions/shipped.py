"""Find the code of a class or function in the package, as a page shows it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from .stamp import PACKAGE

ROOT = PACKAGE.parent


class SourceError(Exception):
    """The code that a page shows does not exist."""


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
