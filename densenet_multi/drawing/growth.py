"""Channels over depth: how blocks widen a network and transitions narrow it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .._checks import ConfigError
from ..spec import DenseNetSpec
from .svg import (
    INPUT,
    NEW,
    WIDTH,
    Figure,
    apart,
    path,
    plural,
    rect,
    text,
    width_of,
)

TOP, BOTTOM = 44, 340  # of the plot
HEIGHT = 402  # of the figure
OTHERWISE = 0.5  # the compression to compare with if the network has none
MOST_TICKS = 6
APART = 38  # between the names of two lines
LOWEST = BOTTOM - 22  # the lowest y at which a line's name still clears the axis

Points = list[tuple[int, int]]  # (dense layers so far, channels)
Line = tuple[Points, str, str, dict[str, Any]]  # with its color, name and look
Place = Callable[[tuple[float, float]], tuple[float, float]]  # data coordinates -> SVG coordinates


def growth(spec: DenseNetSpec) -> Figure:
    """Draw a network's channels over its depth, with and without compression."""
    own, other = _points(spec), _compared(spec)
    theta = spec.config.compression
    name = _named(theta) if len(spec.stages) > 1 else "no transition"
    lines: list[Line] = [(own, INPUT, name, {"stroke_width": 2.5})]
    if other:
        other_theta = 1.0 if theta < 1 else OTHERWISE
        dashed: dict[str, Any] = {"stroke_width": 2, "stroke_dasharray": "6 4"}
        lines.append((_points(other), NEW, _named(other_theta), dashed))
    depth = own[-1][0]
    most = max(y for points, *_ in lines for _, y in points)
    step = _step(most)
    ticks = [i * step for i in range(int(most // step) + 1)]
    left = 24 + max(width_of(f"{tick:,}") for tick in ticks)
    right = WIDTH - 14 - max(width_of(name) for *_, name, _ in lines)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = point
        return left + x / depth * (right - left), BOTTOM - y / most * (BOTTOM - TOP)

    ends = [points[-1][1] for points, *_ in lines]
    names = [name for *_, name, _ in lines]
    parts = [text(20, 20, "channels", bold=True), *_bands(spec, place)]
    for tick in ticks:
        _, y = place((0, tick))
        parts.append(path([(left, y), (right, y)], class_="faint"))
        parts.append(text(left - 8, y + 4, f"{tick:,}", anchor="end"))
    for points, color, _, look in lines:
        parts.append(path([place(point) for point in points], color, **look))
    parts += _turns(own, place)
    parts += _ends(right, [place((depth, end))[1] for end in ends], ends, names)
    middle = (left + right) / 2
    parts.append(text(middle, HEIGHT - 10, "dense layers", anchor="middle", bold=True))
    drops = ", ".join(f"{before:,} to {after:,}" for before, after in _drops(spec))
    transitions = f" Its transitions reduce {drops}." if drops else " It has no transition."
    compared = ""
    if other:
        compared = f" {lines[1][2].capitalize()}: {lines[1][0][-1][1]:,} channels at the end."
    return Figure(
        "Channels over depth",
        f"A line from {plural(own[0][1], 'channel')} after the stem to {own[-1][1]:,} after "
        f"{plural(int(depth), 'dense layer')}.{transitions}{compared}",
        HEIGHT,
        parts,
        ((".band", "fill:currentColor;opacity:.06"),),
    )


def _named(compression: float) -> str:
    return "without compression" if compression == 1 else f"compression {compression:g}"


def _compared(spec: DenseNetSpec) -> DenseNetSpec | None:
    """Return the network with compression if it has none, else without; None if impossible."""
    if len(spec.stages) == 1:
        return None
    theta = OTHERWISE if spec.config.compression == 1 else 1.0
    try:
        return replace(spec.config, compression=theta).resolve()
    except ConfigError:  # too many channels, or none left
        return None


def _points(spec: DenseNetSpec) -> Points:
    points: Points = [(0, spec.stem.conv0.out_channels)]
    depth = 0
    for block, transition in spec.stages:
        depth += len(block.layers)
        points.append((depth, block.out_channels))
        if transition:
            points.append((depth, transition.conv.out_channels))
    return points


def _drops(spec: DenseNetSpec) -> list[tuple[int, int]]:
    return [(t.conv.in_channels, t.conv.out_channels) for _, t in spec.stages if t]


def _step(most: float) -> int:
    """Return the tick distance (1, 2 or 5 times a power of ten) for at most 6 ticks to ``most``."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if most / (digit * power) < MOST_TICKS:
                return digit * power
        power *= 10


def _bands(spec: DenseNetSpec, place: Place) -> list[str]:
    """Return a band for every second block, all blocks' names, and the layers up to each end."""
    bands, names, counts, depth = [], [], [(place((0, 0))[0], "0")], 0
    right, _ = place((sum(len(block.layers) for block, _ in spec.stages), 0))
    for i, (block, _) in enumerate(spec.stages):
        start, depth = depth, depth + len(block.layers)
        (x, _), (end, _) = place((start, 0)), place((depth, 0))
        if i % 2 == 0:
            bands.append(rect(x, TOP, end - x, BOTTOM - TOP, "band"))
        name = f"block {i + 1}"
        names.append((min((x + end) / 2, right - width_of(name) / 2), name))
        counts.append((end, f"{depth:,}"))
    named = [text(x, TOP - 8, name, anchor="middle") for x, name in apart(names)]
    ticks = [text(x, BOTTOM + 34, count, anchor="middle") for x, count in apart(counts)]
    return [*bands, *named, *ticks]


def _turns(points: Points, place: Place) -> list[str]:
    """Return the labels of the line's turns: right of its peaks, below its valleys."""
    end, _ = place(points[-1])
    peaks = [(*place(peak), f"{peak[1]:,}") for peak in points[1:-1:2]]
    valleys = [(*place(valley), f"{valley[1]:,}") for valley in points[2:-1:2]]
    deep = [low for high, low in zip(peaks, valleys, strict=True) if low[1] - high[1] > 12]
    beside = [(x, y, label) for x, y, label in peaks if x + 5 + width_of(label) < end]
    parts = []
    for turns, right, below, anchor in (beside, 5, 12, "start"), (deep, 0, 18, "middle"):
        heights = {x: y for x, y, _ in turns}
        for x, label in apart([(x, label) for x, _, label in turns]):
            parts.append(text(x + right, heights[x] + below, label, anchor=anchor))
    return parts


def _ends(x: float, heights: list[float], ends: list[int], names: list[str]) -> list[str]:
    """Return each line's channels and name, at its end; the higher line's above the other's."""
    heights = [min(y, LOWEST) for y in heights]
    if len(heights) == 2 and abs(heights[0] - heights[1]) < APART:
        higher = heights.index(min(heights)) if heights[0] != heights[1] else ends.index(max(ends))
        lower = min(max(heights) + APART / 2, LOWEST)
        heights = [lower, lower]
        heights[higher] -= APART
    parts = []
    for y, end, name in zip(heights, ends, names, strict=True):
        parts.append(text(x + 8, y + 6, f"{end:,}", bold=True))
        parts.append(text(x + 8, y + 22, name))
    return parts
