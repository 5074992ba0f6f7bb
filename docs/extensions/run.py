"""The directive ``{run}``: a block of code and, below it, what it printed when it was executed.

Each command of ``{run} shell`` is followed by its own output, which may be empty.

Outputs are stored: see execute.py. A missing or stale one is a warning, which ``nox -s docs`` makes
an error. Below the page's text, a fold states versions, date, machine and time for each framework.
"""

from __future__ import annotations

from html import escape
from itertools import count, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from . import pages, stamp
from .pictures import described, own_ids
from .tabs import choice

if TYPE_CHECKING:
    from sphinx.application import Sphinx

NAMES = {**pages.LABELS, pages.SHELL: "Commands"}
logger = logging.getLogger(__name__)
STAMPS = {
    "en": "What computed the outputs on this page",
    "vi": "Môi trường đã tạo ra các kết quả trên trang này",
}


class Run(SphinxDirective):
    """Show a block and its stored output."""

    has_content = True
    required_arguments = 1  # the framework; or shell, and the frameworks that its commands need
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {
        "varies": directives.unchanged,  # see pages.py
        "alt": directives.unchanged_required,  # what a picture shows
    }

    def run(self) -> list[nodes.Node]:
        """Return the block and its outputs."""
        block = self._block(self.arguments[0].split()[0])
        if block is None:
            message = (
                f"this {{run}} block is not among those that {pages.__name__} finds on the page"
            )
            logger.warning(message, location=self.get_location(), type="outputs")
            return []
        outputs = self._entry(block).get("outputs", [])
        shown = choice("", framework=block.framework, classes=["run"])
        self.set_source_info(shown)
        if block.commands:
            for command, output in zip_longest(block.commands, outputs[: len(block.commands)]):
                shown += self._code(command.text, "sh", "command")
                shown += [self._output(output)] if output and output["text"] else []
        else:
            shown += self._code(block.code, "python")
            shown += [self._output(output) for output in outputs]
        return [shown]

    def _code(self, text: str, language: str, *classes: str) -> nodes.literal_block:
        code = nodes.literal_block(text, text, language=language)
        code["classes"] += ["run-code", *classes]
        self.set_source_info(code)
        return code

    def _block(self, name: str) -> pages.Block | None:
        """Return this block as the executor sees it: the next one of its framework."""
        data = self.env.temp_data  # of this page
        if "run-blocks" not in data:
            data["run-blocks"] = pages.blocks_of(self.env.docname, Path(self.env.srcdir))
            data["run-counts"] = {each: count() for each in data["run-blocks"]}
        together = name == "python" and pages.SHELL in data["run-blocks"]
        framework = pages.SHELL if together else name
        blocks = data["run-blocks"].get(framework, [])
        index = next(data["run-counts"].get(framework, count()))
        code = "\n".join(self.content).strip()
        same = index < len(blocks) and blocks[index].code.strip() == code
        return blocks[index] if same else None

    def _entry(self, block: pages.Block) -> dict[str, Any]:
        """Return the block's stored outputs; warn if they are missing or stale."""
        docs = Path(self.env.srcdir)
        kept = stamp.stored(block.page, block.framework, docs)
        blocks = self.env.temp_data["run-blocks"][block.framework]
        sources = stamp.sources_of(blocks)[block.index]
        self.env.note_dependency(stamp.output_path(block.page, block.framework, docs))
        if reason := stamp.why_stale(block, sources, kept):
            problem = f"the {block.framework} output {reason}; {stamp.COMMAND}"
            logger.warning(problem, location=(block.page, block.line), type="outputs")
        entries = kept.get("blocks", [])
        return entries[block.index] if block.index < len(entries) else {}

    def _output(self, output: dict[str, str]) -> nodes.Node:
        if "svg" in output:
            return self._picture(output["svg"])
        text = nodes.literal_block(output["text"], output["text"], language="text")
        text["classes"].append("output")
        self.set_source_info(text)
        return text

    def _picture(self, svg: str) -> nodes.Node:
        """Return a picture with ids of its own, and with a description for screen readers."""
        alt = self.options.get("alt", "")
        if not alt and "<title" not in svg:
            message = "a picture needs a description: add the option :alt:"
            logger.warning(message, location=self.get_location(), type="outputs")
        own = own_ids(svg, f"picture-{self.env.new_serialno('picture')}-")
        picture = nodes.raw("", described(own, alt), format="html")
        return nodes.container("", picture, classes=["output", "picture"])


def add_stamps(app: Sphinx, document: nodes.document) -> None:
    """Append to a page with outputs what computed them."""
    frameworks = dict.fromkeys(
        node["framework"] for node in document.findall(choice) if "run" in node["classes"]
    )
    docs, page = Path(app.srcdir), app.env.docname
    kept = [found for name in frameworks if (found := stamp.stored(page, name, docs))]
    if not kept:
        return
    summary = STAMPS.get(app.config.language, STAMPS["en"])
    lines = "".join(f"<li>{escape(sentence(found))}</li>" for found in kept)
    fold = f'<details class="stamp"><summary>{summary}</summary><ul>{lines}</ul></details>'
    sections = [node for node in document.children if isinstance(node, nodes.section)]
    (sections[-1] if sections else document).append(nodes.raw("", fold, format="html"))


def sentence(found: dict[str, Any]) -> str:
    """Return a stamp as a line of text."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    label = NAMES.get(found["framework"], "Python")
    return f"{label}: {versions}; {found['date']}, {found['machine']}, {found['seconds']} s"


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive and the stamps."""
    app.add_directive("run", Run)
    app.connect("doctree-read", add_stamps)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
