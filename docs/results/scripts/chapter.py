"""Measure and draw the pictures of docs/chapter.md that its own blocks cannot compute in seconds.

In docs/results/data:

    densenet-multi train --backend torch --recipe modern --variant d2l --image-size 64 --epochs 3 \
        --bfloat16 --output trained
    python ../scripts/chapter.py read trained/last.safetensors > reading.json
    python ../scripts/chapter.py draw

``draw`` writes chapter-curves.svg (from sample-curves-*.json, see sample_curves.py),
chapter-confusion.svg, chapter-reading.svg, chapter-weights.svg and chapter-memory.svg. A test
compares them with what is stored. The pictures are parts of the page: their text has the color of
the page's text.
"""

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import densenet_multi as dm
from densenet_multi.data import load_sample, to_input
from densenet_multi.drawing import svg

Weights = Mapping[str, npt.NDArray[Any]]

HERE = Path(__file__).parents[1] / "data"
BACKENDS = ("torch", "gluon", "keras", "flax")
COLORS = {"torch": "#c8500a", "keras": "#5b2a86", "gluon": "#0b62a8", "flax": "#1d9a73"}
DASHES = {"torch": "", "keras": "6 3", "gluon": "2 3", "flax": "9 3 2 3"}
SCHEDULES = {"constant": "constant learning rate", "linear": "learning rate falls to 0"}
CASES = {"plain": "keeps everything", "efficient": "recomputes"}
DEPTHS = (40, 100, 190, 250)


def read(name: str) -> Any:
    """Load a JSON file of docs/results/data."""
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


# --- What a trained network reads ---------------------------------------------------------------


def readers(spec: dm.DenseNetSpec) -> dict[str, list[tuple[str, str, list[slice]]]]:
    """Return, for each block, (BatchNorm, convolution, channels of each source) of each reader.

    Source 0 is the block's input, source i is its layer i. The last reader is the transition, or
    the classifier.
    """
    found = {}
    for block, transition in spec.stages:
        prefix = f"features.{block.name}"
        names = [f"{prefix}.{layer.name}" for layer in block.layers]
        pairs = [(f"{name}.norm1", f"{name}.conv1") for name in names]
        if transition:
            after = f"features.{transition.name}"
            pairs.append((f"{after}.norm", f"{after}.conv"))
        else:
            pairs.append(("features.norm5", "classifier"))
        ends = [0, *range(block.in_channels, block.out_channels + 1, spec.config.growth_rate)]
        sources = [slice(*each) for each in pairwise(ends)]
        found[block.name] = [(*pair, sources[: i + 1]) for i, pair in enumerate(pairs)]
    return found


def reading(spec: dm.DenseNetSpec, weights: Weights) -> dict[str, list[list[float | None]]]:
    """Return how strongly each reader reads each source, {block: matrix}.

    Row i, column j: source i and reader j. The reader's BatchNorm gives every channel the variance
    1 and multiplies it by a scale. So a value is the mean absolute product of scale and weight,
    divided by the mean over all channels that this reader reads: 1 is the average.
    """
    result = {}
    for block, found in readers(spec).items():
        columns = []
        for norm, conv, sources in found:
            kernel = np.abs(weights[f"{conv}.weight"]).astype(np.float64)
            by_channel = kernel.mean(axis=0).reshape(kernel.shape[1], -1).mean(axis=1)
            by_channel *= np.abs(weights[f"{norm}.weight"])
            columns.append([float(by_channel[s].mean() / by_channel.mean()) for s in sources])
        result[block] = _as_rows(columns)
    return result


def cut_off(
    spec: dm.DenseNetSpec, weights: Weights, loss: Callable[[Weights], float]
) -> dict[str, list[list[float | None]]]:
    """Return by how much the loss rises when a reader is cut off from a source, {block: matrix}.

    The scale of the reader's BatchNorm is set to 0 for the channels of this source, so that the
    reader sees a constant there. All other readers of this source are as before.
    """
    result, before = {}, loss(weights)
    for block, found in readers(spec).items():
        columns = []
        for norm, _, sources in found:
            column = []
            for source in sources:
                scale = weights[f"{norm}.weight"].copy()
                scale[source] = 0
                column.append(loss({**weights, f"{norm}.weight": scale}) - before)
            columns.append(column)
        result[block] = _as_rows(columns)
    return result


def _as_rows(columns: list[list[float]]) -> list[list[float | None]]:
    """Return a matrix with a row for each source; None where a reader comes before the source."""
    most = max(map(len, columns))
    filled = [[round(v, 4) for v in c] + [None] * (most - len(c)) for c in columns]
    return [list(row) for row in zip(*filled, strict=True)]


# --- SVG ----------------------------------------------------------------------------------------


def document(width: int, height: int, title: str, description: str, *parts: str) -> str:
    """Return an SVG document, described for those who do not see it."""
    opened = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'lang="en" width="{width}" height="{height}" fill="currentColor" font-family="sans-serif" '
        'font-size="13">'
    )
    head = f"<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>"
    return "\n".join([opened, head, *parts, "</svg>\n"])


def text(x: float, y: float, words: str, anchor: str = "start", extra: str = "") -> str:
    """Return a line of text."""
    at = f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {at} text-anchor="{anchor}"{extra}>{escape(words)}</text>'


def path(points: list[tuple[float, float]], style: str) -> str:
    """Return a line through points."""
    d = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{d}" fill="none" {style}/>'


def axes(x: float, y: float, width: float, height: float) -> str:
    """Return the frame of a plot: its left and lower edge."""
    edge = 'stroke="currentColor" stroke-opacity="0.5"'
    return path([(x, y), (x, y + height), (x + width, y + height)], edge)


def cell(at: tuple[float, float], size: tuple[float, float], share: float, words: str) -> str:
    """Return a cell of a heat map; the larger ``share``, the darker its background."""
    (x, y), (width, height) = at, size
    opacity = 0.75 * min(max(share, 0.0), 1.0)
    box = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width - 2:.1f}" height="{height - 2:.1f}" '
    color = f'rx="3" fill="#3f82c4" fill-opacity="{opacity:.2f}"/>'
    return box + color + text(x + width / 2 - 1, y + height / 2 + 4, words, "middle")


# --- The pictures -------------------------------------------------------------------------------


def curves() -> str:
    """Draw training loss and test accuracy of the four frameworks, for both schedules."""
    runs = {name: read(f"sample-curves-{name}") for name in BACKENDS}
    parts, last = [], []
    rows = (("loss", "training loss", 0.0, 2.5), ("validation_accuracy", "test accuracy", 0.0, 1.0))
    for row, (key, label, low, high) in enumerate(rows):
        for column, schedule in enumerate(SCHEDULES):
            x, y, width, height = 45 + 345 * column, 45 + 200 * row, 180, 150
            parts += [axes(x, y, width, height), text(x, y - 10, label)]
            if row == 0:
                parts.append(text(x, 18, SCHEDULES[schedule], extra=' font-weight="bold"'))
            for tick in (low, (low + high) / 2, high):
                at = y + height * (1 - (tick - low) / (high - low))
                parts.append(text(x - 6, at + 4, f"{tick:g}", "end"))
            ends, styles = {}, {}
            for name, run in runs.items():
                values = [epoch[key] for epoch in run["epochs"][schedule]]
                step = width / (len(values) - 1)
                scaled = [1 - (min(max(v, low), high) - low) / (high - low) for v in values]
                points = [(x + i * step, y + height * v) for i, v in enumerate(scaled)]
                color = f"var(--framework-{name}, {COLORS[name]})"
                dash = f' stroke-dasharray="{DASHES[name]}"' if DASHES[name] else ""
                styles[name] = f'style="stroke:{color}" stroke-width="2"{dash}'
                parts.append(path(points, styles[name]))
                ends[name] = points[-1][1], values[-1]
            for name, at in _apart({name: y for name, (y, _) in ends.items()}).items():
                words = f"{runs[name]['framework']} {ends[name][1]:.3f}"
                sample = [(x + width + 6, at), (x + width + 24, at)]
                parts += [path(sample, styles[name]), text(x + width + 28, at + 4, words)]
                if row == 1:
                    last.append(f"{schedule}, {words}")
            count = len(next(iter(runs.values()))["epochs"][schedule])
            for epoch in (1, count):
                at = x + width * (epoch - 1) / (count - 1)
                parts.append(text(at, y + height + 17, str(epoch), "middle"))
            parts.append(text(x + width / 2, y + height + 17, "epoch", "middle"))
    description = "Test accuracy after the last epoch: " + "; ".join(last)
    return document(730, 430, "Training in four frameworks", description, *parts)


def _apart(heights: dict[str, float], least: float = 15) -> dict[str, float]:
    """Move labels apart that would overlap."""
    names = sorted(heights, key=heights.__getitem__)
    return dict(zip(names, svg.spread([heights[name] for name in names], least), strict=True))


def confusion() -> str:
    """Draw the confusion matrix of the chapter's network, trained for ten epochs."""
    found = read("recalibrated-best")
    names, counts = found["class_names"], np.array(found["confusion"])
    x0, y0, width, height = 100, 100, 52, 26
    parts = [text(12, y0 - 50, "true \u2193   predicted \u2192")]
    for i, name in enumerate(names):
        x, y = x0 + width * i + width / 2, y0 + height * i
        turn = f' transform="rotate(-40 {x:.1f} {y0 - 8})"'
        parts += [text(x0 - 8, y + 17, name, "end"), text(x, y0 - 8, name, extra=turn)]
        for j, count in enumerate(counts[i]):
            shown = f"{count}" if count else "\u00b7"
            share = count / counts[i].sum()
            parts.append(cell((x0 + width * j, y), (width, height), float(share), shown))
    description = (
        f"Rows are true classes, columns predicted ones. Of 1,000 shirts, {counts[6, 6]} are "
        f"recognized, {counts[6, 0]} are taken for T-shirts and {counts[6, 2]} for pullovers."
    )
    return document(700, 370, "Confusion matrix of the trained network", description, *parts)


HEAT_MAPS = {  # what is measured -> a title, and what a number is
    "cut_off": (
        "Which earlier maps each layer needs",
        "the rise of the test loss when this reader cannot read this source",
    ),
    "reading": (
        "How strongly each layer reads earlier maps",
        "this reader's mean |BatchNorm scale x weight| for this source, divided by that for all",
    ),
}


def heat_maps(measured: str) -> str:
    """Draw a matrix of sources and readers for each block of the trained network."""
    found = read("reading")[measured]
    most = max(value for rows in found.values() for row in rows for value in row if value)
    low = 0.5 if measured == "reading" else 0.0  # without color
    parts, width, height = [], 52, 28
    title, meaning = HEAT_MAPS[measured]
    for index, (block, rows) in enumerate(found.items()):
        x0, y0 = 80 + 355 * (index % 2), 62 + 225 * (index // 2)
        parts.append(text(x0, y0 - 38, block, extra=' font-weight="bold"'))
        last = "classifier" if index == len(found) - 1 else "transition"
        names = [f"layer {j + 1}" for j in range(len(rows) - 1)] + [last]
        for j, name in enumerate(names):
            parts.append(text(x0 + width * j + width / 2, y0 - 10, name, "middle"))
        for i, row in enumerate(rows):
            source = f"layer {i}" if i else "block input"
            parts.append(text(x0 - 6, y0 + height * i + 18, source, "end"))
            for j, value in enumerate(row):
                if value is not None:
                    at = x0 + width * j, y0 + height * i
                    share = (value - low) / (most - low)
                    share = share if measured == "reading" else max(share, 0.0) ** 0.5
                    shown = f"{value:.2f}".replace("-0.00", "0.00")
                    parts.append(cell(at, (width, height), share, shown))
    description = (
        f"One matrix per block. Rows are sources, columns are readers. A number is {meaning}."
    )
    return document(735, 440, title, description, *parts)


def memory() -> str:
    """Draw PyTorch's memory against depth, plain and with recomputation."""
    x0, y0, width, height, most = 50, 30, 430, 220, 12.0
    parts = [axes(x0, y0, width, height), text(x0, 16, "memory of a training step, GiB")]
    for tick in (0, 4, 8, 12):
        at = y0 + height * (1 - tick / most)
        parts.append(text(x0 - 6, at + 4, str(tick), "end"))
    said = []
    for case, label in CASES.items():
        points, last = [], 0.0
        for depth in DEPTHS:
            grown = read(f"growth-{depth}")["backends"]["torch"]["cases"][case]["grown_bytes"]
            last = grown / 2**30
            points.append((x0 + width * depth / 250, y0 + height * (1 - last / most)))
            said.append(f"{depth} layers, {label}: {last:.1f} GiB")
        dash = "" if case == "plain" else ' stroke-dasharray="6 3"'
        parts.append(path(points, f'stroke="currentColor" stroke-width="2"{dash}'))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points]
        parts.append(text(points[-1][0] + 8, points[-1][1] + 4, f"{label} {last:.1f}"))
    for depth in DEPTHS:
        parts.append(text(x0 + width * depth / 250, y0 + height + 17, str(depth), "middle"))
    parts.append(text(x0 + width / 2, y0 + height + 36, "depth L", "middle"))
    return document(640, 300, "Memory against depth", "; ".join(said), *parts)


PICTURES = {
    "chapter-curves": curves,
    "chapter-confusion": confusion,
    "chapter-reading": partial(heat_maps, "cut_off"),
    "chapter-weights": partial(heat_maps, "reading"),
    "chapter-memory": memory,
}


def main(command: str, *arguments: str) -> None:
    """Run ``read FILE`` or ``draw``."""
    if command == "draw":
        for name, draw in PICTURES.items():
            (HERE / f"{name}.svg").write_text(draw(), encoding="utf-8")
        return
    checkpoint = dm.load_checkpoint(arguments[0])
    spec, weights = checkpoint.spec, checkpoint.weights
    folder = Path(arguments[0]).parent
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    b = dm.load_backend("torch")
    model = b.build(spec)
    pixels, labels = load_sample("test")
    images = to_input(pixels, image_size=report["recipe"]["image_size"])

    def loss(changed: Weights) -> float:
        b.import_weights(model, changed)
        return dm.reference.cross_entropy(b.predict(model, images), labels)

    kept = ("backend", "versions", "recipe_name", "recipe", "test_accuracy", "train_examples")
    result = {key: report[key] for key in kept}
    result["loss"] = loss(weights)
    result["reading"] = reading(spec, weights)
    result["cut_off"] = cut_off(spec, weights, loss)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
