"""The look of this site: style sheet, scripts and templates. See static/ and templates/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]


def setup(app: Sphinx) -> dict[str, bool]:
    """Add what each page loads; nothing of it comes from another server."""
    app.config.templates_path.append(str(DOCS / "templates"))
    app.config.html_static_path.append(str(DOCS / "static"))
    app.config.html_theme_options["top_of_page_buttons"] = []  # no source text to view
    app.add_css_file("custom.css")
    app.add_js_file("tabs.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
