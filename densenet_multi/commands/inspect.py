"""``densenet-multi inspect``: what a checkpoint is."""

from __future__ import annotations

from pathlib import Path

import click

from .options import format_option
from .output import errors_as_exit_codes, facts, print_result


@click.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--from", "file_format", help="Its format.  [default: detected from its content]")
@format_option
@errors_as_exit_codes
def inspect(file: Path, file_format: str | None, output_format: str) -> None:
    """Print what the checkpoint FILE is: format, variant, counts, usage, anything unusual.

    Formats: portable, torchvision (also timm), keras, kerashub, gluon (the MXNet zoo), nnx.
    """
    from ..tasks import convert as conversion

    print_result(conversion.inspect(file, file_format), output_format, facts)
