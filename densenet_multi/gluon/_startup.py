"""Import MXNet 1.9.1 with what it needs of NumPy, and with threads that suit one computer."""

import os
import warnings
from pathlib import Path

import numpy as np

# MXNet 1.9.1 reads numpy.bool, now and whenever it runs; NumPy 1.24 removed it. Nothing else
# in this package relies on it. https://github.com/apache/mxnet/issues/21165
if "bool" not in np.__dict__:
    np.__dict__["bool"] = np.bool_

# MXNet uses every other CPU, assuming that two CPUs share a core
smt = Path("/sys/devices/system/cpu/smt/active")
if smt.exists() and smt.read_text(encoding="ascii").strip() == "0":
    os.environ.setdefault("MXNET_OMP_MAX_THREADS", str(os.cpu_count()))
# and copies large arrays with OpenMP threads besides those that compute; together more than CPUs,
# they all sleep whenever they wait, which takes as long as an operation on one image
os.environ.setdefault("MXNET_CPU_PARALLEL_SIZE", str(2**31 - 1))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports through deprecated names of NumPy
    import mxnet  # noqa: F401
