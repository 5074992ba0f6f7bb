"""The directives ``{exercise}`` and ``{answer}``: measured answers to the chapter's exercises.

    ```{exercise} table1
    :show: 1 3
    ```

Shows tables of docs/results/data/exercise-table1.json: those with these numbers, or all without the
option. ``:show: drawing`` shows its drawing, and ``:show: machine`` how it was measured. Tables and
drawing are made when the site is built, by the code of the command: they cannot differ from the
numbers. ``{answer} table1`` links to the page exercises/table1 once that exists.
"""

from __future__ import annotations

from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from densenet_multi.exercises import NAMES, Table

from . import measured
from .figures import scrolling
from .pictures import own_ids


class ExerciseDirective(SphinxDirective):
    """Show the stored result of an exercise."""

    required_arguments = 1  # its name
    option_spec: ClassVar[dict[str, Any]] = {"show": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Return the tables, the drawing or the sentence on the machine."""
        name, shown = self.arguments[0], self.options.get("show", "")
        try:
            if shown == "drawing":
                found: list[nodes.Node] = [self._drawing(measured.drawing_of(name))]
            elif shown == "machine":
                found = [_paragraph(measured.measured_on(name))]
            else:
                tables = measured.tables_of(name, shown)
                found = [node for table in tables for node in _table(table)]
        except measured.ResultError as error:
            raise self.error(str(error)) from None
        self.env.note_dependency(str(measured.path_of(name)))
        return found

    def _drawing(self, svg: str) -> nodes.figure:
        prefix = f"exercise-{self.env.new_serialno('exercise') + 1}-"
        html = scrolling(own_ids(svg[svg.index("<svg") :], prefix), "")
        return nodes.figure("", nodes.raw("", html, format="html"), classes=["drawing"])


def _table(table: Table) -> list[nodes.Node]:
    """A table with its title; its note is the paragraph below."""
    aligned = [["text-right"] if is_number else [] for is_number in table.is_number]
    headings = tuple(heading.replace("\n", " ") for heading in table.columns)
    group = nodes.tgroup(cols=len(headings))
    group += [nodes.colspec(colwidth=1) for _ in headings]
    group += nodes.thead("", _row(headings, aligned))
    group += nodes.tbody("", *(_row(row, aligned) for row in table.rows))
    found = nodes.table("", nodes.title("", table.title), group, classes=["exercise"])
    return [found, *([_paragraph(table.note)] if table.note else [])]


def _row(cells: tuple[str, ...], aligned: list[list[str]]) -> nodes.row:
    row = nodes.row()
    for text, classes in zip(cells, aligned, strict=True):
        row += nodes.entry("", _paragraph(text), classes=classes)
    return row


def _paragraph(text: str) -> nodes.paragraph:
    return nodes.paragraph("", text, support_smartquotes=False, translatable=False)


class Answer(SphinxDirective):
    """Link to the page with an exercise's answer, if there is one."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a paragraph with the link, or nothing."""
        name = self.arguments[0]
        if name not in NAMES:
            raise self.error(f"expected one of {', '.join(NAMES)}, found {name!r}")
        if not measured.has_page(name):
            return []
        link = pending_xref(
            "",
            nodes.inline("", "The answer, measured"),
            refdomain="std",
            reftype="doc",
            refdoc=self.env.docname,
            reftarget=f"/{measured.PAGES}/{name}",
            refexplicit=True,
            refwarn=True,
        )
        return [nodes.paragraph("", "", link, translatable=False)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register both directives."""
    app.add_directive("exercise", ExerciseDirective)
    app.add_directive("answer", Answer)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
