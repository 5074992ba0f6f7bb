"""Import a framework or library that may not be installed, with an error that helps.

This module uses only the standard library, because ``formats`` and ``backends`` depend on it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class BackendNotInstalledError(ImportError):
    """A framework or library is not installed; the message has the command that installs it."""


class BackendError(ValueError):
    """A backend's framework is configured in a way that this package cannot use."""


BROUGHT_BY = {"distutils": "setuptools"}  # module -> its distribution since Python 3.12


@contextmanager
def framework(
    name: str,
    *packages: str,
    note: str = "",
    last_python: tuple[int, int] | None = None,
    user: str = "",
) -> Iterator[None]:
    """Wrap a backend's imports: if the framework is missing, the error states how to install it.

    Raises ``BackendNotInstalledError`` if one of the packages is missing. Any other failed import
    raises its own error, because the framework is installed but broken.

    Arguments:
        name: the name of the extra that installs the packages.
        packages: the modules whose absence means that the framework is not installed.
        note: appended to the message.
        last_python: the newest Python that the framework supports; None if there is no limit.
        user: what needs the packages; by default the backend of the extra's name.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in packages:  # installed but broken: its own error is clearer
            raise
        if last_python is not None and sys.version_info[:2] > last_python:
            text = _too_new(name, packages[0], last_python)
        else:
            text = _needs(user or f"backend {name!r}", str(error.name), name, note)
        raise BackendNotInstalledError(text, name=error.name) from error


def not_installed(name: str, package: str, user: str) -> BackendNotInstalledError:
    """Return the error for a package of the extra ``name`` that ``user`` cannot do without."""
    return BackendNotInstalledError(_needs(user, package, name), name=package)


def _needs(user: str, package: str, extra: str, note: str = "") -> str:
    source = f" of {BROUGHT_BY[package]}" if package in BROUGHT_BY else ""
    return (
        f"{user} needs {package!r}{source}, which is not installed; in a clone of densenet_multi, "
        f"install it with: pip install '.[{extra}]'{note}"
    )


def _too_new(name: str, package: str, last_python: tuple[int, int]) -> str:
    last, this = ("{}.{}".format(*version) for version in (last_python, sys.version_info))
    return (
        f"backend {name!r} needs Python {last} or earlier, because {package!r} does not support "
        f"Python {this}; in a clone of densenet_multi, type: python{last} -m venv "
        f".venv-{name} && .venv-{name}/bin/pip install '.[{name}]'"
    )
