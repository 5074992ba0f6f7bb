"""Turn what a block returns into an SVG that is a part of its page."""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any


def picture_of(value: Any) -> str | None:
    """Return the SVG of a value that is a picture; None for other values."""
    if hasattr(value, "_repr_svg_"):
        return _inline(value._repr_svg_())  # the name that notebooks look for
    if type(value).__module__ == "matplotlib.figure":
        return _inline(_drawn(value))
    if isinstance(value, bytes) and value.lstrip().startswith((b"<svg", b"<?xml")):
        return _inline(value.decode("utf-8"))
    return None


def _inline(svg: str) -> str:
    """Drop the XML declaration and the DOCTYPE."""
    return svg[svg.index("<svg") :].strip()


def _drawn(figure: Any) -> str:
    """Draw a Matplotlib figure: the same text each time, black in the color of the page's text."""
    import matplotlib as mpl

    picture = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "densenet_multi"}):
        figure.savefig(picture, format="svg", transparent=True, metadata={"Date": None})
    # a style sheet inside it would hold for the complete page
    global_parts = r"<metadata>.*?</metadata>|<style .*?</style>"
    text = re.sub(global_parts, "", picture.getvalue(), flags=re.DOTALL)
    text = text.replace("#000000", "currentColor")
    strokes = 'stroke-linejoin="round" stroke-linecap="butt"'
    return text.replace("<svg ", f'<svg fill="currentColor" {strokes} ', 1)


def described(svg: str, alt: str) -> str:
    """Return an SVG with a description for screen readers; without ``alt``, it has one itself."""
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1) if alt else svg


def own_ids(svg: str, prefix: str) -> str:
    """Return an SVG with a prefix before all its ids: a page may hold several pictures."""
    svg = re.sub(r'((?<![\w-])id=")', rf"\g<1>{prefix}", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", svg)

    def every(match: re.Match[str]) -> str:
        return match[1] + " ".join(f"{prefix}{word}" for word in match[2].split()) + '"'

    return re.sub(r'(aria-(?:labelledby|describedby)=")([^"]*)"', every, svg)
