"""``densenet-multi convert``: a checkpoint of one format becomes one of another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    AT_LEAST_1,
    VARIANT,
    ExistingPath,
    NewEntry,
    Numbers,
    example,
    format_option,
    prefix_option,
)
from .output import errors_as_exit_codes, facts, print_result, spoken

if TYPE_CHECKING:
    from rich.table import Table


@click.command(epilog=example("densenet-multi convert densenet121.pth net.safetensors --verify"))
@click.argument("source", type=ExistingPath())
@click.argument("dest", type=NewEntry())
@click.option(
    "--from", "source_format", help="Format of SOURCE.  [default: detected from its content]"
)
@click.option(
    "--to", "destination_format", help="Format of DEST.  [default: detected from its name]"
)
@click.option(
    "--variant", type=VARIANT, help="Override the variant detected from names and shapes."
)
@prefix_option
@click.option("--num-classes", type=click.IntRange(min=0), help="A new classifier; 0 for none.")
@click.option(
    "--in-channels", type=AT_LEAST_1, help="Change the stem: gray images keep their answers."
)
@click.option(
    "--class-names",
    help="One for each output: a,b,c or a file with a name in each line.",
    metavar="FILE|a,b,c",
)
@click.option(
    "--activation",
    help="What follows the outputs: softmax, sigmoid (each output is a class of its own) or none.",
    metavar="none|softmax|sigmoid",
)
@click.option("--mean", type=Numbers(), help="Of pixels, as 0.5,0.5,0.5.", metavar="NUMBERS")
@click.option(
    "--std",
    type=Numbers(),
    help="Standard deviation: the network reads (pixels - mean) / std.",
    metavar="NUMBERS",
)
@click.option(
    "--value-range",
    type=float,
    nargs=2,
    help="Of pixels before --mean and --std: 0 1 or 0 255.  [default: as SOURCE states, or 0 1]",
    metavar="LOW HIGH",
)
@click.option("--image-size", type=AT_LEAST_1, help="Pixels per side that it is meant for.")
@click.option("--verify", is_flag=True, help="Run both models on real images before writing DEST.")
@format_option
@errors_as_exit_codes
def convert(source: Path, dest: Path, output_format: str, **given: Any) -> None:
    """Convert a checkpoint: SOURCE in one format, DEST in another.

    SOURCE is a file of torchvision, timm, Keras, the Gluon zoo or Flax, or a portable file; --help
    of inspect lists the formats. DEST is written completely or not at all. A portable file keeps
    what is stated here about the use of the network.
    """
    from ..tasks import convert as conversion

    if dest.exists() and source.resolve() == dest.resolve():
        raise click.UsageError("SOURCE and DEST are the same file")
    done = conversion.convert(source, dest, **given)
    print_result({"source": str(source), "dest": str(dest), **done}, output_format, table)


def table(result: dict[str, Any]) -> Table:
    """A line for each value but those that were typed."""
    told = {name: value for name, value in result.items() if name not in ("source", "dest")}
    return facts(told | {"notes": spoken(told["notes"])})
