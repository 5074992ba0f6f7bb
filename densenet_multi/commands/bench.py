"""``densenet-multi bench``: the speed and memory of the backends and of other implementations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import backend_names
from .options import (
    AT_LEAST_1,
    IMAGE_SIZE,
    VARIANT,
    NewFile,
    backends_option,
    example,
    format_option,
    requested_backends,
)
from .output import errors_as_exit_codes, exit_code, print_failures, print_result, progress_bar

if TYPE_CHECKING:
    from rich.table import Table


PRODUCTS = {
    "products": "matrix products alone",
    "bfloat16 products": "the same in bfloat16",
}
LABELS = {  # kind of work -> case -> its name; the first is compared with each of the others
    "training": {
        "fit": "fit",
        "bfloat16": "fit in bfloat16",
        "beginner": "a beginner's code",
        "model": "model in a plain loop",
        "framework": "framework's own network",
        "feeding": "preparing images alone",
        **PRODUCTS,
    },
    "inference": {
        "optimized": "optimized",
        "model": "model as built",
        "bfloat16": "optimized, bfloat16",
        "framework": "framework's own network",
        "onnxruntime": "ONNX Runtime",
        "openvino": "OpenVINO",
        "bfloat16 openvino": "OpenVINO, bfloat16",
        **PRODUCTS,
    },
    "memory": {"efficient": "efficient", "max": "efficient, max", "plain": "plain"},
}


@click.command(epilog=example("densenet-multi bench --backends torch --work inference"))
@backends_option
@click.option(
    "--work",
    type=click.Choice(["training", "inference", "memory"]),
    default="training",
    show_default=True,
    help="What to measure.",
)
@click.option(
    "--variant",
    type=VARIANT,
    help="Network.  [default, by --work: d2l; densenet121; densenet_bc100_k12]",
)
@click.option(
    "--depth",
    type=AT_LEAST_1,
    help="With --work memory, instead of --variant: depth L of a DenseNet-BC with k = 12.",
)
@click.option(
    "--image-size", type=IMAGE_SIZE, help="Pixels per side.  [default, by --work: 96; 224; 32]"
)
@click.option(
    "--batch-size", type=AT_LEAST_1, help="Images per step.  [default, by --work: 64; 8; 64]"
)
@click.option("--rounds", type=AT_LEAST_1, default=5, show_default=True, help="Rounds per case.")
@click.option("--steps", type=AT_LEAST_1, default=2, show_default=True, help="Steps per round.")
@click.option("--threads", type=AT_LEAST_1, help="CPUs per case.  [default: all]")
@click.option(
    "--device",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="Device to compute on.",
)
@format_option
@click.option("--output", type=NewFile(".svg"), help="Also draw a bar chart: FILE.svg.")
@errors_as_exit_codes
def bench(
    backends: str | None,
    output_format: str,
    output: Path | None,
    work: str,
    rounds: int,
    **given: Any,
) -> int:
    """Measure the speed or memory of each backend, next to other implementations.

    The others include the framework's own DenseNet and, with --work training, a beginner's code.
    With --work memory, memory-efficient training is compared with plain training instead. Each case
    runs in its own process. The cases take turns, so that background load affects all of them
    alike: trust the ratios.
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
    """Return one row per case: its speed, and how the backend's first case compares with it."""
    from rich import box
    from rich.table import Table

    memory, labels = result["work"] == "memory", LABELS[result["work"]]
    first = next(iter(labels.values()))
    size = f"{result['image_size']}x{result['image_size']}"
    rounds = "1 round" if result["rounds"] == 1 else f"{result['rounds']} rounds"
    drawn = Table(
        box=box.SIMPLE_HEAD,
        title=f"{result['work']}, {_network(result)}, {result['batch_size']} images of {size}, "
        f"float32, {result.get('gpu', str(len(result['cpus'])) + ' CPUs')},\n"
        f"median (slowest-fastest) of {rounds}, all cases in turn",
        title_justify="left",
    )
    drawn.add_column("backend")
    drawn.add_column("case", no_wrap=True)
    for heading in ("images per second", f"{first} is", "memory" if memory else "first step"):
        drawn.add_column(heading, justify="right")
    if memory:
        drawn.add_column(f"{first} needs", justify="right")
    for name, report in result["backends"].items():
        cases, failed = report.get("cases", {}), report.get("failed", {})
        if not cases:
            drawn.add_row(name, report["status"], end_section=True)
        for number, case in enumerate([*cases, *failed]):
            drawn.add_row(
                "" if number else name,
                labels[case],
                *(["failed"] if case in failed else _measured(cases[case], memory=memory)),
                end_section=number + 1 == len(cases) + len(failed),
            )
    return drawn


def _measured(found: dict[str, Any], *, memory: bool) -> list[str]:
    faster = f"{found['ratio']:.2f}x as fast" if "ratio" in found else ""
    less = f"{found['memory_ratio']:.2f}x as much" if "memory_ratio" in found else ""
    return [
        f"{found['images_per_second']:.0f} ({found['lowest']:.0f}-{found['highest']:.0f})",
        faster,
        *(
            [f"{found['grown_bytes'] / 2**20:,.0f} MiB", less]
            if memory
            else [f"{found['first_step_seconds']:.1f} s"]
        ),
    ]


def picture(result: dict[str, Any]) -> bytes:
    """Draw images per second as an SVG, except for feeding, which would be off the scale."""
    from .._figures import bars
    from ..comparison.bench_child import CASES

    reports = result["backends"].items()
    ran = {name: report["cases"] for name, report in reports if report.get("cases")}
    nothing = dict.fromkeys(("images_per_second", "lowest", "highest"), float("nan"))
    return bars(
        {
            LABELS[result["work"]][case]: [
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
