"""``densenet-multi inspect``: describe a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._checks import listed
from .options import ExistingPath, example, format_option, prefix_option
from .output import errors_as_exit_codes, facts, print_result, spoken

if TYPE_CHECKING:
    from rich.table import Table


@click.command(epilog=example("densenet-multi inspect run/final.safetensors"))
@click.argument("file", type=ExistingPath())
@click.option("--from", "file_format", help="Format of FILE.  [default: detected from its content]")
@prefix_option
@format_option
@errors_as_exit_codes
def inspect(file: Path, file_format: str | None, prefix: str | None, output_format: str) -> None:
    """Describe a checkpoint FILE: its format, network and preprocessing.

    Formats: portable, torchvision (also timm), keras, kerashub, gluon (the MXNet zoo), nnx, linen,
    onnx.
    """
    from ..tasks import convert as conversion

    print_result(conversion.inspect(file, file_format, prefix=prefix), output_format, table)


def table(result: dict[str, Any]) -> Table:
    """Return one line per value; long lists, such as class names, are truncated."""
    usage = {
        name: listed(value, most=10) if isinstance(value, (list, tuple)) else value
        for name, value in result["usage"].items()
        if name != "assumed" and value is not None  # "assumed" has its own line
    }
    return facts({**result, "usage": usage, "notes": spoken(result["notes"])})
