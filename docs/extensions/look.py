"""The look of this site: templates, and what furo shows. See also static/ and templates/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]


def setup(app: Sphinx) -> dict[str, bool]:
    """Set what conf.py leaves open."""
    app.config.templates_path.append(str(DOCS / "templates"))
    app.config.html_theme_options["top_of_page_buttons"] = []  # no link to the page's source text
    app.config.html_show_copyright = False  # the license is in the repository
    return {"parallel_read_safe": True, "parallel_write_safe": True}
