"""The directive ``{side-by-side}``: one class or function in all frameworks, from the sources.

It makes a set of tabs, one per framework. On a wide screen, ``static/side-by-side.js`` replaces the
tabs by two columns, with the differing lines marked. ::

    {side-by-side} DenseLayer

Several names are shown below each other. Where a framework has other parts, an option lists them::

    {side-by-side} fit
    :keras: fit Batches Report
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective
from sphinx_design.shared import create_component

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PACKAGE = Path(__file__).parents[2] / "densenet_multi"
FRAMEWORKS = {
    "torch": "PyTorch",
    "keras": "tf.keras",
    "gluon": "MXNet Gluon",
    "flax": "Flax NNX",
}
FILES = ("model.py", "layers.py", "train.py")  # where a name is looked up, in this order


def definition(module: ast.Module, name: str) -> ast.ClassDef | ast.FunctionDef | None:
    """Return the class or function of this name at the top level of a module, or None."""
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
    return None


def source_of(node: ast.ClassDef | ast.FunctionDef, text: str) -> str:
    """Return the source of a class or function with its decorators, without its docstring."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines = text.splitlines()
    hidden: set[int] = set()
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        hidden = set(range(docstring.lineno, docstring.end_lineno + 1))
        if not lines[docstring.end_lineno].strip():
            hidden.add(docstring.end_lineno + 1)
    numbers = range(first, node.end_lineno + 1)
    return "\n".join(lines[number - 1] for number in numbers if number not in hidden)


def find(framework: str, name: str) -> tuple[Path, str]:
    """Return the file of a framework that defines ``name``, and the definition's source."""
    for file in FILES:
        path = PACKAGE / framework / file
        text = path.read_text("utf-8")
        node = definition(ast.parse(text), name)
        if node is not None:
            return path, source_of(node, text)
    places = ", ".join(f"{framework}/{file}" for file in FILES)
    raise LookupError(f"expected a class or function {name} in {places}; found none")


class SideBySide(SphinxDirective):
    """Show one name, or several, in all frameworks."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec = dict.fromkeys(FRAMEWORKS, directives.unchanged_required)

    def run(self) -> list[nodes.Node]:
        """Return a set of tabs."""
        tabs = create_component("tab-set", classes=["sd-tab-set", "side-by-side"])
        self.set_source_info(tabs)
        for framework, label in FRAMEWORKS.items():
            names = self.options.get(framework, self.arguments[0]).split()
            try:
                found = [find(framework, name) for name in names]
            except LookupError as error:
                raise self.error(str(error)) from None
            for path, _ in found:
                self.env.note_dependency(str(path))
            code = "\n\n\n".join(source for _, source in found)
            tabs += tab(framework, label, code, sorted({path for path, _ in found}))
        return [tabs]


def tab(framework: str, label: str, code: str, paths: list[Path]) -> nodes.Element:
    """Return one tab: the code, and the files that it is from."""
    title = nodes.rubric(label, label, classes=["sd-tab-label"])
    title["sync_id"], title["sync_group"] = framework, "framework"
    block = nodes.literal_block(code, code, language="python")
    files = nodes.paragraph(classes=["source-file"])
    for path in paths:
        name = path.relative_to(PACKAGE.parent).as_posix()
        files += [nodes.literal(name, name), nodes.Text(" ")]
    content = create_component("tab-content", classes=["sd-tab-content"], children=[block, files])
    item = create_component("tab-item", classes=["sd-tab-item"], selected=False)
    item += [title, content]
    return item


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and its script."""
    app.add_directive("side-by-side", SideBySide)
    app.add_js_file("side-by-side.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
