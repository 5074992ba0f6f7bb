"""TODO"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def exit_code(result: dict[str, Any], asked: list[str]) -> int:
    """0: every backend that ran is the same function; 1: one differs or failed; 3: one that was
    asked for, or every one, is not installed."""
    reports = result["backends"]
    if any(r["status"] == "failed" or not r.get("same", True) for r in reports.values()):
        return 1
    missing = {name for name, r in reports.items() if r["status"] == "not installed"}
    return 3 if missing & set(asked) or missing == reports.keys() else 0


def table(result: dict[str, Any]) -> Table:
    """The result as a table for a terminal."""
    from rich import box
    from rich.table import Table

    size, count = result["image_size"], result["batch_size"]
    gray = ", gray repeated over the channels" if result["gray_repeated_over_channels"] else ""
    drawn = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        title=f"{count} {result['images']}, {size}x{size}{gray}, {result['dtype']}",
        caption="deviation: largest difference from the float64 NumPy reference, over its largest "
        f"output; the same up to {result['tolerance']:.0e}. agreeing: images with the same largest "
        "logit. Calls take the whole batch. memory: the peak of the process.",
        title_justify="left",
        caption_justify="left",
    )
    for heading in (
        "backend",
        "output\ntrainable\n+statistics",
        "deviation\nverdict\nagreeing",
    ):
        drawn.add_column(heading, no_wrap=True)
    for heading in ("first call\nlater call", "images/s\nmemory", "model.py"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for name, report in result["backends"].items():
        drawn.add_row(*_row(name, report, count), end_section=True)
    return drawn


def _row(name: str, report: dict[str, Any], count: int) -> list[str]:
    if report["status"] != "ok":
        return [f"{name}\n{report['status']}"]
    version = next(iter(report["versions"].values()), "")
    measured = "not finite" if report["max_deviation"] is None else f"{report['max_deviation']:.1e}"
    verdict = "same" if report["same"] else "DIFFERS"
    agreeing = "" if report["agreeing"] is None else f"{report['agreeing']} of {count}"
    return [
        f"{name}\n{report['framework']} {version}",
        f"{tuple(report['output_shape'])}\n{report['trainable']:,}\n+{report['statistics']:,}",
        f"{measured}\n{verdict}\n{agreeing}",
        f"{report['first_call_seconds']:.2f} s\n{report['later_call_seconds']:.2f} s",
        f"{report['images_per_second']:.0f}\n{report['peak_memory_bytes'] / 2**20:.0f} MiB",
        f"{report['model_lines']} lines",
    ]
