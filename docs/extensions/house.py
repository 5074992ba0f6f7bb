"""The directive ``{house}``: the picture of ``floors.py``."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from . import floors


class House(SphinxDirective):
    """The package's layers of imports, drawn as floors."""

    def run(self) -> list[nodes.Node]:
        """The picture, as HTML."""
        self.env.note_dependency(str(floors.PYPROJECT))
        return [nodes.raw("", floors.svg(), format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("house", House)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
