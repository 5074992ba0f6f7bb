"""``densenet-multi draw``: a figure of a network as SVG."""

from __future__ import annotations

from pathlib import Path

import click

from .. import VARIANTS, get_spec
from .._checks import LARGEST_COUNT, bad
from .._files import replace_file
from ..drawing import FIGURES, SIZED
from ..drawing import draw as draw_figure
from .options import (
    AT_LEAST_1,
    VARIANT,
    Integer,
    NewFile,
    example,
    given,
    in_channels_option,
    num_classes_option,
)
from .output import errors_as_exit_codes

EXAMPLE = "densenet-multi draw densenet121 --image-size 224 --output net.svg"


@click.command(epilog=f"Variants: {', '.join(VARIANTS)}.\n\n{example(EXAMPLE)}")
@click.argument("variant", type=VARIANT, default="d2l")
@click.option(
    "--output",
    type=NewFile(".svg", hint="draw writes SVG"),
    help="Write the drawing to FILE.svg instead of stdout.",
)
@click.option(
    "--figure",
    type=click.Choice(list(FIGURES)),
    default="network",
    show_default=True,
    help="What to draw.",
)
@click.option(
    "--block",
    type=AT_LEAST_1,
    help="Dense block to draw, for the figures of a block.  [default: 1]",
)
@click.option(
    "--image-size",
    type=Integer(1, LARGEST_COUNT),
    help="Pixels per side, for network and cost.  [default: 96; CIFAR variants: 32]",
)
@num_classes_option
@in_channels_option
@errors_as_exit_codes
def draw(
    variant: str,
    *,
    output: Path | None,
    figure: str,
    block: int | None,
    image_size: int | None,
    num_classes: int | None,
    in_channels: int | None,
) -> None:
    """Draw a network as SVG, from its specification.

    VARIANT is the network (default: d2l). The figures: addition-and-concatenation (ResNet's sums
    beside DenseNet's concatenations), block (a dense block with all its connections; hover over a
    layer to see what it reads), network (all stages to scale), growth (channels over depth), cost
    (parameters, multiply-adds and activations by stage). Only network and cost show the number of
    classes and of image channels.
    """
    numbers = given(num_classes=num_classes, in_channels=in_channels)
    for name, value in numbers.items():
        if figure not in SIZED:
            raise bad(name, value, f"nothing (figure={figure!r} does not show it)")
    spec = get_spec(variant, **numbers)
    drawn = draw_figure(figure, spec, image_size=image_size, block=block)
    if output is None:
        click.echo(drawn, nl=False)
    else:
        replace_file(output, drawn.encode())
