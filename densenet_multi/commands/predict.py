"""``densenet-multi predict``: classify images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    AT_LEAST_1,
    EXISTING_FILE,
    NewFile,
    backend_option,
    batch_size_option,
    device_option,
    example,
    format_option,
    weights_argument,
    weights_image_size_option,
)
from .output import errors_as_exit_codes, print_result, say

if TYPE_CHECKING:
    from rich.console import Group


@click.command(epilog=example("densenet-multi predict run/final.safetensors photo.jpg"))
@weights_argument
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=EXISTING_FILE)
@backend_option
@click.option(
    "--top",
    type=AT_LEAST_1,
    help="Classes to print per image.  [default: 5; all, if each has its own sigmoid]",
)
@click.option(
    "--heatmap",
    type=NewFile(".png"),
    help="Also draw where the network sees the first class of the only IMAGE: FILE.png.",
)
@click.option("--class", "class_name", help="Class of the heatmap: its name, or its number.")
@weights_image_size_option
@batch_size_option
@device_option
@format_option
@errors_as_exit_codes
def predict(weights: Path, images: tuple[Path, ...], output_format: str, **given: Any) -> None:
    """Classify each IMAGE with WEIGHTS and print the most probable classes.

    WEIGHTS is a portable file (.safetensors), as train and convert write it, or an ONNX file
    (.onnx), which ONNX Runtime runs. Each IMAGE is a PNG, JPEG, WebP, BMP, TIFF or GIF file of any
    size and color mode. It is resized to a square, not cropped.
    """
    from ..tasks import predict as prediction

    found = prediction.predict(weights, images, **given, say=say)
    print_result(found, output_format, blocks)


def blocks(found: list[dict[str, Any]]) -> Group:
    """Return one block per image: its name, then a line per class."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table

    drawn: list[Any] = []
    for entry in found:
        classes = Table.grid(padding=(0, 2))
        classes.add_column(justify="right")
        if entry["activation"] == "none":
            classes.add_row("output", "(no probability)")
        for row in entry["top"]:
            classes.add_row(_number(row, entry["activation"]), row["class"])
        size = f"  resized to {entry['image_size']}x{entry['image_size']}"
        drawn += [entry["image"], size, Padding(classes, (0, 0, 0, 2)), ""]
        if "heatmap" in entry:
            drawn += [*_explained(entry["heatmap"]), ""]
    return Group(*drawn[:-1])


def _explained(heatmap: dict[str, Any]) -> tuple[str, str, str]:
    """Describe a heatmap in three lines: its file, what its colors mean, and the sum."""
    places = [value for row in heatmap["map"] for value in row]
    bias, mean = heatmap["bias"], sum(places) / len(places)
    return (
        heatmap["file"],
        f"  adds to {heatmap['class']}: {min(places):.2f} (dark) to {max(places):.2f} (bright)",
        f"  mean {mean:.2f} + bias {bias:.2f} = output {mean + bias:.2f}",
    )


def _number(row: dict[str, Any], activation: str) -> str:
    """Format with 4 decimals; never round a sigmoid's probability to 0 or 1."""
    if activation == "none":
        return f"{row['output']:.4f}"
    probability = row["probability"]
    if activation == "sigmoid" and probability < 0.0001:
        return "< 0.0001"
    if activation == "sigmoid" and probability > 0.9999:
        return "> 0.9999"
    return f"{probability:.4f}"
