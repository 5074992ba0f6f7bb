"""Measure how far two results differ, and define how far rounding may make them differ."""

import numpy as np
import numpy.typing as npt

# The largest deviation from the reference that counts as rounding error, even in the deepest
# variants; float16 occurs in ONNX files only. tests/support/tolerances.py is stricter, since its
# networks are small.
TOLERANCES = {"float16": 1e-2, "float32": 1e-5, "float64": 1e-13}


def deviation(actual: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """Return max |actual - expected| / max |expected|; inf if the result is not finite."""
    wanted = np.asarray(expected, np.float64)
    scale = max(float(np.abs(wanted).max()), float(np.finfo(np.float64).tiny))
    value = float(np.abs(np.asarray(actual, np.float64) - wanted).max()) / scale
    return value if np.isfinite(value) else float("inf")
