"""The progress bar of everything that takes long: on stderr, on a terminal only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


def progress(*columns: ProgressColumn) -> Progress:
    """A bar with these columns (none: rich's own), which leaves nothing behind when it ends."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
