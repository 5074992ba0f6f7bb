"""The directives ``{variants}`` and ``{commands}``: reference tables computed at build time."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from . import reference

NUMBERS = {"depth", "k", "parameters", "multiply-adds"}  # aligned to the right


class Variants(SphinxDirective):
    """A table of ``densenet_multi.VARIANTS``."""

    def run(self) -> list[nodes.Node]:
        """One row for each variant."""
        group = nodes.tgroup(cols=len(reference.COLUMNS))
        group += [nodes.colspec(colwidth=1) for _ in reference.COLUMNS]
        group += nodes.thead("", _row(reference.COLUMNS))
        group += nodes.tbody("", *map(_row, reference.variant_rows()))
        return [nodes.table("", group, classes=["variants"])]


def _row(cells: tuple[str, ...]) -> nodes.row:
    row = nodes.row()
    for column, text in zip(reference.COLUMNS, cells, strict=True):
        is_name = column == "variant" and text != column
        shown = nodes.literal("", text) if is_name else nodes.Text(text)
        classes = ["text-right"] if column in NUMBERS else []
        row += nodes.entry("", nodes.paragraph("", "", shown), classes=classes)
    return row


class Commands(SphinxDirective):
    """The command line, with the texts of ``densenet-multi --help``."""

    def run(self) -> list[nodes.Node]:
        """The introduction, then a section for each group and each command."""
        found: list[nodes.Node] = [_paragraph(text) for text in reference.introduction()]
        for heading, commands in reference.command_groups().items():
            group = self._section(heading, heading.lower().replace(" ", "-"))
            group += [self._command(command) for command in commands]
            found.append(group)
        return found

    def _command(self, command: reference.CommandText) -> nodes.section:
        section = self._section(command.name, f"command-{command.name}")
        first, *rest = command.paragraphs
        section += [_paragraph(first), _shell(command.usage), *map(_paragraph, rest)]
        if command.example:
            section += [nodes.rubric("", "Example"), _shell(command.example)]
        options = nodes.definition_list(classes=["options"])
        for names, text in command.options:
            option = nodes.definition_list_item()
            option += nodes.term("", "", nodes.literal("", names))
            option += nodes.definition("", _paragraph(text))
            options += option
        section += [nodes.rubric("", "Options"), options]
        return section

    def _section(self, title: str, name: str) -> nodes.section:
        section = nodes.section("", nodes.title("", title), names=[name])
        self.state.document.note_implicit_target(section)
        return section


def _paragraph(text: str) -> nodes.paragraph:
    # --help would become a dash and "help"
    return nodes.paragraph("", text, support_smartquotes=False)


def _shell(line: str) -> nodes.literal_block:
    return nodes.literal_block(line, line, language="sh")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register both directives."""
    app.add_directive("variants", Variants)
    app.add_directive("commands", Commands)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
