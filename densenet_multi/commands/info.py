"""``densenet-multi info``: platform and versions for a bug report."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from .. import __version__, backend_names
from .._memory import VARIABLE, obstacle
from ..backends import framework_versions, package_versions
from .options import example, format_option
from .output import errors_as_exit_codes, print_result

if TYPE_CHECKING:
    from rich.table import Table

KEPT = "kept by train and evaluate, in PyTorch"
ALLOCATION = ("MALLOC_", "GLIBC_TUNABLES", VARIABLE)  # these begin names, the others end them
SETTINGS = ("_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_AFFINITY", "XLA_FLAGS", "KERAS_BACKEND")


@click.command(epilog=example("densenet-multi info"))
@format_option
@errors_as_exit_codes
def info(output_format: str) -> None:
    """Print the platform, versions and thread settings for a bug report."""
    import platform

    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    why = obstacle()
    result = {
        "densenet_multi": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "usable_cpus": len(usable),
        "settings": {k: os.environ[k] for k in sorted(os.environ) if _is_setting(k)},
        "freed_memory": f"returned to the system ({why})" if why else KEPT,
        "packages": package_versions(),
        "extras": {name: package_versions(name) for name in ("onnx", "tabular")},
        "backends": {name: framework_versions(name) for name in backend_names()},
    }
    print_result(result, output_format, table)


def _is_setting(name: str) -> bool:
    return name.endswith(SETTINGS) or name.startswith(ALLOCATION)


def table(result: dict[str, Any]) -> Table:
    """Return one line per entry."""
    from rich.table import Table

    drawn = Table.grid(padding=(0, 2))
    for name, value in result.items():
        if isinstance(value, dict):
            entries = [f"{key}: {_versions(entry)}" for key, entry in value.items()]
            drawn.add_row(name, "\n".join(entries) or "none")
        else:
            drawn.add_row(name, str(value))
    return drawn


def _versions(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    if None in entry.values():
        missing = ", ".join(name for name, version in entry.items() if version is None)
        return f"not installed (lacks {missing})"
    return ", ".join(f"{name} {version}" for name, version in entry.items())
