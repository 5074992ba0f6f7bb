"""The site's look: the frameworks' colors, additions to furo's page, and links to translations."""

import re
from pathlib import Path
from runpy import run_path

import pytest

import densenet_multi
from extensions import look

DOCS = Path(__file__).parents[2] / "docs"
REPORT = Path(densenet_multi.__path__[0]) / "comparison" / "report" / "report.css"
FRAMEWORKS = ("torch", "keras", "gluon", "flax")
COLOR = re.compile(r"--(?:framework-)?(torch|keras|gluon|flax): (#[0-9a-f]{6});")


def palettes(css: Path) -> list[dict[str, str]]:
    """The colors that a style sheet sets, one dictionary for each set of four."""
    found = COLOR.findall(css.read_text("utf-8"))
    return [dict(found[i : i + 4]) for i in range(0, len(found), 4)]


def test_a_framework_has_the_same_color_everywhere():
    light, dark = palettes(REPORT)
    assert tuple(light) == tuple(dark) == FRAMEWORKS
    # the page is dark by choice or by system
    assert palettes(DOCS / "static" / "custom.css") == [light, dark, dark]
    assert run_path(str(DOCS / "results" / "scripts" / "chapter.py"))["COLORS"] == light


def luminance(color: str) -> float:
    """The relative luminance of WCAG 2."""
    shares = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_color_of_a_framework_is_seen_on_the_page():
    """A contrast of 3:1 is enough for lines and marks; text has the page's own color."""
    for colors, page in zip(palettes(REPORT), ("#ffffff", "#15171b"), strict=True):
        for color in colors.values():
            darker, lighter = sorted((luminance(color), luminance(page)))
            assert (lighter + 0.05) / (darker + 0.05) >= 3
    curves = (DOCS / "results" / "data" / "chapter-curves.svg").read_text("utf-8")
    assert curves.count("var(--framework-") == 2 * 16  # each curve, and its line in the legend
    assert not re.search("<text[^>]*--framework", curves)


def test_the_page_of_furo_gets_what_it_lacks_or_the_build_fails():
    page = '<aside class="sidebar-drawer"><p role="heading">a</p><aside class="toc-drawer no-toc">'
    assert look.named(page) == (
        '<aside class="sidebar-drawer" aria-label="Site"><p role="heading" aria-level="2">a</p>'
        '<aside aria-label="Page" class="toc-drawer no-toc">'
    )
    for found in look.NAMES:
        with pytest.raises(ValueError, match=f"expected {re.escape(found)} in furo's page"):
            look.named(page.replace(found, "<aside>"))


def test_pages_with_a_translation_link_to_it_and_it_links_back():
    assert look.translated_pages() >= {"chapter", "glossary"}
    assert look.translated_pages() <= {
        path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")
    }
    assert look.other_language("chapter", "en") == ("vi", "Tiếng Việt", "vi/chapter.html")
    assert look.other_language("results/speed", "en") is None
    assert look.other_language("results/speed", "vi") == (
        "en", "English", "../results/speed.html",
    )  # fmt: skip
