"""The complete network to scale: how large each map is, and how many channels it has."""

from __future__ import annotations

from ..manifest import StageProfile, profile
from ..spec import DenseBlockSpec, DenseNetSpec
from .svg import (
    INPUT,
    LAST,
    MARGIN,
    NEW,
    OTHER,
    QUIET,
    TIMES,
    WIDTH,
    Figure,
    plural,
    quantity,
    rect,
    text,
    width_of,
)

TALLEST = 110  # height of the image
LEAST_PITCH, GAP = 26, 14  # from stage to stage; between two tall ones
THINNEST = 1  # height of a map that would be thinner
NARROWEST_STRIPE = 3  # width of one layer's stripe; thinner stripes become one area


def network(spec: DenseNetSpec, image_size: int) -> Figure:
    """Draw every stage as a bar: its height is the map's height, its length the channels."""
    stages = profile(spec, image_size, image_size)
    blocks = {block.name: block for block, _ in spec.stages}
    image = spec.stem.conv0.in_channels, image_size, image_size
    names = ["image", *(stage.name for stage in stages)]
    shapes = [image, *(stage.shape for stage in stages)]
    details = ["", *(_detail(stage, blocks) for stage in stages)]
    written = [f" {TIMES} ".join(map(quantity, shape)) for shape in shapes]

    left = MARGIN + max(map(width_of, names)) + 12
    right = WIDTH - MARGIN - max(map(width_of, (*written, *details))) - 10
    scale = (right - left) / max(channels for channels, *_ in shapes)
    parts, y = [], 30.0
    parts.append(text(MARGIN, 18, "stage", bold=True))
    parts.append(text(left, 18, "height: map size · length: channels", bold=True))
    parts.append(text(WIDTH - MARGIN, 18, f"channels {TIMES} H {TIMES} W", bold=True, anchor="end"))
    for name, shape, detail, label in zip(names, shapes, details, written, strict=True):
        channels, height, _ = shape
        tall = max(TALLEST * height / image_size, THINNEST)
        pitch = max(tall + GAP, LEAST_PITCH + (14 if detail else 0))
        middle = y + pitch / 2
        block = blocks.get(name)
        top = middle - tall / 2
        if block:
            parts += _stripes(block, left, top, scale, tall)
        else:
            parts.append(rect(left, top, channels * scale, tall, _color(name)))
        parts.append(text(MARGIN, middle + 4, name))
        label_y = middle + 4 if not detail else middle - 4
        end = left + channels * scale + 10
        parts.append(text(end, label_y, label))
        if detail:
            parts.append(text(end, label_y + 16, detail, class_="detail"))
        y += pitch
    legend, x = [], left
    for color, words in ((INPUT, "what a block reads"), (NEW, "what its layers add")):
        legend.append(rect(x, y + 8, 12, 12, color))
        legend.append(text(x + 18, y + 18, words))
        x += 18 + width_of(words) + 16
    listed = ", ".join(f"{n} {label}" for n, label in zip(names, written, strict=True))
    return Figure(
        f"A DenseNet with {plural(len(blocks), 'dense block')}, to scale",
        f"From top to bottom, the image and the output of each stage: "
        f"{listed} (channels {TIMES} height {TIMES} width).",
        y + 30,
        [*parts, *legend],
        ((".detail", "opacity:.75"),),
    )


def _detail(stage: StageProfile, blocks: dict[str, DenseBlockSpec]) -> str:
    block = blocks.get(stage.name)
    return plural(len(block.layers), "layer") if block else ""


def _color(name: str) -> str:
    if name == "classifier":
        return LAST
    return OTHER if name.startswith("transition") else QUIET


def _stripes(block: DenseBlockSpec, x: float, y: float, scale: float, height: float) -> list[str]:
    """Return a block's input, then a stripe per layer, or one area if they would be too thin."""
    inside = block.in_channels * scale
    parts = [rect(x, y, inside, height, INPUT)]
    added = (block.out_channels - block.in_channels) * scale
    width = added / len(block.layers)
    if width < NARROWEST_STRIPE:
        return [*parts, rect(x + inside, y, added, height, NEW)]
    between = min(1.0, 0.25 * width)
    return parts + [
        rect(x + inside + i * width + between, y, width - between, height, NEW)
        for i in range(len(block.layers))
    ]
