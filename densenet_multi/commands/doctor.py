"""``densenet-multi doctor``: name the convention that a port breaks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    AT_LEAST_1,
    EXISTING_FILE,
    ExistingPath,
    example,
    format_option,
    prefix_option,
    variant_option,
)
from .output import errors_as_exit_codes, print_result

if TYPE_CHECKING:
    from rich.console import Group


@click.command(epilog=example("densenet-multi doctor net.safetensors --model port.py:model"))
@click.argument("weights", type=ExistingPath())
@click.option(
    "--model",
    metavar="MODULE:CALLABLE",
    help="The port: a function from NumPy images to logits, such as port.py:model.",
)
@click.option(
    "--outputs",
    type=EXISTING_FILE,
    help="Instead: a file of numpy.savez with inputs, logits and possibly maps of stages.",
)
@click.option(
    "--step",
    metavar="MODULE:CALLABLE",
    help="Instead: a training step from WEIGHTS, such as port.py:step.",
)
@click.option(
    "--after",
    type=ExistingPath(),
    help="Checkpoint after a training step on the inputs and labels in --outputs.",
)
@click.option("--learning-rate", type=float, help="Of the training step.")
@click.option(
    "--weight-decay", type=float, default=0.0, show_default=True, help="Of the training step."
)
@click.option(
    "--decayed",
    default="all",
    show_default=True,
    metavar="all|kernels|without-biases|without-norms|none",
    help="Weights that the training step should decay.",
)
@variant_option
@prefix_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Type of the images for --model.",
)
@click.option(
    "--most",
    type=AT_LEAST_1,
    default=3,
    show_default=True,
    help="Conventions broken at once to look for.",
)
@format_option
@errors_as_exit_codes
def doctor(weights: Path, output_format: str, **given: Any) -> int:
    """Say which convention a port of WEIGHTS breaks, where, and what to write instead.

    WEIGHTS is a checkpoint of any format that convert reads. The port is asked for the logits of a
    few images, normalized as the weights expect, in NCHW or NHWC; the exit code is 0 if they are
    the same up to rounding, and 1 if not. --step and --after compare a training step instead: the
    loss, the running statistics and the weights after it.
    """
    from .._progress import progress
    from ..tasks.doctor import doctor as examined

    with progress() as bar:
        task = bar.add_task("asking the port", total=None)
        found = examined(weights, **given, advance=lambda text: bar.update(task, description=text))
    print_result(found, output_format, blocks)
    return 0 if found["same"] else 1


def blocks(found: dict[str, Any]) -> Group:
    """Return the deviation, a block per finding, and what was asked."""
    from rich.console import Group
    from rich.padding import Padding

    drawn: list[Any] = [_summary(found)]
    for each in found["findings"]:
        lines = [each["text"], _change(each, len(found["findings"]))]
        lines += [f"or: {text}" for text in each["or_else"]]
        if each["or_else"]:
            lines[-1] += " (what was asked cannot tell them apart)"
        lines += [f"{name}: {text}" if name else text for name, text in each["remedy"].items()]
        heading = f"{each['stage']}: {each['convention']}"
        drawn += ["", heading, Padding("\n".join(lines), (0, 0, 0, 2))]
    if found["unexplained"]:
        drawn += ["", found["unexplained"]]
    drawn += ["", f"called with: {'; '.join(found['asked'])}"]
    drawn += [f"not visible: {note}" for note in found["notes"]]
    return Group(*drawn)


def _summary(found: dict[str, Any]) -> str:
    size = found["deviation"]
    how_much = "not finite" if size is None else f"{size:.1e} of {found['unit']}"
    verdict = "the same up to rounding" if found["same"] else "not the same"
    if not found["same"] and size is not None and size <= found["tolerance"]:
        verdict = "the logits are the same up to rounding, a map is not"
    return f"{verdict}: deviation {how_much} (tolerance {found['tolerance']:.0e})"


def _change(each: dict[str, Any], count: int) -> str:
    before, after = (
        "not finite" if each[key] is None else f"{each[key]:.1e}" for key in ("before", "after")
    )
    if each["convention"] == "dropout_active":
        return f"deviation {before} between two equal calls"
    if each["convention"] == "half_precision":
        return f"deviation {before}"
    how = "does the same" if count == 1 else f"makes these {count} mistakes"
    return f"deviation {before} -> {after} if the reference {how}"
