"""Where a network's parameters, work and memory are, stage by stage."""

from __future__ import annotations

from ..manifest import profile
from ..spec import DenseNetSpec
from .svg import INPUT, MARGIN, NEW, TIMES, WIDTH, Figure, quantity, rect, text, width_of

PITCH, BAR, TOP = 30, 18, 66  # from stage to stage; height of a bar; y of the first one
SPACE = 22  # between two columns


def cost(spec: DenseNetSpec, image_size: int) -> Figure:
    """Draw a bar per stage for its parameters, its multiply-adds and its activations."""
    stages = profile(spec, image_size, image_size)
    columns = {
        "parameters": [stage.parameters.trainable for stage in stages],
        "multiply-adds": [stage.multiply_adds for stage in stages],
        "activations": [stage.activation_bytes() for stage in stages],
    }
    write = {"activations": _memory}
    labels = {
        name: [write.get(name, quantity)(value) for value in values]
        for name, values in columns.items()
    }
    totals = {name: write.get(name, quantity)(sum(columns[name])) for name in columns}
    first = MARGIN + max(width_of(stage.name) for stage in stages) + 14
    needed = {name: max(map(width_of, [*labels[name], totals[name], name])) + 6 for name in columns}
    longest = (WIDTH - MARGIN - first - sum(needed.values()) - 2 * SPACE) / len(columns)

    parts = [text(MARGIN, 44, "total")]
    for i, stage in enumerate(stages):
        parts.append(text(MARGIN, TOP + PITCH * i + BAR - 4, stage.name))
    x, most_in = first, []
    for name, values in columns.items():
        most = max(values)
        most_in.append(f"{name}: {stages[values.index(most)].name}")
        parts.append(text(x, 24, name, bold=True))
        parts.append(text(x, 44, totals[name]))
        for i, (value, label) in enumerate(zip(values, labels[name], strict=True)):
            y = TOP + PITCH * i
            length = longest * value / most if most else 0
            if value:
                parts.append(rect(x, y, length, BAR, NEW if value == most else INPUT))
            parts.append(text(x + length + 6, y + BAR - 4, label, bold=value == most))
        x += longest + needed[name] + SPACE
    side = f"{image_size:,}"
    note = f"One image of {side}{TIMES}{side} pixels; activations: float32, kept for training."
    spoken = "; ".join(
        f"{stage.name}: {', '.join(f'{labels[name][i]} {_of(name)}' for name in columns)}"
        for i, stage in enumerate(stages)
    )
    height = TOP + PITCH * len(stages) + 14
    return Figure(
        "Where the parameters, the work and the memory are",
        f"Largest stages: {'; '.join(most_in)}. In total: "
        f"{', '.join(f'{totals[name]} {_of(name)}' for name in columns)}. {spoken}. {note}",
        height + 18,
        [*parts, text(MARGIN, height, note)],
    )


def _of(name: str) -> str:
    return f"of {name}" if name == "activations" else name


def _memory(value: int) -> str:
    if value < 2**20 / 100:
        return f"{value:,} bytes"
    return f"{value / 2**20:,.2f} MiB" if value < 2**40 else f"{value / 2**20:.3e} MiB"
