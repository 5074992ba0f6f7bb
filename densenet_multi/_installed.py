"""Imports of a framework or a library that may not be installed, and the errors about them.

Standard library only: ``formats`` and ``backends`` both stand on this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class BackendNotInstalledError(ImportError):
    """A backend's framework is not installed; the message has the command that installs it."""


class BackendError(ValueError):
    """A backend's framework is set up in a way that this package cannot use."""


@contextmanager
def framework(backend: str, *packages: str, note: str = "") -> Iterator[None]:
    """Around a backend's imports: an absent framework becomes ``BackendNotInstalledError``.

    Raises ``BackendNotInstalledError`` where one of the packages is absent. Any other failed import
    raises its own error, because the framework is present and broken.

    Arguments:
        backend: the extra that installs the packages.
        packages: the modules whose absence means that the framework is not installed.
        note: the end of the message.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in packages:  # present but broken: its own error says more than ours
            raise
        raise BackendNotInstalledError(
            f"backend {backend!r} needs {error.name!r}, which is not installed; in a clone of "
            f"densenet_multi, install it with: pip install '.[{backend}]'{note}",
            name=error.name,
        ) from error
