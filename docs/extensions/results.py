"""The directive ``{result}``: what a command printed that takes too long to run for each page.

    ```{result} lockstep
    ```

Shows docs/results/data/lockstep.json, the result of ``densenet-multi lockstep --format json``, as
the command prints it: the command's own code makes the text when the site is built.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from . import measured


class Result(SphinxDirective):
    """Show the stored result of a command."""

    required_arguments = 1  # the command

    def run(self) -> list[nodes.Node]:
        """Return what the command prints."""
        command = self.arguments[0]
        try:
            text = measured.printed_by(command).rstrip()
        except measured.ResultError as error:
            raise self.error(str(error)) from None
        self.env.note_dependency(str(measured.DATA / f"{command}.json"))
        shown = nodes.literal_block(text, text, language="text")
        shown["classes"].append("output")
        self.set_source_info(shown)
        return [shown]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("result", Result)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
