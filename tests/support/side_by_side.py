"""How the README shows the four translations side by side, taken from their sources.

    PYTHONPATH=docs python tests/support/side_by_side.py

prints the block; a test compares it with the README.
"""

import ast
import sys
from itertools import zip_longest
from pathlib import Path

from extensions.pages import LABELS

PACKAGE = Path(__file__).parents[2] / "densenet_multi"
SHOWN = "DenseLayer"
WIDTH = 50


class WithoutAnnotations(ast.NodeTransformer):
    """Remove annotations, for which a narrow column has no room."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node


def translation(backend: str) -> list[str]:
    """A class of a backend's ``model.py``: its first line, and its forward method."""
    module = ast.parse((PACKAGE / backend / "model.py").read_text("utf-8"))
    (layer,) = (n for n in module.body if isinstance(n, ast.ClassDef) and n.name == SHOWN)
    *_, computes = (part for part in layer.body if isinstance(part, ast.FunctionDef))
    method = ast.unparse(WithoutAnnotations().visit(computes))
    bases = ", ".join(map(ast.unparse, layer.bases))
    return [f"class {SHOWN}({bases}):", *(f"    {line}" for line in method.splitlines())]


def block() -> str:
    """The four translations, two by two."""
    backends = list(LABELS)
    lines = []
    for pair in backends[:2], backends[2:]:
        columns = [[f"# {LABELS[name]}", *translation(name)] for name in pair]
        rows = zip_longest(*columns, fillvalue="")
        lines += [f"{left:{WIDTH}}{right}".rstrip() for left, right in rows]
        lines.append("")
    return "\n".join(lines).strip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(block())
