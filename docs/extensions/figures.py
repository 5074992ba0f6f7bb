"""The directive ``{drawing}``: a figure of a network, drawn from its specification.

The drawing is part of the page (inline SVG): its text is text, it follows the page's theme, and
hovering over a dense layer shows what it reads.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

import densenet_multi as dm
from densenet_multi import drawing

if TYPE_CHECKING:
    from sphinx.application import Sphinx

NARROWEST = 650  # pixels; narrower, text would be smaller than 12 pixels: the drawing scrolls
DRAWN_BY = ("drawing/*.py", "manifest.py", "spec.py", "variants.py")  # files of the package


class DrawingDirective(SphinxDirective):
    """Draw one of ``densenet_multi.drawing.FIGURES``.

    Options: ``variant`` (default: d2l), ``image-size`` (default: the variant's), ``block``
    (default: 1), ``caption``, and ``alt``, which replaces the drawing's title. In MyST, an option
    ends with its line, so a long ``alt`` is the last option and continues as content.
    """

    has_content = True  # the rest of alt
    required_arguments = 1  # the figure
    option_spec: ClassVar[dict[str, Any]] = {
        "variant": directives.unchanged_required,
        "image-size": directives.positive_int,
        "block": directives.positive_int,
        "alt": directives.unchanged_required,
        "caption": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        """Return the figure; an error of the library becomes one of the page."""
        if any(line.startswith(":") for line in self.content):
            raise self.error("expected a wrapped alt as the last option; found another after it")
        title = " ".join(" ".join([self.options.get("alt", ""), *self.content]).split())
        try:
            drawn = drawing.draw(
                self.arguments[0],
                dm.get_spec(self.options.get("variant", "d2l")),
                image_size=self.options.get("image-size"),
                block=self.options.get("block"),
                title=title or None,
                prefix=f"drawing-{self.arguments[0]}-{self.env.new_serialno('drawing') + 1}",
            )
        except dm.ConfigError as error:
            raise self.error(str(error)) from None
        package = Path(dm.__file__).parent
        for path in sorted(each for pattern in DRAWN_BY for each in package.glob(pattern)):
            self.env.note_dependency(str(path))
        figure = nodes.figure("", nodes.raw("", scrolling(drawn, title), format="html"))
        figure["classes"].append("drawing")
        self.set_source_info(figure)
        if caption := self.options.get("caption"):
            inside, messages = self.state.inline_text(caption, self.lineno)
            described = nodes.caption(caption, "", *inside)
            self.set_source_info(described)
            figure += described
            return [figure, *messages]
        return [figure]


def scrolling(drawn: str, title: str) -> str:
    """Return HTML in which a drawing can be scrolled on a narrow screen, by keyboard too."""
    svg = drawn.replace("<svg ", f'<svg style="min-width:{NARROWEST}px" ', 1)
    label = escape(title or "Drawing of the network")
    frame = f'class="scroll" tabindex="0" role="group" aria-label="{label}" style="overflow-x:auto"'
    return f'<div lang="en" {frame}>{svg}</div>'  # not translated


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("drawing", DrawingDirective)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
