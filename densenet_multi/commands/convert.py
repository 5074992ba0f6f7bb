"""``densenet-multi convert``: convert a checkpoint to another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    AT_LEAST_0,
    AT_LEAST_1,
    IMAGE_SIZE,
    ExistingPath,
    NewEntry,
    Numbers,
    example,
    format_option,
    prefix_option,
    variant_option,
)
from .output import errors_as_exit_codes, facts, print_result, spoken

if TYPE_CHECKING:
    from rich.table import Table


@click.command(epilog=example("densenet-multi convert run/final.safetensors final.pth --verify"))
@click.argument("source", type=ExistingPath())
@click.argument("dest", type=NewEntry())
@click.option(
    "--from", "source_format", help="Format of SOURCE.  [default: detected from its content]"
)
@click.option(
    "--to", "destination_format", help="Format of DEST.  [default: detected from its name]"
)
@variant_option
@prefix_option
@click.option(
    "--num-classes",
    type=AT_LEAST_0,
    help="Replace the classifier with a new one with this many classes; 0 removes it.",
)
@click.option(
    "--in-channels",
    type=AT_LEAST_1,
    help="Adapt the stem to this many channels; gray images keep their logits.",
)
@click.option(
    "--class-names",
    help="Names of the outputs: a,b,c or a file with one name per line.",
    metavar="FILE|a,b,c",
)
@click.option(
    "--activation",
    help="Activation of the outputs: softmax, sigmoid (independent classes) or none.",
    metavar="none|softmax|sigmoid",
)
@click.option(
    "--mean",
    type=Numbers(),
    help="Pixel mean per channel, such as 0.5,0.5,0.5.",
    metavar="NUMBERS",
)
@click.option(
    "--std",
    type=Numbers(),
    help="Standard deviation per channel; the network reads (pixels - mean) / std.",
    metavar="NUMBERS",
)
@click.option(
    "--value-range",
    type=float,
    nargs=2,
    help="Range of pixel values before --mean and --std are applied, such as 0 1, 0 255 or -1 1.  "
    "[default: from SOURCE, else 0 1]",
    metavar="LOW HIGH",
)
@click.option("--image-size", type=IMAGE_SIZE, help="Pixels per side that the network expects.")
@click.option(
    "--verify",
    is_flag=True,
    help="Compute the logits of a few real images before and after the conversion; write DEST only "
    "if they agree to 1e-5. SOURCE's logits come from the original library, if that is installed.",
)
@click.option(
    "--probabilities",
    is_flag=True,
    help="ONNX: apply the stated activation; the output is probabilities instead of logits.",
)
@click.option(
    "--folded",
    is_flag=True,
    help="ONNX: fold each BatchNorm that follows a convolution into it.",
)
@click.option(
    "--half",
    is_flag=True,
    help="ONNX: store weights and compute in float16 (3 digits); --verify then allows 1e-2.",
)
@format_option
@errors_as_exit_codes
def convert(source: Path, dest: Path, output_format: str, **given: Any) -> None:
    """Convert a checkpoint from one framework's format to another's.

    SOURCE is a checkpoint of torchvision, timm, Keras, the Gluon zoo or Flax, an ONNX file, or a
    portable file (.safetensors); "inspect --help" lists the formats. DEST is written completely or
    not at all. A portable file and an ONNX file also store what the options state about pixels and
    classes.
    """
    from ..tasks import convert as conversion

    if dest.exists() and source.resolve() == dest.resolve():
        raise click.UsageError("SOURCE and DEST are the same file; choose another DEST")
    done = conversion.convert(source, dest, **given)
    print_result({"source": str(source), "dest": str(dest), **done}, output_format, table)


def table(result: dict[str, Any]) -> Table:
    """Return one line per value, without the paths that were typed."""
    told = {name: value for name, value in result.items() if name not in ("source", "dest")}
    if told.get("verified") is False:
        told["verified"] = "no: only models of this package were compared"
    return facts(told | {"notes": spoken(told["notes"])})
