"""Let glibc keep the memory of freed arrays, because a training step soon needs it again.

glibc returns a large block to the OS when it is freed, and requests it again for the next array,
page by page. A training step frees and allocates the same large arrays as the step before it.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

NEVER_RETURN = {
    -1: -1,
    -4: 0,
}  # of malloc.h: no M_TRIM_THRESHOLD; M_MMAP_MAX of 0, no mapped blocks
TUNABLES = "GLIBC_TUNABLES"
# MXNet and XLA allocate in threads of their own, whose memory these settings leave as it is;
# TensorFlow requests few pages in a step: see docs/results/speed.md
GAINING = ("torch",)


def keep_freed_memory(backend_name: str | None) -> bool:
    """Let this process keep all memory that it frees; return whether it does.

    Only for a process that a command of this package owns: the setting is for all of its threads,
    and stays. Nothing changes for a backend that does not gain (None may be any), or if
    ``obstacle`` returns a reason.
    """
    if backend_name not in (None, *GAINING) or obstacle():
        return False
    set_option = ctypes.CDLL(None).mallopt
    return all(set_option(option, value) == 1 for option, value in NEVER_RETURN.items())


def obstacle() -> str | None:
    """Return why ``keep_freed_memory`` changes nothing in this process, or None if it does."""
    if not _is_glibc():
        return "the C library is not glibc"
    chosen = [name for name in sorted(os.environ) if name.startswith("MALLOC_")]
    if "glibc.malloc." in os.environ.get(TUNABLES, ""):
        chosen.append(TUNABLES)
    return f"set by {', '.join(chosen)}" if chosen else None


def _is_glibc() -> bool:
    with suppress(AttributeError, OSError, ValueError):  # of systems without confstr or this name
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    return False
