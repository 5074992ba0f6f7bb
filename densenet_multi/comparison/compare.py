"""Run backends on the same weights and images, each in its own process, side by side."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import reference
from .._inputs import ImageError
from ..data import load_sample, to_input
from ..formats.portable import save_weights
from ..spec import DenseNetSpec
from ..weights import Weights
from .process import in_its_own_process
from .report import TOLERANCES

if TYPE_CHECKING:
    from rich.table import Table

CHUNK = 8  # images that go through the reference at once: its float64 maps are large

Step = Callable[[str], None]


def compare(
    spec: DenseNetSpec,
    weights: Weights,
    *,
    backends: list[str],
    image_size: int,
    batch_size: int,
    dtype: str = "float32",
    step: Step = lambda _: None,
) -> dict[str, Any]:
    """Every backend's report on ``batch_size`` real test images of ``image_size`` pixels per side.

    Gray images are repeated over ``in_channels``. ``step`` is called with a line of text before
    each part of the work (``steps`` of them). Returns plain data for JSON; its ``backends`` maps
    names to reports (see report.py). Raises ``ImageSizeError``, ``ImageError``.
    """
    images = _images(spec, image_size, batch_size, dtype)
    chunks = []
    for start in range(0, batch_size, CHUNK):
        step(f"NumPy reference, image {start + 1} of {batch_size}")
        chunks.append(reference.predict(spec, weights, images[start : start + CHUNK]))
    reports = {}
    with tempfile.TemporaryDirectory(prefix="densenet_multi-") as name:
        folder = Path(name)
        save_weights(folder / "weights.safetensors", spec, weights)
        np.save(folder / "images.npy", images)
        np.save(folder / "expected.npy", np.concatenate(chunks))
        for backend in backends:
            step(f"backend {backend}")
            reports[backend] = _in_its_own_process(backend, folder)
    return {
        "config": json.loads(spec.to_json())["config"],
        "images": "Fashion-MNIST test images (the packaged sample)",
        "gray_repeated_over_channels": spec.config.in_channels > 1,
        "image_size": image_size,
        "batch_size": batch_size,
        "dtype": dtype,
        "tolerance": TOLERANCES[dtype],
        "backends": reports,
    }


def steps(backends: list[str], batch_size: int) -> int:
    """How often ``compare`` will call its ``step``."""
    return len(range(0, batch_size, CHUNK)) + len(backends)


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


def _images(spec: DenseNetSpec, image_size: int, batch_size: int, dtype: str) -> Any:
    pixels, _ = load_sample("test")
    if not 1 <= batch_size <= len(pixels):
        raise ImageError(f"batch size: expected 1 to {len(pixels)} images, found {batch_size}")
    images = to_input(pixels[:batch_size], image_size)
    return images.repeat(spec.config.in_channels, axis=1).astype(dtype)


def _in_its_own_process(backend: str, folder: Path) -> dict[str, Any]:
    return in_its_own_process("densenet_multi.comparison.report", backend, folder)
