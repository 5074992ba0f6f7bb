"""``densenet-multi summary``: shapes, parameters, multiply-adds and memory of a network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from .. import VARIANTS, count_parameters, get_spec, profile
from .._checks import LARGEST_COUNT
from ..variants import default_image_size
from .options import (
    Integer,
    example,
    format_option,
    given,
    in_channels_option,
    num_classes_option,
)
from .output import errors_as_exit_codes, print_result

if TYPE_CHECKING:
    from rich.table import Table


EXAMPLE = "densenet-multi summary densenet121 --image-size 224"


@click.command(epilog=f"Variants: {', '.join(VARIANTS)}.\n\n{example(EXAMPLE)}")
@click.argument("variant", default="d2l")
@click.option(
    "--image-size",
    type=Integer(1, LARGEST_COUNT),
    help="Pixels per side.  [default: 96; CIFAR variants: 32]",
)
@num_classes_option
@in_channels_option
@format_option
@errors_as_exit_codes
def summary(
    variant: str,
    image_size: int | None,
    num_classes: int | None,
    in_channels: int | None,
    output_format: str,
) -> None:
    """Print a network stage by stage: shapes, parameters, multiply-adds, memory.

    VARIANT is the network (default: d2l). Counts assume the paper's transition, which convolves
    before it pools; the backends average first. Multiply-adds on zero padding are counted.
    Activations are what training keeps for the backward pass, without recomputation, in float32 per
    image.
    """
    spec = get_spec(variant, **given(num_classes=num_classes, in_channels=in_channels))
    size = image_size if image_size is not None else default_image_size(spec)
    stages = profile(spec, size, size)
    counts = count_parameters(spec)
    result = {
        "variant": variant,
        "config": json.loads(spec.to_json())["config"],
        "image_size": size,
        "stages": [
            {
                "stage": stage.name,
                "shape": stage.shape,
                "trainable": stage.parameters.trainable,
                "statistics": stage.parameters.statistics,
                "multiply_adds": stage.multiply_adds,
                "activation_bytes": stage.activation_bytes(),
            }
            for stage in stages
        ],
        "total": {
            "trainable": counts.trainable,
            "statistics": counts.statistics,
            "multiply_adds": sum(stage.multiply_adds for stage in stages),
            "activation_bytes": sum(stage.activation_bytes() for stage in stages),
        },
    }
    print_result(result, output_format, table)


def table(result: dict[str, Any]) -> Table:
    """Return one row per stage, and the totals."""
    from rich import box
    from rich.table import Table

    title = f"{result['variant']}, {result['image_size']}x{result['image_size']}"
    drawn = Table(box=box.SIMPLE_HEAD, padding=0, title=title, show_footer=True)
    columns = ("trainable", "statistics", "multiply_adds", "activation_bytes")
    headings = ("trainable\nparameters", "running\nstatistics", "multiply-adds", "activations")
    drawn.add_column("stage", "total", no_wrap=True)
    drawn.add_column("output (C, H, W)", no_wrap=True)
    for heading, column in zip(headings, columns, strict=True):
        drawn.add_column(heading, _amount(column, result["total"][column]), justify="right")
    for stage in result["stages"]:
        amounts = (_amount(column, stage[column]) for column in columns)
        drawn.add_row(stage["stage"], str(tuple(stage["shape"])), *amounts)
    return drawn


def _amount(column: str, value: int) -> str:
    return f"{value / 2**20:,.2f} MiB" if column == "activation_bytes" else f"{value:,}"
