"""Keep the memory of freed arrays in the process, because every training step needs it again.

On a CPU, PyTorch has no caching allocator. glibc returns a large block to the OS when it is freed,
and the OS hands out the next one page by page, each filled with zeros at its first use. A process
that keeps freed blocks does not wait for that, but may hold more memory than it uses, since a block
seldom fits the next array exactly. docs/results/scripts/kept_memory.py measures both, and pages of
2 MiB, another remedy.
"""

from __future__ import annotations

import ctypes
import os
import platform

BACKEND = "torch"  # the only one that gains: the others have allocators that keep memory
VARIABLE = "DENSENET_MULTI_KEEP_MEMORY"  # 0: return freed memory to the system, as glibc does
TUNED = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
MOST = 2**31 - 1


def keep_memory(backend_name: str) -> bool:
    """Let glibc keep freed memory in this process; return whether it will.

    Only for a process that a command of this package owns. Nothing changes for a backend that would
    not gain, or if ``obstacle`` returns a reason.
    """
    if backend_name != BACKEND or obstacle():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # large blocks from the heap, not each from the OS; and the heap's end is never returned
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, MOST))


def obstacle() -> str | None:
    """Return why ``keep_memory`` changes nothing, or None if it does."""
    for name in (VARIABLE, *TUNED):
        if name in os.environ and not (name == VARIABLE and os.environ[name] == "1"):
            return f"{name} is set to {os.environ[name]!r}"
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return f"GLIBC_TUNABLES is set to {os.environ['GLIBC_TUNABLES']!r}"
    if platform.libc_ver()[0] != "glibc":
        return "the system's library is not glibc"
    return None
