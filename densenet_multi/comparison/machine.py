"""Describe the machine that a comparison runs on, and measure this process's memory."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from .._checks import integer

CPUINFO = Path("/proc/cpuinfo")


def cpus(threads: int | None) -> list[int]:
    """Return the first ``threads`` CPUs that this process may use; None is all of them."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    usable = usable or list(range(os.cpu_count() or 1))
    count = len(usable) if threads is None else integer("threads", threads, 1, len(usable))
    return usable[:count]


def processor() -> str:
    """Return the name of the processor."""
    lines = []
    with suppress(OSError):
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def multiplies_bfloat16(cpuinfo: Path = CPUINFO) -> bool:
    """Return whether Linux lists bfloat16 instructions for this processor."""
    flags: set[str] = set()
    with suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.lower().startswith(("flags", "features")):
                flags.update(line.split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def gpu() -> str:
    """Return the names of the NVIDIA GPUs, as nvidia-smi lists them."""
    with suppress(OSError):
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603
        if found.returncode == 0:
            return ", ".join(found.stdout.splitlines())
    return "a GPU"


def peak_memory() -> int:
    """Return the peak memory of this process, in bytes.

    On Linux, ru_maxrss would include the memory that the parent held when it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak_memory() -> None:
    """Reset the peak that ``peak_memory`` returns, if the system supports it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
