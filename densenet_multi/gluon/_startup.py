"""Import MXNet 1.9.1 with the NumPy attribute that it needs and a suitable number of threads."""

import os
import warnings
from pathlib import Path

import numpy as np

# MXNet 1.9.1 reads numpy.bool, on import and later; NumPy 1.24 removed it. Nothing else in this
# package relies on it. https://github.com/apache/mxnet/issues/21165
if "bool" not in np.__dict__:
    np.__dict__["bool"] = np.bool_

# MXNet uses half of the CPUs, assuming that every two share a core; if none do, use all CPUs
smt = Path("/sys/devices/system/cpu/smt/active")
if smt.exists() and smt.read_text(encoding="ascii").strip() == "0":
    os.environ.setdefault("MXNET_OMP_MAX_THREADS", str(os.cpu_count()))
# Do not let MXNet copy large arrays with extra OpenMP threads: with more threads than CPUs, threads
# sleep whenever they wait, and each sleep takes as long as an operation on one image
os.environ.setdefault("MXNET_CPU_PARALLEL_SIZE", str(2**31 - 1))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MXNet uses deprecated names of NumPy
    import mxnet  # noqa: F401
