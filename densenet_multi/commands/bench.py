"""TODO"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def table(result: dict[str, Any]) -> Table:
    """The result as a table for a terminal, ratios first."""
    from rich import box
    from rich.table import Table

    memory = result["work"] == "memory"
    last, key = ["of products"], "share"
    if memory:
        last, key = ["memory", "memory ratio"], "memory_ratio"
        about = "memory: how much the process (on a GPU, what it holds there) grew since before "
        about += "it (ratio: the first case's over this one's)."
    else:
        about = "products: the network's matrix products alone, in NumPy (in bfloat16 or on a "
        about += "GPU, in PyTorch); of products: images per second over theirs."
    size = f"{result['image_size']}x{result['image_size']}"
    drawn = Table(
        box=box.SIMPLE_HEAD,
        title=f"{result['work']}, {name_of(result)}, {result['batch_size']} images of {size}, "
        f"float32, {result.get('gpu', str(len(result['cpus'])) + ' CPUs')}",
        caption="ratio: images per second of a backend's first case over this one's, median over "
        f"{result['rounds']} rounds in turn. In brackets, the slowest and the fastest round. The "
        f"first step compiles. {about}",
        title_justify="left",
        caption_justify="left",
    )
    for heading in ("backend", "case", "ratio", "images/s", "first step", *last):
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


def name_of(result: dict[str, Any]) -> str:
    """The network that was measured, in words."""
    return result["variant"] or f"DenseNet-BC, L = {result['depth']}"


def picture(result: dict[str, Any]) -> bytes:
    """The images per second of what ``bench`` returns, as SVG; feeding would be off the scale."""
    from .._figures import bars
    from ..comparison.bench_case import CASES

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
