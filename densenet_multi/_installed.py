"""Imports of a framework or a library that may not be installed, and the errors about them.

Standard library only: ``formats`` and ``backends`` both stand on this.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class BackendNotInstalledError(ImportError):
    """A backend's framework is not installed; the message has the command that installs it."""


class BackendError(ValueError):
    """A backend's framework is set up in a way that this package cannot use."""


BROUGHT_BY = {"distutils": "setuptools"}  # in the standard library until Python 3.11


@contextmanager
def framework(
    name: str, *packages: str, note: str = "", last_python: tuple[int, int] | None = None
) -> Iterator[None]:
    """Around a backend's imports: an absent framework becomes ``BackendNotInstalledError``.

    Raises ``BackendNotInstalledError`` where one of the packages is absent. Any other failed import
    raises its own error, because the framework is present and broken.

    Arguments:
        name: the backend's word, and the extra that installs the packages.
        packages: the modules whose absence means that the framework is not installed.
        note: the end of the message.
        last_python: the newest Python that the framework runs on; None if none is the last.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in packages:  # present but broken: its own error says more than ours
            raise
        if last_python is not None and sys.version_info[:2] > last_python:
            text = _too_new(name, packages[0], last_python)
        else:
            source = f" of {BROUGHT_BY[error.name]}" if error.name in BROUGHT_BY else ""
            text = (
                f"backend {name!r} needs {error.name!r}{source}, which is not installed; in a "
                f"clone of densenet_multi, install it with: pip install '.[{name}]'{note}"
            )
        raise BackendNotInstalledError(text, name=error.name) from error


def _too_new(name: str, package: str, last_python: tuple[int, int]) -> str:
    last, this = ("{}.{}".format(*version) for version in (last_python, sys.version_info))
    return (
        f"backend {name!r} needs Python {last} or earlier, because {package!r} does not exist "
        f"for Python {this}; in a clone of densenet_multi, type: python{last} -m venv "
        f".venv-{name} && .venv-{name}/bin/pip install '.[{name}]'"
    )
