"""``densenet-multi convert``: a checkpoint of one format becomes one of another."""

from __future__ import annotations

from pathlib import Path

import click

from .options import NewPath, format_option
from .output import errors_as_exit_codes, facts, print_result


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("dest", type=NewPath())
@click.option(
    "--from", "source_format", help="Format of SOURCE.  [default: detected from its content]"
)
@click.option(
    "--to", "destination_format", help="Format of DEST.  [default: detected from its name]"
)
@click.option("--variant", help="Override the variant detected from names and shapes.")
@click.option("--num-classes", type=click.IntRange(min=0), help="A new classifier; 0 for none.")
@click.option("--verify", is_flag=True, help="Run both models on real images before writing DEST.")
@format_option
@errors_as_exit_codes
def convert(  # noqa: PLR0917  # click passes options by name
    source: Path,
    dest: Path,
    source_format: str | None,
    destination_format: str | None,
    variant: str | None,
    num_classes: int | None,
    verify: bool,
    output_format: str,
) -> None:
    """Convert the checkpoint SOURCE to DEST: torchvision, timm, Keras, the Gluon zoo, Flax NNX, or
    the portable file that all commands here read.

    Known formats: see --help of inspect. DEST is written completely or not at all.
    """
    from ..tasks import convert as conversion

    if dest.exists() and source.resolve() == dest.resolve():
        raise click.UsageError("SOURCE and DEST are the same file")
    done = conversion.convert(
        source,
        dest,
        source_format,
        destination_format,
        variant=variant,
        num_classes=num_classes,
        verify=verify,
    )
    result = {"source": str(source), "dest": str(dest), **done}
    print_result(result, output_format, lambda _: facts(done))
