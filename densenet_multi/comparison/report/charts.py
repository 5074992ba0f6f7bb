"""Draw the deviation after each stage as SVG, and times and memory as bars."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ...drawing.svg import spread
from .markup import escaped

OUTPUT = "output"  # the last place on the axis: the logits
APART = 17  # minimum distance between two labels beside the lines
WIDEST = 9  # width of the widest letter
LONGEST = 20  # maximum letters of a name
DECADES = 8  # maximum number of intervals between grid lines
SHAPES = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Line:
    """The deviations of one backend.

    Attributes:
        label: the framework's name.
        kind: the CSS class with its color.
        values: a deviation per place on the axis; None is a result that is not finite or has the
            wrong shape.
    """

    label: str
    kind: str
    values: list[float | None]


# --- Deviations ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """The axes of the drawing, which map places and values to coordinates."""

    width: int
    left: int
    right: int
    places: list[str]
    lowest: int  # powers of ten
    highest: int
    top: int = 34
    bottom: int = 300

    @property
    def end(self) -> int:
        return self.width - self.right

    @property
    def none(self) -> int:
        """The y coordinate of a result that cannot be compared."""
        return self.top - 14

    def x(self, i: int) -> float:
        inner = self.end - self.left - 24
        return self.left + 12 + (inner * i / max(1, len(self.places) - 1))

    def y(self, value: float | None) -> float:
        if value is None:
            return self.none
        power = math.log10(value) if value > 0 else self.lowest
        share = (min(max(power, self.lowest), self.highest) - self.lowest) / (
            self.highest - self.lowest
        )
        return self.bottom - share * (self.bottom - self.top)


def deviations(places: list[str], lines: list[Line], tolerance: float, *, wide: bool) -> str:
    """Draw the deviation at each place, a line per backend, on a logarithmic axis.

    A value above the tolerance gets a ring. The chart fits a desktop if ``wide``, else a phone.
    """
    values = [value for line in lines for value in line.values if value]
    powers = [math.log10(value) for value in [*values, tolerance]]
    left, right = 46, 18 + WIDEST * max(len(_short(line.label)) for line in lines)
    least, step = (760, 44) if wide else (358, 19)
    frame = _Frame(
        width=max(least, left + right + step * len(places)),
        left=left,
        right=right,
        places=places,
        lowest=math.floor(min(powers) - 0.2),
        highest=math.ceil(max(powers) + 0.3),
    )
    name = "wide" if wide else "narrow"
    inside = [*_axes(frame), *_tolerance(frame, tolerance)]
    for number, line in enumerate(lines):
        inside += _line(frame, line, SHAPES[number % len(SHAPES)], tolerance)
    inside += _beside(frame, lines)
    size = f"0 0 {frame.width} {frame.bottom + 104}"
    return (
        f'<svg class="{name}" viewBox="{size}" width="{frame.width}" role="img" '
        f'aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">Deviation from the reference after each stage</title>'
        f'<desc id="{name}-desc">{escaped(in_words(places, lines, tolerance))}</desc>'
        f"{''.join(inside)}</svg>"
    )


def in_words(places: list[str], lines: list[Line], tolerance: float) -> str:
    """Return a sentence per line of the drawing."""
    sentences = []
    for line in lines:
        finite = [value for value in line.values if value is not None]
        values = f"{min(finite):.1e} to {max(finite):.1e}" if finite else "nowhere finite"
        first = _first_above(places, line, tolerance)
        above = f", above the tolerance from {first} on" if first else ""
        sentences.append(f"{line.label}: {values}{above}.")
    return " ".join(sentences)


def _first_above(places: list[str], line: Line, tolerance: float) -> str | None:
    """Return the first place whose value is above the tolerance or not finite."""
    return next((p for p, v in zip(places, line.values, strict=True) if _above(v, tolerance)), None)


def _above(value: float | None, tolerance: float) -> bool:
    return value is None or value > tolerance


def _axes(frame: _Frame) -> Iterator[str]:
    every = math.ceil((frame.highest - frame.lowest) / DECADES)
    for power in range(frame.lowest, frame.highest + 1, every):
        y = frame.y(10.0**power)
        yield f'<path class="grid" d="M{frame.left} {y:.1f}H{frame.end}"/>'
        yield _text(frame.left - 6, y + 4, f"1e{power:+03d}", anchor="end")
    for i, place in enumerate(frame.places):
        x, y = frame.x(i), frame.bottom + 16
        yield f'<path class="tick" d="M{x:.1f} {frame.bottom}v5"/>'
        yield (
            f'<text x="{x:.1f}" y="{y}" text-anchor="end" '
            f'transform="rotate(-50 {x:.1f} {y})" dx="4">{escaped(place)}</text>'
        )


def _tolerance(frame: _Frame, tolerance: float) -> Iterator[str]:
    y = frame.y(tolerance)
    top = frame.none - 8
    width, height = frame.end - frame.left, y - top
    yield (
        f'<rect class="beyond" x="{frame.left}" y="{top}" width="{width}" height="{height:.1f}"/>'
    )
    yield f'<path class="tolerance" d="M{frame.left} {y:.1f}H{frame.end}"/>'
    yield _text(frame.left + 6, y - 6, f"tolerance {tolerance:.0e}", kind="limit")


def _line(frame: _Frame, line: Line, shape: str, tolerance: float) -> Iterator[str]:
    points = [(frame.x(i), frame.y(value)) for i, value in enumerate(line.values)]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    yield f'<path class="line {line.kind}" d="M{path}"/>'
    for (x, y), value, place in zip(points, line.values, frame.places, strict=True):
        shown = "not finite" if value is None else f"{value:.1e}"
        inside = f"<title>{escaped(f'{line.label}, {place}: {shown}')}</title>"
        if _above(value, tolerance):
            yield f'<circle class="over" cx="{x:.1f}" cy="{y:.1f}" r="9"/>'
        yield f'<path class="dot {line.kind}" d="{_shape(shape, x, y)}">{inside}</path>'


def _shape(name: str, x: float, y: float) -> str:
    at = f"M{x:.1f} {y:.1f}"
    return at + {
        "circle": "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
        "square": "m-3.5-3.5h7v7h-7z",
        "triangle": "m0-5l4.8 8.4h-9.6z",
        "diamond": "m0-5.2l5.2 5.2l-5.2 5.2l-5.2-5.2z",
    }.get(name, "")


def _beside(frame: _Frame, lines: list[Line]) -> Iterator[str]:
    """Draw the name of each line beside its end; names that would overlap move apart."""
    ends = [frame.y(line.values[-1]) for line in lines]
    x = frame.x(len(frame.places) - 1)
    for line, y, at in zip(lines, ends, spread(ends, APART), strict=True):
        route = f"M{x + 6:.1f} {y:.1f}L{frame.end + 2} {at:.1f}h6"
        yield f'<path class="leader {line.kind}" d="{route}"/>'
        yield _text(frame.end + 12, at + 4, _short(line.label), kind=f"name {line.kind}")


def _short(label: str) -> str:
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">'
        f"{escaped(text)}</text>"
    )


# --- Bars ---------------------------------------------------------------------------------------


def bars(title: str, rows: list[tuple[str, str, float, str]]) -> str:
    """Draw a bar per backend, as long as its value, from 0.

    Each row is a label, the CSS class of its color, the value and the text beside the bar.
    """
    longest = max((value for _, _, value, _ in rows), default=0.0) or 1.0
    lines = "".join(
        f'<tr><th scope="row">{escaped(label)}</th><td class="bar">'
        f'<svg width="100%" height="16" aria-hidden="true">'
        f'<rect class="{kind}" width="{100 * value / longest:.1f}%" height="16" rx="2"/></svg>'
        f"</td><td>{escaped(text)}</td></tr>"
        for label, kind, value, text in rows
    )
    return f'<table class="bars"><caption>{escaped(title)}</caption><tbody>{lines}</tbody></table>'
