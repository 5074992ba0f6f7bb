"""A dense block: its maps to scale, and an arc for each map that a layer reads."""

from __future__ import annotations

from ..spec import DenseBlockSpec
from .svg import (
    DASH,
    INPUT,
    MARGIN,
    OF_LAYERS,
    TIMES,
    WIDTH,
    Figure,
    apart,
    element,
    group,
    number,
    paragraph,
    path,
    plural,
    rect,
    text,
    width_of,
)

MOST_BARS = 32  # of layers; in a longer block, each bar represents several
MOST_SPOKEN = 12  # layers that the description lists
LEFT = 76  # x of the first map; the rows' names are to its left
ROOM = WIDTH - LEFT - MARGIN
TOP, HEIGHT = 150, 56  # of the maps
MIDDLE = TOP + HEIGHT / 2
TALLEST_ARC = 185  # height of its control points; the arc itself is 3/4 as high
ROWS = {"layer": 230, "reads": 250, "adds": 270, "output": 304}

Bar = tuple[str, int, int]  # its label, the channels that it reads, the channels that it adds


def block(spec: DenseBlockSpec) -> Figure:
    """Draw a dense block.

    Above the maps, an arc leads from each map to each layer that reads it. Below, rows show the
    channels that each layer reads and adds, and the block's output: all maps side by side.
    """
    bars = _bars(spec)
    added = [spec.in_channels, *(channels for *_, channels in bars)]
    colors = [INPUT, *(OF_LAYERS[i % len(OF_LAYERS)] for i in range(len(bars)))]
    gap = min(44.0, 0.5 * ROOM / len(bars))
    scale = (ROOM - gap * len(bars)) / sum(added)
    starts = [LEFT + sum(added[:i]) * scale + gap * i for i in range(len(added))]
    middles = [start + channels * scale / 2 for start, channels in zip(starts, added, strict=True)]
    nodes = [start - gap / 2 for start in starts[1:]]  # of the layers that write these maps
    radius = min(9.0, 0.25 * gap)
    thickness = 1.6 if len(bars) <= 12 else 0.8

    layers = []
    for i, node in enumerate(nodes, 1):
        width = added[i] * scale
        column = rect(node - gap / 2, TOP, gap + width, ROWS["adds"] - TOP + 6, "column")
        arcs = [
            _arc(middles[j], node, MIDDLE - radius, colors[j], stroke_width=thickness)
            for j in range(i)
        ]
        look = {"fill": "none", "stroke": "currentColor", "stroke_width": min(1.5, radius / 2)}
        layer = element("circle", cx=node, cy=MIDDLE, r=radius, **look)
        output = path([(node + radius, MIDDLE), (starts[i], MIDDLE)])
        drawn = rect(starts[i], TOP, width, HEIGHT, colors[i])
        layers.append(group(column, *arcs, layer, output, drawn, class_="layer"))

    strip = [
        rect(LEFT + sum(added[:i]) * scale, ROWS["output"] - 13, channels * scale, 18, colors[i])
        for i, channels in enumerate(added)
    ]
    total, note = _total(spec), _note(spec, bars)
    below, end = paragraph(LEFT, ROWS["output"] + 26, total, ROOM)
    if note:
        more, end = paragraph(LEFT, end, note, ROOM)
        below += more
    return Figure(
        f"A dense block with {plural(len(spec.layers), 'layer')} and all its connections",
        f"Each layer reads all maps before it. {total} {_each_layer(spec)}{note}",
        end,
        [
            rect(LEFT, TOP, added[0] * scale, HEIGHT, INPUT),
            group(*layers, class_="layers"),
            *(text(LEFT - 12, y, name, anchor="end", class_="name") for name, y in ROWS.items()),
            *_row("layer", nodes, [name for name, *_ in bars]),
            *_row("reads", nodes, [f"{reads:,}" for _, reads, _ in bars]),
            *_row("adds", middles, [f"{added[0]:,}", *(f"+{each:,}" for each in added[1:])]),
            *strip,
            *below,
        ],
        (
            (".column", "fill:transparent"),
            (".arc", "pointer-events:none"),
            (".layers:hover .arc", "opacity:.12"),
            (".layers .layer:hover .arc", "opacity:1;stroke-width:2.5"),
            (".name", "opacity:.75"),
        ),
    )


def _bars(spec: DenseBlockSpec) -> list[Bar]:
    """Return a bar per layer or, in a long block, a bar per several layers."""
    step = -(-len(spec.layers) // MOST_BARS)
    bars = []
    for first in range(0, len(spec.layers), step):
        layers = spec.layers[first : first + step]
        last = first + len(layers)
        name = f"{last}" if step == 1 else f"{first + 1}{DASH}{last}"
        channels = sum((each.conv2 or each.conv1).out_channels for each in layers)
        bars.append((name, layers[0].norm1.num_features, channels))
    return bars


def _arc(x: float, node: float, end: float, color: str, **more: object) -> str:
    """Return an arc from the top of a map to a layer; the longer, the higher."""
    top = TOP - TALLEST_ARC * ((node - x) / ROOM) ** 0.7
    curve = f"M{number(x)} {TOP}C{number(x)} {number(top)} {number(node)} {number(top)}"
    return path(f"{curve} {number(node)} {TOP}V{number(end)}", color, class_="arc", **more)


def _row(name: str, centers: list[float], labels: list[str]) -> list[str]:
    """Return labels below their maps or layers, moved left where they would cross the edge."""
    placed = [
        (min(x, WIDTH - 4 - width_of(label) / 2), label)
        for x, label in zip(centers, labels, strict=True)
    ]
    return [text(x, ROWS[name], label, anchor="middle") for x, label in apart(placed)]


def _total(spec: DenseBlockSpec) -> str:
    k = spec.layers[0].conv2 or spec.layers[0].conv1
    terms = f"{spec.in_channels:,} + {len(spec.layers):,} {TIMES} {k.out_channels:,}"
    return f"{spec.out_channels:,} channels out = {terms}."


def _each_layer(spec: DenseBlockSpec) -> str:
    reads = [f"{layer.norm1.num_features:,}" for layer in spec.layers]
    if len(reads) > MOST_SPOKEN:
        return f"The first layer reads {reads[0]} channels, the last one {reads[-1]}."
    return f"Channels read by each layer: {', '.join(reads)}."


def _note(spec: DenseBlockSpec, bars: list[Bar]) -> str:
    step = -(-len(spec.layers) // MOST_BARS)
    if step == 1:
        return ""
    rest = "" if len(spec.layers) % step == 0 else ", the last one for fewer"
    return (
        f" Each of the {len(bars)} bars represents {step:,} layers{rest}. A layer also reads the "
        "maps before it in its own bar. The row “reads” shows the first layer of each bar."
    )
