"""The look of this site: templates, and what furo shows. See also static/ and templates/.

The site is built in English and, below ``vi/``, in Vietnamese. Pages that have a translation link
to it; all others are English in both, and state so.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
TRANSLATED = "vi"
MADE_BY_SPHINX = {"genindex", "py-modindex", "search"}  # it has their words in many languages

# what axe-core requires of furo's page: names for its two sidebars, levels for its headings
NAMES = {
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="Site">',
    '<aside class="toc-drawer': '<aside aria-label="Page" class="toc-drawer',
    'role="heading">': 'role="heading" aria-level="2">',
}


def named(page: str) -> str:
    """Return furo's page with ``NAMES``; an error if furo writes it differently now."""
    for found, wanted in NAMES.items():
        if found not in page:
            raise ValueError(f"expected {found} in furo's page, found none; see {__file__}")
        page = str.replace(page, found, wanted)  # Markup's own escapes what it inserts
    return page


def translated_pages(docs: Path = DOCS) -> set[str]:
    """Return the names of the pages that have a translation."""
    folder = docs / "locale" / TRANSLATED / "LC_MESSAGES"
    return {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.po")}


def other_language(page: str, language: str) -> tuple[str, str, str] | None:
    """Return (language, its own name, address from the site's root) of a page's other edition."""
    if language == TRANSLATED:
        return "en", "English", f"../{page}.html"
    if page in translated_pages():
        return TRANSLATED, "Tiếng Việt", f"{TRANSLATED}/{page}.html"
    return None


def add_language(app: Sphinx, page: str, _: str, context: dict[str, Any], __: object) -> None:
    """Tell a page's template its language and its other edition."""
    context["named"] = named
    context["other_language"] = other_language(page, app.config.language)
    if page not in translated_pages() | MADE_BY_SPHINX:
        context["language"] = "en"


def setup(app: Sphinx) -> dict[str, bool]:
    """Set what conf.py leaves open."""
    app.config.templates_path.append(str(DOCS / "templates"))
    app.config.html_theme_options["top_of_page_buttons"] = []  # no link to the page's source text
    app.config.html_show_copyright = False  # the license is in the repository
    app.connect("html-page-context", add_language)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
