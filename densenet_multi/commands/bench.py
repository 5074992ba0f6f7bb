"""``densenet-multi bench``: how fast the backends are, beside other code, and how much memory they
use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import backend_names
from .options import AT_LEAST_1, NewFile, backends_option, format_option, requested_backends
from .output import errors_as_exit_codes, exit_code, print_failures, print_result, progress_bar

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@backends_option
@click.option(
    "--work",
    type=click.Choice(["training", "inference", "memory"]),
    default="training",
    show_default=True,
)
@click.option("--variant", help="The network.  [default: d2l; densenet121; densenet_bc100_k12]")
@click.option("--depth", type=AT_LEAST_1, help="For memory: L of a DenseNet-BC, k = 12.")
@click.option("--image-size", type=AT_LEAST_1, help="Pixels per side.  [default: 96; 224; 32]")
@click.option("--batch-size", type=AT_LEAST_1, help="Images per step.  [default: 64; 8; 64]")
@click.option("--rounds", type=AT_LEAST_1, default=5, show_default=True, help="Turns of each case.")
@click.option("--steps", type=AT_LEAST_1, default=2, show_default=True, help="In each round.")
@click.option("--threads", type=AT_LEAST_1, help="CPUs of each case.  [default: all]")
@click.option(
    "--device",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="Where to compute.",
)
@format_option
@click.option("--output", type=NewFile(".svg"), help="FILE.svg for a picture.")
@errors_as_exit_codes
def bench(
    backends: str | None,
    output_format: str,
    output: Path | None,
    work: str,
    rounds: int,
    **given: Any,
) -> int:
    """Measure how fast each backend trains or predicts.

    It also measures a beginner's code and the framework's own DenseNet; or, for memory, what
    memory-efficient training costs and saves. Each case is a process of its own; they take turns,
    so that background load affects all of them alike. The ratio is what counts.
    """
    from .._files import replace_file
    from ..comparison import bench as benchmark

    requested = requested_backends(backends)
    chosen = requested or backend_names()
    with progress_bar(benchmark.progress_steps(chosen, work, rounds)) as step:
        result = benchmark.bench(backends=chosen, work=work, rounds=rounds, **given, step=step)
    if output:
        replace_file(output, picture(result))
    print_result(result, output_format, table)
    print_failures(result)
    return exit_code(result, requested)


def table(result: dict[str, Any]) -> Table:
    """A row for each case, ratios first."""
    from rich import box
    from rich.table import Table

    memory = result["work"] == "memory"
    last, key = ["of\nproducts"], "share"
    if memory:
        last, key = ["memory", "memory\nratio"], "memory_ratio"
        about = "memory: how much the process (on a GPU, its memory there) has grown since before "
        about += "the first step (ratio: the first case's over this one's)."
    else:
        about = "products: the network's matrix products alone, in NumPy (in bfloat16 or on a "
        about += "GPU, in PyTorch); of products: images per second over theirs."
    size = f"{result['image_size']}x{result['image_size']}"
    drawn = Table(
        box=box.SIMPLE_HEAD,
        title=f"{result['work']}, {_network(result)}, {result['batch_size']} images of {size}, "
        f"float32, {result.get('gpu', str(len(result['cpus'])) + ' CPUs')}",
        caption="ratio: images per second of a backend's first case over this one's, median over "
        f"{result['rounds']} rounds in turn. In brackets, the slowest and the fastest round. The "
        f"first step compiles. {about}",
        title_justify="left",
        caption_justify="left",
    )
    for heading in ("backend", "case", "ratio", "images/s", "first\nstep", *last):
        drawn.add_column(heading, justify="left" if heading in ("backend", "case") else "right")
    for name, report in result["backends"].items():
        cases, failed = report.get("cases", {}), report.get("failed", {})
        if not cases:
            drawn.add_row(name, report["status"], end_section=True)
            continue
        for number, case in enumerate([*cases, *failed]):
            label, end = "" if number else name, number + 1 == len(cases) + len(failed)
            if case in failed:
                drawn.add_row(label, case, "failed", end_section=end)
                continue
            found = cases[case]
            drawn.add_row(
                label,
                case,
                f"{found['ratio']:.2f}" if "ratio" in found else "",
                f"{found['images_per_second']:.0f} ({found['lowest']:.0f}-{found['highest']:.0f})",
                f"{found['first_step_seconds']:.1f} s",
                *([f"{found['grown_bytes'] / 2**20:,.0f} MiB"] if memory else []),
                f"{found[key]:.2f}" if key in found else "",
                end_section=end,
            )
    return drawn


def picture(result: dict[str, Any]) -> bytes:
    """The images per second as an SVG; those of feeding would be off the scale."""
    from .._figures import bars
    from ..comparison.bench_child import CASES

    reports = result["backends"].items()
    ran = {name: report["cases"] for name, report in reports if report.get("cases")}
    nothing = dict.fromkeys(("images_per_second", "lowest", "highest"), float("nan"))
    return bars(
        {
            case: [
                tuple(cases.get(case, nothing)[key] for key in nothing) for cases in ran.values()
            ]
            for case in CASES[result["work"]]
            if case != "feeding" and any(case in cases for cases in ran.values())
        },
        tuple(ran),
        f"{result['work']}, images per second",
    )


def _network(result: dict[str, Any]) -> str:
    return result["variant"] or f"DenseNet-BC, L = {result['depth']}"
