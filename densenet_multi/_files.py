"""Files that are whole or absent, and paths as they are typed."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ._checks import bad


def as_path(given: str | os.PathLike[str], name: str = "path") -> Path:
    """The path of an argument. Raises ``ConfigError`` for anything else than a path as text."""
    try:
        found = os.fspath(given)
    except TypeError:
        found = None
    if not isinstance(found, str) or "\0" in found:
        raise bad(name, given, "a path, as a text or a pathlib.Path")
    return Path(given)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` to write to; then it is renamed, if nothing failed.

    Readers see the old file or the new one. A symbolic link stays one, and a device or a pipe is
    written to directly. Raises ``OSError``, with the name that was asked for.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        with target.open("ab"):  # a folder raises an error that names it
            pass
        yield target
        return
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb"):
            pass
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        if error.filename == str(temporary):
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
        raise
    finally:
        with suppress(OSError):  # it may be gone, or never have been
            temporary.unlink()


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path``, as ``replacing`` does. Raises ``OSError``."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def quoted(path: object) -> str:
    """A path as it is typed in a shell, where it may not look like an option."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))
