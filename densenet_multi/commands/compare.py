"""``densenet-multi compare``: all backends on the same weights and images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import VARIANTS, backend_names, get_spec
from ..variants import default_image_size
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
from .output import errors_as_exit_codes, exit_code, print_failures, print_result, progress_bar

if TYPE_CHECKING:
    from rich.console import Group


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
    """
    from ..comparison.compare import compare as compare_backends
    from ..comparison.compare import progress_steps
    from ..formats.portable import load_weights
    from ..weights import init_weights

    requested = requested_backends(backends)
    if weights:
        if variant or seed is not None:
            raise click.UsageError("--weights determines the network: omit --variant and --seed")
        spec, values = load_weights(weights)
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
    print_result(result, output_format, table, output)
    print_failures(result)
    return exit_code(result, requested)


def table(result: dict[str, Any]) -> Group:
    """Return a column per backend and a row per property."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

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
    values = zip(*(_column(report, count) for report in reports.values()), strict=True)
    for group in _labels(result["tolerance"]):
        for label, texts in zip(group, values, strict=False):
            drawn.add_row(label, *texts)
        drawn.add_section()
    return Group(title, drawn)


def _labels(tolerance: float) -> list[tuple[str, ...]]:
    """The row labels, in groups."""
    same = f"same function (to {tolerance:.0e})"
    return [
        ("", ""),  # framework and version
        ("output shape", "trainable parameters", "running statistics"),
        ("deviation from reference", same, "same predicted class"),
        ("first call", "later calls", "images per second", "peak memory"),
        ("lines of model.py",),
    ]


def _column(report: dict[str, Any], count: int) -> list[str]:
    if report["status"] != "ok":
        return [report["status"], *[""] * 12]
    deviation, agreeing = report["max_deviation"], report["agreeing"]
    return [
        report["framework"],
        next(iter(report["versions"].values()), ""),
        str(tuple(report["output_shape"])),
        f"{report['trainable']:,}",
        f"{report['statistics']:,}",
        "not finite" if deviation is None else f"{deviation:.1e}",
        "yes" if report["same"] else "NO",
        "" if agreeing is None else f"{agreeing} of {count}",
        f"{report['first_call_seconds']:.2f} s",
        f"{report['later_call_seconds']:.2f} s",
        f"{report['images_per_second']:,.0f}",
        f"{report['peak_memory_bytes'] / 2**20:,.0f} MiB",
        str(report["model_lines"]),
    ]
