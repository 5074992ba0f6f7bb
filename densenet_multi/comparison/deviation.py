"""Measure how far two results differ; tolerances for results of the same function."""

import numpy as np
import numpy.typing as npt

# The largest deviation from the reference that counts as the same function: rounding error, with
# room for the deepest variants. tests/support/tolerances.py is stricter, for its small networks.
TOLERANCES = {"float32": 1e-5, "float64": 1e-13}


def deviation(actual: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """The largest absolute difference over the largest absolute expected value; inf for NaN."""
    wanted = np.asarray(expected, np.float64)
    scale = max(float(np.abs(wanted).max()), float(np.finfo(np.float64).tiny))
    value = float(np.abs(np.asarray(actual, np.float64) - wanted).max()) / scale
    return value if np.isfinite(value) else float("inf")
