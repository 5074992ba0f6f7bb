"""``densenet-multi evaluate``: how well trained weights classify test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    NewFile,
    backend_option,
    batch_size_option,
    data_dir_option,
    device_option,
    example,
    format_option,
    weights_argument,
    weights_image_size_option,
)
from .output import errors_as_exit_codes, print_result, say

if TYPE_CHECKING:
    from rich.table import Table


@click.command(epilog=example("densenet-multi evaluate run/final.safetensors --data sample"))
@weights_argument
@backend_option
@click.option(
    "--data",
    default="fashion-mnist",
    show_default=True,
    help="fashion-mnist, sample, folder:PATH, cifar10:PATH, or the PATH of your images.",
)
@data_dir_option
@weights_image_size_option
@batch_size_option
@device_option
@click.option(
    "--split",
    type=click.Choice(["test", "train", "all"]),
    help="Which images.  [default: test; all of a folder that WEIGHTS were not trained on]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Decides which images of a folder are for the test.  [default: as in training]",
)
@click.option(
    "--recalibrate",
    type=click.IntRange(min=0),
    default=0,
    help="Recompute the running statistics, on N batches of 256 training images.",
    metavar="N",
)
@click.option("--bfloat16", is_flag=True, help="Predict in bfloat16, with an optimized model.")
@format_option
@click.option(
    "--output", type=NewFile(".svg"), help="FILE.svg for a picture of the confusion matrix."
)
@errors_as_exit_codes
def evaluate(weights: Path, output_format: str, output: Path | None, **given: Any) -> None:
    """Evaluate WEIGHTS, a portable file, on test images.

    Prints accuracy, loss, accuracy per class and confusions.
    """
    from .._files import replace_file
    from ..tasks import evaluate as evaluation

    result = evaluation.evaluate(weights, **given, say=say)
    if output:
        replace_file(output, picture(result))
    print_result(result, output_format, table)


def table(result: dict[str, Any]) -> Table:
    """A row for each class, and one for all."""
    from rich import box
    from rich.table import Table

    names, confusion = result["class_names"], result["confusion"]
    size = f"{result['image_size']}x{result['image_size']}"
    which = "all images" if result["split"] == "all" else f"{result['split']} images"
    where = (
        f"{which} of {result['data']}, {size}, in {result['backend']}"
        + ", bfloat16" * result["bfloat16"]
    )
    drawn = Table(
        box=box.SIMPLE_HEAD,
        title=f"{result['weights']}\n{where}",
        title_justify="left",
        caption=f"mean cross entropy {result['loss']:.4f}",
        caption_justify="left",
        show_footer=True,
    )
    whole: dict[str, Any] = {"justify": "right", "no_wrap": True}  # a number is never cut off
    drawn.add_column("class", "all", overflow="fold")
    drawn.add_column("images", f"{result['examples']:,}", **whole)
    drawn.add_column("accuracy", f"{result['accuracy']:.4f}", **whole)
    drawn.add_column("most often taken for", overflow="fold")
    drawn.add_column("times", **whole)
    rows = zip(confusion, result["per_class"].items(), confused_with(confusion), strict=True)
    for counts, (name, accuracy), worst in rows:
        drawn.add_row(
            name,
            f"{sum(counts):,}",
            "" if accuracy is None else f"{accuracy:.4f}",
            names[worst[0]] if worst else "",
            f"{worst[1]:,}" if worst else "",
        )
    return drawn


def confused_with(confusion: Sequence[Sequence[int]]) -> list[tuple[int, int] | None]:
    """For each true class, its most frequent wrong prediction and how often; None for never."""
    found: list[tuple[int, int] | None] = []
    for true, counts in enumerate(confusion):
        wrong = [0 if predicted == true else count for predicted, count in enumerate(counts)]
        most = max(wrong)
        found.append((wrong.index(most), most) if most else None)
    return found


def picture(result: dict[str, Any]) -> bytes:
    """The confusion matrix as an SVG."""
    import numpy as np

    from .._figures import confusion_matrix

    return confusion_matrix(np.array(result["confusion"]), tuple(result["class_names"]))
