"""The result of ``compare`` as rows of text, for the terminal and for the report."""

from __future__ import annotations

from typing import Any

NO = "NO"  # marks a backend that computes a different function


def table_rows(result: dict[str, Any]) -> list[list[tuple[str, list[str]]]]:
    """Return groups of rows. A row is a label and one string per backend, in the result's order."""
    count = result["batch_size"]
    columns = [_column(report, count) for report in result["backends"].values()]
    groups, at = [], 0
    for labels in _labels(result["tolerance"]):
        numbers = range(at, at := at + len(labels))
        groups.append(
            [
                (label, [texts[i] for texts in columns])
                for label, i in zip(labels, numbers, strict=True)
            ]
        )
    return groups


def _labels(tolerance: float) -> list[tuple[str, ...]]:
    """Return the row labels, in groups."""
    same = f"same function (to {tolerance:.0e})"
    return [
        ("framework", "version"),
        ("output shape", "trainable parameters", "running statistics"),
        ("deviation from reference", same, "same predicted class"),
        ("first call", "later calls", "images per second", "peak memory"),
        ("lines of model.py",),
    ]


def _column(report: dict[str, Any], count: int) -> list[str]:
    if report["status"] != "ok":
        return [report["status"], *[""] * 12]
    agreeing = report["agreeing"]
    return [
        report["framework"],
        next(iter(report["versions"].values()), "") or "",
        str(tuple(report["output_shape"])),
        f"{report['trainable']:,}",
        f"{report['statistics']:,}",
        deviation_text(report["max_deviation"]),
        "yes" if report["same"] else NO,
        "" if agreeing is None else f"{agreeing} of {count}",
        f"{report['first_call_seconds']:.2f} s",
        f"{report['later_call_seconds']:.2f} s",
        f"{report['images_per_second']:,.0f}",
        f"{report['peak_memory_bytes'] / 2**20:,.0f} MiB",
        str(report["model_lines"]),
    ]


def deviation_text(value: float | None) -> str:
    """Return a deviation with two digits; None means that the result is not finite."""
    return "not finite" if value is None else f"{value:.1e}"
