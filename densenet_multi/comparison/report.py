"""Run one backend on prepared weights and images, and write down what came out.

``python -m densenet_multi.report FOLDER BACKEND`` reads ``weights.safetensors``, ``images.npy`` and
``expected.npy`` (the reference's float64 output) in FOLDER and writes ``BACKEND.json`` there.
compare.py starts one such process per backend.
"""

import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends import Backend
from ..formats.portable import load_weights
from .process import report_of, write_report

# Largest deviation that counts as the same function: rounding, with room for the deepest variants.
# tests/support/tolerances.py asks for more of the small networks there.
TOLERANCES = {"float32": 1e-5, "float64": 1e-13}
REPEATS = 5
ENOUGH_SECONDS = 10.0


def deviation(actual: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """Largest absolute difference over the largest absolute expected value; infinite for NaN."""
    wanted = np.asarray(expected, np.float64)
    scale = max(float(np.abs(wanted).max()), float(np.finfo(np.float64).tiny))
    value = float(np.abs(np.asarray(actual, np.float64) - wanted).max()) / scale
    return value if np.isfinite(value) else float("inf")


def run(name: str, folder: Path) -> dict[str, Any]:
    """One backend's report: ``status`` is "ok", "not installed" or "failed" (with ``error``).

    Times are seconds for the whole batch; ``peak_memory_bytes`` is that of the whole process.
    """
    return report_of(name, lambda backend: _measure(backend, folder))


def _measure(backend: Backend, folder: Path) -> dict[str, Any]:
    spec, weights = load_weights(folder / "weights.safetensors")
    images, expected = np.load(folder / "images.npy"), np.load(folder / "expected.npy")
    dtype = images.dtype.name
    model = backend.build(spec, dtype=dtype)
    backend.import_weights(model, {n: array.astype(dtype) for n, array in weights.items()})
    start = time.perf_counter()
    logits = backend.predict(model, images)
    first = time.perf_counter() - start
    later: list[float] = []
    while len(later) < REPEATS and (not later or sum(later) < ENOUGH_SECONDS):
        start = time.perf_counter()
        backend.predict(model, images)
        later.append(time.perf_counter() - start)
    measured = deviation(logits, expected) if logits.shape == expected.shape else float("inf")
    same_class = (logits.argmax(axis=1) == expected.argmax(axis=1)).sum()
    counts = backend.count_parameters(model)
    return {
        "framework": backend.FRAMEWORK,
        "output_shape": list(logits.shape),
        "trainable": counts.trainable,
        "statistics": counts.statistics,
        "max_deviation": measured if np.isfinite(measured) else None,  # JSON has no infinity
        "same": measured <= TOLERANCES[dtype],
        "agreeing": int(same_class) if spec.classifier else None,
        "first_call_seconds": first,
        "later_call_seconds": median(later),
        "images_per_second": len(images) / median(later),
        "peak_memory_bytes": peak_memory(),
        "model_lines": code_lines(sys.modules[backend.DenseNet.__module__]),
    }


def peak_memory() -> int:
    """Of this process, in bytes.

    Linux's ru_maxrss would include what the parent held when it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak_memory() -> None:
    """From now on, ``peak_memory`` is the peak from now on, where the system can do that."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def code_lines(module: ModuleType) -> int:
    """Lines of a module's file that are neither empty nor comments."""
    lines = Path(str(module.__file__)).read_text(encoding="utf-8").splitlines()
    return sum(1 for line in lines if line.strip() and not line.lstrip().startswith("#"))


if __name__ == "__main__":
    write_report(run)
