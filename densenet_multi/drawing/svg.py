"""Build SVG as text: elements, escaped text, colors for light and dark pages.

A drawing is readable inline in a page, as an image, and alone in a viewer that knows no CSS
variables. Colors are therefore written twice, as an attribute for such viewers and as a
variable that a page, its dark theme or the reader's system can change.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from .._checks import ConfigError

WIDTH = 700  # of every viewBox, in units: pixels if a page shows the drawing this wide
MARGIN = 20
SCOPE = "densenet-drawing"  # class of every drawing; its CSS is for this class alone
SIZE = 13  # of text, in units
TIMES, DASH = "\u00d7", "\u2013"  # multiplication sign; en dash, for ranges
EM = 0.6  # width of an average character; system fonts have 0.5 to 0.58

COLORS = {  # name -> on a light page, on a dark one; each has a contrast of 3:1 or more
    "c0": ("#2777bd", "#5aa9e6"),
    "c1": ("#c9730c", "#f0a848"),
    "c2": ("#1f8f63", "#4fc394"),
    "c3": ("#a9549b", "#d08fc6"),
    "c4": ("#c0492f", "#e8846d"),
    "quiet": ("#76818f", "#8d98a8"),
}
INPUT, NEW, OTHER, LAST, QUIET = "c0", "c1", "c3", "c2", "quiet"
OF_LAYERS = ("c1", "c2", "c3", "c4")  # the maps of successive layers, in turn


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure before it is a document.

    Attributes:
        title: the figure's name, for readers who cannot see it.
        description: what the figure shows, with all numbers that matter.
        height: of the viewBox, in units.
        parts: its elements, as SVG.
        rules: (selector, declarations) of CSS, in addition to the colors.
        mixtures: more colors: {name: (on a light page, on a dark one)}.
    """

    title: str
    description: str
    height: float
    parts: Sequence[str]
    rules: Sequence[tuple[str, str]] = ()
    mixtures: Sequence[tuple[str, tuple[str, str]]] = ()


class Drawing(str):
    """An SVG document as text; a notebook shows it as a picture."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


# --- Elements -----------------------------------------------------------------------------------


def element(tag: str, *inside: str, **attributes: object) -> str:
    """Return an element; ``inside`` is SVG, and attributes are escaped.

    An attribute that is None is omitted. In names, ``_`` means ``-``; a trailing ``_`` is dropped.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    content = "".join(inside)
    return f"<{tag}{written}>{content}</{tag}>" if content else f"<{tag}{written}/>"


def _value(value: object) -> str:
    return number(value) if isinstance(value, (int, float)) else escaped(str(value))


def number(value: float) -> str:
    """Return a coordinate with at most two decimals."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def escaped(text: str) -> str:
    """Escape text for XML, and replace the characters that XML forbids."""
    return escape(re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))


def text(
    x: float,
    y: float,
    content: str,
    *,
    anchor: str = "start",
    bold: bool = False,
    color: str | None = None,
    class_: str | None = None,
) -> str:
    """Return a line of text with its baseline at y; without ``color``, in the page's color."""
    return element(
        "text",
        escaped(content),
        x=x,
        y=y,
        text_anchor=None if anchor == "start" else anchor,
        font_weight="bold" if bold else None,
        fill=COLORS[color][0] if color else None,
        class_=" ".join(filter(None, (color, class_))) or None,
    )


def rect(x: float, y: float, width: float, height: float, color: str, **more: object) -> str:
    """Return a rectangle of at least half a unit per side; ``color`` may be another CSS class."""
    fill = COLORS[color][0] if color in COLORS else "none"
    size = {"width": max(width, 0.5), "height": max(height, 0.5)}
    return element("rect", x=x, y=y, **size, **({"class_": color, "fill": fill} | more))


def path(
    route: str | Sequence[tuple[float, float]],
    color: str | None = None,
    *,
    class_: str | None = None,
    **more: object,
) -> str:
    """Return a line through points, or along path data; without ``color``, in the page's color."""
    if not isinstance(route, str):
        route = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in route)
    return element(
        "path",
        d=route,
        fill="none",
        stroke=COLORS[color][0] if color else "currentColor",
        class_=" ".join(filter(None, (color and f"{color}-line", class_))) or None,
        **more,
    )


def group(*inside: str, class_: str | None = None, **more: object) -> str:
    """Return elements as one group."""
    return element("g", *inside, class_=class_, **more)


# --- Text ---------------------------------------------------------------------------------------


def width_of(content: str) -> float:
    """Estimate the width of a line of text, in units; real fonts are a little narrower."""
    return EM * SIZE * len(content)


def apart(labels: Sequence[tuple[float, str]], gap: float = 6) -> list[tuple[float, str]]:
    """Return labels (center, text) that overlap neither the last nor an earlier kept one."""
    if len(labels) < 2:
        return list(labels)
    last_x, last = labels[-1]
    end, limit = float("-inf"), last_x - width_of(last) / 2 - gap
    kept = []
    for x, label in labels[:-1]:
        half = width_of(label) / 2
        if x - half >= end and x + half <= limit:
            kept.append((x, label))
            end = x + half + gap
    return [*kept, labels[-1]]


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move the heights of labels, in any order, at least ``gap`` apart; keep their mean."""
    moved = list(heights)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    for above, below in pairwise(order):
        moved[below] = max(heights[below], moved[above] + gap)
    shift = (sum(heights) - sum(moved)) / max(1, len(heights))
    return [height + shift for height in moved]


def wrapped(content: str, width: float) -> list[str]:
    """Break a sentence into lines of at most this width, in units."""
    lines = [""]
    for word in content.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if width_of(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def paragraph(x: float, y: float, content: str, width: float) -> tuple[list[str], float]:
    """Return a sentence in lines of at most this width, and the y of the line after it."""
    lines = wrapped(content, width)
    return [text(x, y + 18 * i, each) for i, each in enumerate(lines)], y + 18 * len(lines)


def quantity(value: int) -> str:
    """Write a count with thousands separators; from 10**12, with an exponent."""
    return f"{value:,}" if value < 10**12 else f"{value:.3e}"


def plural(count: int, noun: str) -> str:
    """Write a count and its noun: "1 layer", "4 layers"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


# --- The document -------------------------------------------------------------------------------


def mixed(names: Sequence[str]) -> tuple[str, str]:
    """Return the average of some colors, on a light page and on a dark one."""
    light, dark = (_average([COLORS[name][theme] for name in names]) for theme in (0, 1))
    return light, dark


def _average(colors: list[str]) -> str:
    channels = zip(*(bytes.fromhex(color[1:]) for color in colors), strict=True)
    return "#" + bytes(round(sum(each) / len(colors)) for each in channels).hex()


def document(figure: Figure, prefix: str, title: str | None = None) -> Drawing:
    """Return a figure as an SVG document; the same figure gives the same text.

    Arguments:
        figure: the figure.
        prefix: start of all ids; drawings in one page need different prefixes.
        title: replaces the figure's title.

    Raises ``ConfigError`` for a prefix that is not a plain name.
    """
    if not re.fullmatch("[A-Za-z][A-Za-z0-9-]*", prefix):
        raise ConfigError(
            f"prefix: expected letters, digits and hyphens after a first letter, found {prefix!r}"
        )
    named = element("title", escaped(title or figure.title), id=f"{prefix}-title")
    described = element("desc", escaped(figure.description), id=f"{prefix}-desc")
    style = element("style", escaped(_css(figure)).replace("&gt;", ">"))
    box = f"0 0 {WIDTH} {number(figure.height)}"
    return Drawing(
        element(
            "svg",
            *(f"\n{part}" for part in (named, described, style, *figure.parts)),
            "\n",
            xmlns="http://www.w3.org/2000/svg",
            id=prefix,
            class_=SCOPE,
            viewBox=box,
            role="img",
            aria_labelledby=f"{prefix}-title {prefix}-desc",
            font_family="system-ui, sans-serif",
            font_size=SIZE,
            fill="currentColor",
        )
        + "\n"
    )


def _css(figure: Figure) -> str:
    colors = {**COLORS, **dict(figure.mixtures)}
    light, dark = (
        ";".join(f"--{name}:var(--drawing-{name},{both[i]})" for name, both in colors.items())
        for i in (0, 1)
    )
    rules = (
        *((f".{name}", f"fill:var(--{name})") for name in colors),
        *((f".{name}-line", f"stroke:var(--{name})") for name in colors),
        (".faint", "opacity:.15"),
        *figure.rules,
    )
    return "".join(
        [
            f".{SCOPE}{{{light}}}",
            f".{SCOPE}:root{{color-scheme:light dark;color:#1d2129}}",
            f"@media (prefers-color-scheme:dark){{.{SCOPE}{{{dark}}}",
            f".{SCOPE}:root{{color:#e4e7eb}}}}",
            f"[data-theme=light] .{SCOPE}{{{light}}}",
            f"[data-theme=dark] .{SCOPE}{{{dark}}}",
            *(f".{SCOPE} {selector}{{{body}}}" for selector, body in rules),
        ]
    )
