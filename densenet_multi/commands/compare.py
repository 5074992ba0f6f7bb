"""``densenet-multi compare``: all backends on the same weights and images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import VARIANTS, backend_names, get_spec
from ..variants import default_image_size
from .flags import typed_command
from .options import (
    AT_LEAST_0,
    AT_LEAST_1,
    EXISTING_FILE,
    VARIANT,
    backends_option,
    example,
    format_option,
    image_size_option,
    output_option,
    requested_backends,
)
from .output import (
    errors_as_exit_codes,
    exit_code,
    print_failures,
    print_result,
    progress_bar,
    spoken,
)

if TYPE_CHECKING:
    from rich.console import Group

PAGES = (".html", ".htm")


@click.command(epilog=example("densenet-multi compare --backends torch,flax"))
@click.option("--variant", type=VARIANT, help=f"One of: {', '.join(VARIANTS)}.  [default: d2l]")
@backends_option
@click.option(
    "--batch-size", type=AT_LEAST_1, default=64, show_default=True, help="Number of images."
)
@image_size_option
@click.option("--seed", type=AT_LEAST_0, help="Seed of initial weights.  [default: 0]")
@click.option(
    "--weights",
    type=EXISTING_FILE,
    help="Portable file (.safetensors) with the network and its weights, instead of --variant.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Precision of weights and images.",
)
@format_option
@output_option
@errors_as_exit_codes
def compare(  # noqa: PLR0917  # click passes options by name
    variant: str | None,
    backends: str | None,
    batch_size: int,
    image_size: int | None,
    seed: int | None,
    weights: Path | None,
    dtype: str,
    output_format: str,
    output: Path | None,
) -> int:
    """Run one network in each backend; compare outputs, speed and memory.

    Each backend runs in its own process, on the same weights and the same Fashion-MNIST images. Its
    outputs are compared with those of the reference, which computes with NumPy in float64. A
    variant is built with 1 input channel and 10 classes.

    --output report.html writes a page to read offline or to mail: the table, the deviation after
    each stage, speed and memory, versions, and the code of the backends side by side.
    """
    from .._files import replace_file
    from ..comparison.compare import compare as compare_backends
    from ..comparison.compare import progress_steps
    from ..formats.portable import load_checkpoint
    from ..weights import init_weights

    requested = requested_backends(backends)
    is_page = output is not None and output.suffix.lower() in PAGES
    if is_page and output_format == "json":
        raise click.UsageError(
            f"--output: expected a name that does not end in {' or '.join(PAGES)} with --format "
            f"json, found {output}; for a page, omit --format json"
        )
    if weights:
        if variant or seed is not None:
            raise click.UsageError("--weights determines the network: omit --variant and --seed")
        checkpoint = load_checkpoint(weights)
        spec, values = checkpoint.spec, checkpoint.weights
    else:
        variant, seed = variant or "d2l", seed or 0
        spec = get_spec(variant, in_channels=1, num_classes=10)
        values = init_weights(spec, seed)
    chosen = requested or backend_names()
    with progress_bar(progress_steps(chosen, batch_size)) as step:
        result = compare_backends(
            spec,
            values,
            backends=chosen,
            image_size=image_size if image_size is not None else default_image_size(spec),
            batch_size=batch_size,
            dtype=dtype,
            step=step,
        )
    result = {"weights": str(weights) if weights else f"{variant}, seed {seed}", **result}
    if output is not None and is_page:
        replace_file(output, _page(result).encode())
    else:
        print_result(result, output_format, table, output)
    print_failures(result)
    return exit_code(result, requested)


def _page(result: dict[str, Any]) -> str:
    """Return the result as an HTML page."""
    from .. import __version__
    from ..comparison.report.page import report_page

    reports = {
        name: {**report, "error": "".join(spoken([report["error"]]))}
        if "error" in report
        else report
        for name, report in result["backends"].items()
    }
    return report_page(
        {**result, "backends": reports},
        command=typed_command(click.get_current_context()),
        version=__version__,
    )


def table(result: dict[str, Any]) -> Group:
    """Return a column per backend and a row per property."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    from ..comparison.compare_rows import table_rows

    size, count, reports = result["image_size"], result["batch_size"], result["backends"]
    gray = ", gray repeated over the channels" if result["gray_repeated_over_channels"] else ""
    title = (
        f"{count} {result['images']}, {size}x{size}{gray}, {result['dtype']};\n"
        "reference: NumPy, float64"
    )
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    drawn.add_column("", no_wrap=True)
    for name in reports:
        drawn.add_column(name, justify="right", no_wrap=True)
    for group in table_rows(result):
        for label, texts in group:
            drawn.add_row(label, *texts)
        drawn.add_section()
    return Group(title, drawn)
