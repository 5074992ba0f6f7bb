"""A child process of ``compare``: measure one backend on prepared weights and images.

``python -m densenet_multi.comparison.compare_child SETTINGS`` reads ``weights.safetensors``,
``images.npy``, ``expected.npy`` (the reference's float64 output) and ``stages.npz`` (its feature
maps after each stage, of the first images). The settings name the folder of these files and the
backend.
"""

import sys
import time
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends import Backend, load_backend
from ..formats.portable import load_checkpoint
from .child_process import run_child
from .deviation import TOLERANCES, deviation
from .machine import peak_memory
from .suspects import suspect_in_evaluation

REPEATS = 5
ENOUGH_SECONDS = 10.0


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the report on ``settings["backend"]``, using the files in ``settings["folder"]``."""
    return measure_backend(load_backend(settings["backend"]), Path(settings["folder"]))


def measure_backend(backend: Backend, folder: Path) -> dict[str, Any]:
    """Return the report on a loaded backend.

    Times are in seconds per batch; ``peak_memory_bytes`` is the entire process's peak during
    ``predict``. ``stages`` maps each stage of ``manifest.shape_trace`` to the deviation of its
    feature map. A deviation is None if the result is not finite or its shape is wrong. ``suspect``
    names the convention that a backend breaks if it is not the same.
    """
    checkpoint = load_checkpoint(folder / "weights.safetensors")
    spec, weights = checkpoint.spec, checkpoint.weights
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
    measured = _deviation(logits, expected)
    same_class = (logits.argmax(axis=1) == expected.argmax(axis=1)).sum()
    counts = backend.count_parameters(model)
    measured_bytes = peak_memory()
    same = measured <= TOLERANCES[dtype]
    return {
        "framework": backend.FRAMEWORK,
        "output_shape": list(logits.shape),
        "trainable": counts.trainable,
        "statistics": counts.statistics,
        "max_deviation": _finite(measured),
        "same": same,
        "suspect": None if same else suspect_in_evaluation(backend, spec, weights, dtype),
        "agreeing": int(same_class) if spec.classifier else None,
        "first_call_seconds": first,
        "later_call_seconds": median(later),
        "images_per_second": len(images) / median(later),
        "peak_memory_bytes": measured_bytes,
        "model_lines": code_lines(sys.modules[backend.DenseNet.__module__]),
        "stages": stage_deviations(backend, model, images, folder / "stages.npz"),
    }


def stage_deviations(
    backend: Backend, model: Any, images: npt.NDArray[Any], path: Path
) -> dict[str, float | None]:
    """Return the deviation after each stage from the reference's feature maps in ``path``."""
    with np.load(path) as archive:
        expected = dict(archive)
    count = len(next(iter(expected.values())))
    actual = backend.features(model, images[:count])
    return {stage: _finite(_deviation(actual[stage], map_)) for stage, map_ in expected.items()}


def _deviation(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    return deviation(actual, expected) if actual.shape == expected.shape else float("inf")


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None  # JSON has no infinity


def code_lines(module: ModuleType) -> int:
    """Count the lines in a module's file that are neither blank nor comments."""
    lines = Path(str(module.__file__)).read_text(encoding="utf-8").splitlines()
    return sum(1 for line in lines if line.strip() and not line.lstrip().startswith("#"))


if __name__ == "__main__":
    run_child(measure)
