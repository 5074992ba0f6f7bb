"""The type of a path that is typed and must exist; a link to nothing is called one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


class ExistingPath(click.Path):
    """A file or folder that exists.

    Arguments:
        dir_okay: whether it may be a folder.
        kwargs: as of ``click.Path``.
    """

    def __init__(self, *, dir_okay: bool = True, **kwargs: Any) -> None:
        super().__init__(exists=True, dir_okay=dir_okay, path_type=Path, **kwargs)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A ``Path``."""
        if os.path.islink(value) and not os.path.exists(value):  # noqa: PTH110, PTH114  # no errors
            self.fail(f"{value} is a broken link, to {Path(value).readlink()}", param, ctx)
        return super().convert(value, param, ctx)
