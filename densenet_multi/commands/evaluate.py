"""``densenet-multi evaluate``: accuracy of trained weights on test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    AT_LEAST_0,
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
    help="fashion-mnist, sample, cifar10:PATH, folder:PATH, or just the PATH of your images.",
)
@data_dir_option
@weights_image_size_option
@batch_size_option
@device_option
@click.option(
    "--split",
    type=click.Choice(["test", "train", "all"]),
    help="Images to use.  [default: test; all, for a folder that WEIGHTS was not trained on]",
)
@click.option(
    "--seed",
    type=AT_LEAST_0,
    help="Seed that selects a folder's test images.  [default: as in training]",
)
@click.option(
    "--recalibrate",
    type=AT_LEAST_0,
    default=0,
    help="First recompute the running statistics on N batches of 256 training images.",
    metavar="N",
)
@click.option("--bfloat16", is_flag=True, help="Predict in bfloat16, with an optimized model.")
@format_option
@click.option("--output", type=NewFile(".svg"), help="Also draw the confusion matrix: FILE.svg.")
@errors_as_exit_codes
def evaluate(weights: Path, output_format: str, output: Path | None, **given: Any) -> None:
    """Measure the accuracy of trained WEIGHTS on test images.

    WEIGHTS is a portable file (.safetensors), as train and convert write it, or an ONNX file
    (.onnx), which ONNX Runtime runs. The table shows accuracy, loss, accuracy per class, and which
    classes are confused most often.
    """
    from .._files import replace_file
    from .._memory import keep_memory
    from ..tasks import evaluate as evaluation

    result = evaluation.evaluate(weights, **given, say=say, on_backend=keep_memory)
    if output:
        replace_file(output, picture(result))
    print_result(result, output_format, table)


def table(result: dict[str, Any]) -> Table:
    """Return one row per class, and one for all classes."""
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
    whole: dict[str, Any] = {"justify": "right", "no_wrap": True}  # never truncate a number
    drawn.add_column("class", "all", overflow="fold")
    drawn.add_column("images", f"{result['examples']:,}", **whole)
    drawn.add_column("accuracy", f"{result['accuracy']:.4f}", **whole)
    drawn.add_column("most often mistaken for", overflow="fold")
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
    """Return each true class's most frequent wrong prediction and its count; None without any."""
    found: list[tuple[int, int] | None] = []
    for true, counts in enumerate(confusion):
        wrong = [0 if predicted == true else count for predicted, count in enumerate(counts)]
        most = max(wrong)
        found.append((wrong.index(most), most) if most else None)
    return found


def picture(result: dict[str, Any]) -> bytes:
    """Draw the confusion matrix as an SVG."""
    import numpy as np

    from .._figures import confusion_matrix

    return confusion_matrix(np.array(result["confusion"]), tuple(result["class_names"]))
