"""Let PyTorch request memory in pages of 2 MiB, because every training step requests it again.

On a CPU, PyTorch has no caching allocator. glibc returns a large block to the OS when it is freed,
and the OS hands out the next one page by page, each filled with zeros at its first use. With large
pages, there are 512 times fewer. A process could also keep freed blocks (``mallopt``), but these
seldom fit the next arrays exactly, so it would hold more memory than it uses.
docs/results/scripts/large_pages.py measures both.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

VARIABLE = "THP_MEM_ALLOC_ENABLE"  # only PyTorch reads it, once, before its first large array
SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")  # such as "always [madvise] never"


def request_large_pages() -> bool:
    """Let PyTorch use large pages in this process; return whether it will.

    Only for a process that a command of this package owns, and before PyTorch is imported. Nothing
    changes if ``obstacle`` returns a reason, nor in the other frameworks.
    """
    if obstacle():
        return False
    os.environ[VARIABLE] = "1"
    return True


def obstacle() -> str | None:
    """Return why ``request_large_pages`` changes nothing, or None if it does."""
    if VARIABLE in os.environ:
        return f"{VARIABLE} is set to {os.environ[VARIABLE]!r}"
    offered = ""
    with suppress(OSError):  # of other systems
        offered = SWITCH.read_text(encoding="ascii")
    if "[madvise]" in offered:
        return None
    if "[always]" in offered:
        return "the system uses them without a request"
    return f"the system offers none; {SWITCH}: {offered.strip() or 'no such file'}"
