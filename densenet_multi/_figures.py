"""Draw figures as SVG; the same data always produce the same bytes."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_NAMED = 40  # classes; a larger confusion matrix has neither names nor counts


def training_curve(lines: list[dict[str, Any]], final_accuracy: float | None = None) -> bytes:
    """Plot a run's loss (above) and accuracy (below) over its epochs.

    Arguments:
        lines: the lines of ``history.jsonl``, parsed.
        final_accuracy: test accuracy of the final weights, from 0 to 1; drawn as a star.
    """
    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    figure, (top, bottom) = _figure(5.5, 5, rows=2)
    x = [line["number"] for line in epochs]
    if epochs and steps:
        in_epochs = [step["number"] / epochs[0]["steps"] for step in steps]
        named = {"color": "C0", "alpha": 0.3, "linewidth": 0.8, "label": "training, single steps"}
        top.plot(in_epochs, [step["loss"] for step in steps], **named)
    for axes, name in (top, "loss"), (bottom, "accuracy"):
        axes.plot(x, [line[name] for line in epochs], "C0.-", label="training")
        tested = [line[f"validation_{name}"] for line in epochs]
        if None not in tested:
            axes.plot(x, tested, "C1.--", label="test")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    if final_accuracy is not None:
        text = f"test, final weights: {final_accuracy:.4f}"
        bottom.plot(x[-1:], [final_accuracy], "C3*", markersize=9, label=text)
    top.set_ylim(bottom=0)
    bottom.set_xlabel("epoch")
    bottom.xaxis.get_major_locator().set_params(integer=True)
    for axes in top, bottom:
        axes.legend(fontsize=8)
    return _svg(figure)


def confusion_matrix(counts: npt.NDArray[np.integer[Any]], class_names: tuple[str, ...]) -> bytes:
    """Plot a confusion matrix: how often each row's class was predicted as each column's class.

    Arguments:
        counts: integers of shape (classes, classes); rows are the true classes.
        class_names: one for each class. Names and counts are drawn only for up to 40 classes.
    """
    classes, longest = len(counts), max(map(len, class_names))
    readable = classes <= MOST_NAMED
    side = 0.45 * min(classes, MOST_NAMED)
    beside = 0.09 * longest if readable else 0.5
    figure, axes = _figure(side + beside + 0.6, side + 0.7 * beside + 0.7)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if readable:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                middle = {"ha": "center", "va": "center"}
                axes.text(column, row, f"{count:,}", **middle, color=color, fontsize=7)
        # parse_math: a dollar sign in a name must not start a formula
        slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(classes), class_names, **slanted, parse_math=False)
        axes.set_yticks(range(classes), class_names, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return _svg(figure)


def bars(
    values: dict[str, list[tuple[float, float, float]]], names: tuple[str, ...], label: str
) -> bytes:
    """Plot groups of horizontal bars; a line on each bar shows its lowest and highest value.

    Arguments:
        values: {legend: [(length, lowest, highest) for each group]}.
        names: the groups' names, from top to bottom.
        label: the label of the horizontal axis.
    """
    figure, axes = _figure(5, 0.6 + 0.25 * len(values) * len(names) + 0.5)
    height = 0.8 / len(values)
    for index, (name, lengths) in enumerate(values.items()):
        y = np.arange(len(names)) + height * (index - (len(values) - 1) / 2)
        middle, lowest, highest = np.array(lengths, np.float64).reshape(-1, 3).T
        axes.barh(y, middle, height, label=name)
        axes.hlines(y, lowest, highest, color="black", linewidth=0.8)
    axes.set_yticks(np.arange(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    figure.legend(loc="outside upper center", ncols=2)
    return _svg(figure)


def powers(lines: dict[str, tuple[list[float], list[float]]], x_label: str, y_label: str) -> bytes:
    """Plot lines on log-log axes, where a power law is straight and its slope is the exponent.

    Arguments:
        lines: {name: (x, y)}, both positive. Lines 1 and 2 share a color, as do 3 and 4, and so on;
            the second line of each pair is dashed.
        x_label: the label of the horizontal axis, which has a tick at every x of the first line.
        y_label: the label of the vertical axis.
    """
    figure, axes = _figure(5, 3.5)
    for index, (name, (x, y)) in enumerate(lines.items()):
        style = "--" if index % 2 else "-"
        axes.plot(x, y, style, marker=".", color=f"C{index // 2}", label=name)
    first = next(iter(lines.values()))[0]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(first, [f"{x:g}" for x in first])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)
    return _svg(figure)


def _figure(width: float, height: float, rows: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, sharex=True)


def _svg(figure: Any) -> bytes:
    import matplotlib as mpl

    file = io.BytesIO()
    settings = {"svg.hashsalt": "densenet_multi", "svg.fonttype": "none"}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # text is stored as text and drawn with the viewer's fonts, which may have these glyphs
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
