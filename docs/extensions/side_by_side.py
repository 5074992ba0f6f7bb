"""The directive ``{side-by-side}``: one class or function in all frameworks, from the sources.

It makes a set of tabs, one per framework. On a wide screen, ``static/side-by-side.js`` replaces the
tabs by two columns, with the differing lines marked. ::

    ```{side-by-side} DenseLayer
    ```

Several names are shown below each other. Where a framework has other parts, an option lists them::

    ```{side-by-side} fit
    :keras: fit Batches Report
    ```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives

from .pages import LABELS
from .shipped import SourceError, definition
from .sources import Source
from .stamp import PACKAGE
from .tabs import choice, tab_set

if TYPE_CHECKING:
    from sphinx.application import Sphinx

FILES = ("model.py", "layers.py", "train.py")  # where a name is looked up, in this order


def file_of(framework: str, name: str) -> str:
    """Return the file of a framework that defines ``name``. Raises ``SourceError``."""
    for file in FILES:
        try:
            definition(PACKAGE / framework / file, name)
        except SourceError:
            continue
        return f"{PACKAGE.name}/{framework}/{file}"
    raise SourceError(f"expected {name} in one of {', '.join(FILES)} of {framework}/; found none")


class SideBySide(Source):
    """Show one name, or several, in all frameworks."""

    required_arguments = 1
    optional_arguments = 0
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = dict.fromkeys(LABELS, directives.unchanged_required)

    def run(self) -> list[nodes.Node]:
        """Return a set of tabs."""
        tabs = tab_set([self._in_framework(framework) for framework in LABELS])
        tabs["classes"].append("side-by-side")
        return [tabs]

    def _in_framework(self, framework: str) -> choice:
        """Return the code of all names, each with a link to its file."""
        names = self.options.get(framework, self.arguments[0]).split()
        try:
            files = [file_of(framework, name) for name in names]
        except SourceError as error:
            raise self.error(str(error)) from error
        found = choice("", framework=framework, classes=["source"])
        for file, name in zip(files, names, strict=True):
            found += self.shown(file, name).children
        self.set_source_info(found)
        return found


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive and its script."""
    app.add_directive("side-by-side", SideBySide)
    app.add_js_file("side-by-side.js")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
