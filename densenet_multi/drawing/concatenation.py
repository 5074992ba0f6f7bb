"""ResNet adds, DenseNet concatenates: the same layers, drawn both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..spec import DenseBlockSpec
from .svg import INPUT, OF_LAYERS, Figure, element, mixed, path, plural, rect, text, width_of

MOST_STEPS = 2  # layers that are shown
PANEL, SPACE = 300, 30  # width of a panel; distance from the widest map to the layers
HEIGHT, PITCH, TOP = 34, 108, 76  # of a map; from map to map; y of the first one
LAYER, THIN = 8, 20  # radius of a layer's circle; height of its output
ASIDE = 9  # from a map's upper or lower edge to the lines at its right
BESIDE = 15  # from a map's left edge to the text below it
SKIP = 9  # from a map's left edge to the line that leads to the next map


def addition_and_concatenation(spec: DenseBlockSpec) -> Figure:
    """Draw a block's first two layers as DenseNet connects them, beside the same layers with sums.

    A sum needs equal widths, so ResNet's layers return as many channels as they read. A sum mixes
    the colors of its terms. A concatenation keeps each color, in channels of its own.
    """
    layers = spec.layers[:MOST_STEPS]
    x, k = spec.in_channels, (layers[0].conv2 or layers[0].conv1).out_channels
    colors = [INPUT, *OF_LAYERS[: len(layers)]]
    mixtures = [(f"mix{i}", mixed(colors[: i + 1])) for i in range(1, len(colors))]
    widest = x + k * len(layers)
    scale = (PANEL - SPACE) / (widest + max(x, k))

    one = [(x, INPUT, None), *((x, name, light) for name, (light, _) in mixtures)]
    sums = [[each] for each in one]
    grown = [(x, INPUT, None), *((k, color, None) for color in colors[1:])]
    beside = [grown[: i + 1] for i in range(len(colors))]
    column = widest * scale + SPACE
    parts = [
        *_Panel(30, "ResNet adds", "x ← x + g(x)", sums, colors, x, scale, column).drawn(),
        *_Panel(
            370, "DenseNet concatenates", "x ← concat(x, g(x))", beside, colors, k, scale, column
        ).drawn(),
    ]
    return Figure(
        "ResNet adds, DenseNet concatenates",
        f"Both start with the same {plural(x, 'channel')} and apply {plural(len(layers), 'layer')}."
        f" On the left, each layer's output is added to its input: {plural(x, 'channel')} at the "
        "end, and the colors of all terms are mixed. On the right, each layer's "
        f"{plural(k, 'channel')} are placed beside its input: {plural(widest, 'channel')} at the "
        "end, and each color is kept.",
        TOP + PITCH * len(layers) + HEIGHT + 32,
        parts,
        mixtures=mixtures,
    )


@dataclass(frozen=True, slots=True)
class _Panel:
    """One of the two halves.

    Attributes:
        left: x of its left edge.
        name, formula: its two headings.
        maps: the parts of each map, from top to bottom: (channels, color, fill).
        colors: of the input, then of each layer's output.
        output: channels of a layer's output.
        scale: units per channel.
        column: from the left edge to the layers.
    """

    left: float
    name: str
    formula: str
    maps: Sequence[Sequence[tuple[int, str, str | None]]]
    colors: Sequence[str]
    output: int
    scale: float
    column: float

    @property
    def middle(self) -> float:
        """Half the width of a layer's output."""
        return self.output * self.scale / 2

    def drawn(self) -> list[str]:
        """Return the elements of the panel."""
        parts = [text(self.left, 24, self.name, bold=True), text(self.left, 46, self.formula)]
        for i, each in enumerate(self.maps):
            y, x = TOP + PITCH * i, self.left
            if i:
                parts += self.layer(i)
            for channels, color, fill in each:
                look = {"fill": fill} if fill else {}
                parts.append(rect(x, y, channels * self.scale, HEIGHT, color, **look))
                x += channels * self.scale
            numbers = [channels for channels, *_ in each]
            total = plural(sum(numbers), "channel")
            terms = f"{sum(numbers):,} = {' + '.join(f'{n:,}' for n in numbers)} channels"
            room = PANEL if i == len(self.maps) - 1 else self.column + self.middle - LAYER - SKIP
            fits = len(numbers) > 1 and BESIDE + width_of(terms) < room
            label = terms if fits else total
            parts.append(text(self.left + BESIDE, y + HEIGHT + 18, label))
        return parts

    def layer(self, i: int) -> list[str]:
        """Return what leads from map i - 1 to map i: a layer, its output, and the lines."""
        above, below = TOP + PITCH * (i - 1), TOP + PITCH * i
        width = self.output * self.scale
        x, y = self.left + self.column + self.middle, above + HEIGHT + 14
        end = self.left + sum(channels for channels, *_ in self.maps[i - 1]) * self.scale
        out = above + HEIGHT - ASIDE  # of the line to the layer, below the line into the map
        top = y + LAYER + 8  # of the layer's output
        parts = [
            path([(end, out), (x, out), (x, y - LAYER)]),
            element("circle", cx=x, cy=y, r=LAYER, fill="none", stroke="currentColor"),
            text(x, y + 4, "f", anchor="middle"),
            path([(x, y + LAYER), (x, top)]),
            rect(x - width / 2, top, width, THIN, self.colors[i]),
        ]
        skip = self.left + SKIP
        if len(self.maps[i]) == 1:  # a sum
            plus = below - 20
            parts += [
                path([(x, top + THIN), (x, plus), (skip + LAYER, plus)]),
                path([(skip, above + HEIGHT), (skip, plus - LAYER)]),
                element("circle", cx=skip, cy=plus, r=LAYER, fill="none", stroke="currentColor"),
                path([(skip - 4, plus), (skip + 4, plus)]),
                path([(skip, plus - 4), (skip, plus + 4)]),
                *_arrow(skip, plus + LAYER, skip, below),
            ]
        else:
            edge = self.left + sum(channels for channels, *_ in self.maps[i]) * self.scale
            across = below + ASIDE
            parts += [
                path([(x, top + THIN), (x, across), (edge + 6, across)]),
                *_arrow(edge + 6, across, edge, across),
                *_arrow(skip, above + HEIGHT, skip, below),
            ]
        return parts


def _arrow(x: float, y: float, to_x: float, to_y: float) -> list[str]:
    """Return a line with an arrow head; it leads left or down."""
    if y == to_y:
        head = [(to_x + 6, to_y - 4), (to_x, to_y), (to_x + 6, to_y + 4)]
    else:
        head = [(to_x - 4, to_y - 6), (to_x, to_y), (to_x + 4, to_y - 6)]
    return [path([(x, y), (to_x, to_y)]), path(head)]
