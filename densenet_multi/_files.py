"""Read files with a size limit, write them atomically, and quote paths for a shell."""

from __future__ import annotations

import errno
import os
import secrets
import shlex
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any

from ._checks import bad

AnyPath = str | os.PathLike[str]

A_FILE, A_FOLDER = "a file", "a folder"
NO_FILES = {  # what a path can be other than a regular file
    stat.S_IFDIR: A_FOLDER,
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
TO_READ = os.O_RDONLY | sum(  # do not block on a pipe or acquire a controlling terminal
    getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY")
)
NO_SYNC = (errno.EACCES, errno.EINVAL, errno.ENOTSUP)  # errors of a folder that cannot be synced

# --- Read ---------------------------------------------------------------------------------------


def what_is(path: AnyPath | int) -> str | None:
    """Return what a path or descriptor is, such as "a pipe", or None for a regular file.

    Symbolic links are followed. Raises ``OSError``, also for a broken link or a symlink loop.
    """
    kind = stat.S_IFMT(os.stat(path).st_mode)  # noqa: PTH116  # it may be a string or a descriptor
    return None if kind == stat.S_IFREG else NO_FILES.get(kind, "something else")


def opened(
    path: AnyPath, refusal: Callable[[str, str], Exception], largest: int | None = None
) -> BufferedReader:
    """Open a regular file, or the target of a link, for reading bytes.

    Opening a pipe does not block. The open file is checked, not its path, which could change.

    Raises ``refusal(expected, found)`` unless it is a regular file of at most ``largest`` bytes;
    ``OSError`` if the file does not exist or cannot be opened.
    """
    try:
        descriptor = os.open(path, TO_READ)
    except OSError:
        if found := what_is(path):  # a socket, or a device without permission
            raise refusal(A_FILE, found) from None
        raise
    found, size = what_is(descriptor), os.fstat(descriptor).st_size
    if found is None and (largest is None or size <= largest):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise refusal(A_FILE, found) if found else refusal(f"at most {largest:,} bytes", f"{size:,}")


def open_file(
    path: AnyPath,
    largest: int | None = None,
    error: Callable[[str], Exception] = OSError,
    advice: str = "use another file",
) -> BufferedReader:
    """Open a file as ``opened`` does; raise ``error`` with a message that ends with ``advice``."""

    def refusal(expected: str, found: str) -> Exception:
        return error(f"{os.fspath(path)}: expected {expected}, found {found}; {advice}")

    return opened(path, refusal, largest)


def check_file(path: AnyPath, largest: int | None = None, **words: Any) -> int:
    """Return the size of a file in bytes. Arguments and errors are those of ``open_file``."""
    with open_file(path, largest, **words) as file:
        return size_of(file)


def read_file(
    path: AnyPath,
    largest: int,
    error: Callable[[str], Exception] = OSError,
    advice: str = "use another file",
) -> bytes:
    """Return the content of a file of at most ``largest`` bytes.

    Raises the same errors as ``open_file``.
    """
    with open_file(path, largest, error, advice) as file:
        size = size_of(file)
        content = file.read(size + 1)
        if len(content) > size:  # the file is growing, or reports size 0, as in /proc
            content += file.read(largest + 1 - len(content))
    if len(content) > largest:
        found = f"expected at most {largest:,} bytes, found more"
        raise error(f"{os.fspath(path)}: {found}; {advice}")
    return content


def size_of(file: BufferedReader) -> int:
    """Return the size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


# --- Write --------------------------------------------------------------------------------------


def resolved(path: AnyPath) -> Path:
    """Return the absolute path with all symbolic links resolved; it need not exist.

    Raises ``OSError`` for a symlink loop.
    """
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    return target


def is_special(path: Path) -> bool:
    """Return whether this is a device, pipe or socket: write to it, but never replace it."""
    return path.exists() and what_is(path) not in (None, A_FOLDER)


def open_own(path: Path, error: type[Exception] = OSError) -> BufferedRandom:
    """Open a file that only this package uses, to read and write; create it if missing.

    The file is not truncated. Raises ``error`` for a symbolic link, or anything else that is not a
    regular file; ``OSError`` if the file cannot be opened.
    """
    found = "a symbolic link" if path.is_symlink() else path.exists() and what_is(path)
    if found:
        raise error(f"{path}: expected a file or nothing, found {found}; remove it")
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)  # a link may appear meanwhile
    return open(path, "r+b", opener=lambda name, _: os.open(name, flags, 0o666))


def as_path(given: str | os.PathLike[str], name: str = "path") -> Path:
    """Return an argument as a ``Path``. Raises ``ConfigError`` unless it is a string or a path."""
    try:
        found = os.fspath(given)
    except Exception:  # noqa: BLE001  # the object's own code may raise anything
        found = None
    if not isinstance(found, str) or "\0" in found:
        raise bad(name, given, "a path, as a string or a pathlib.Path")
    return Path(given)


def expanded(path: AnyPath, name: str = "path") -> Path:
    """Replace ``~`` or ``~user`` with the home folder. Raises ``ConfigError``."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no such user, or no home folder
        allowed = "a path whose ~ or ~user has a home folder, or ./~… for a name that starts with ~"
        raise bad(name, os.fspath(path), allowed) from None


@contextmanager
def replacing(path: AnyPath) -> Iterator[Path]:
    """Replace a file atomically: yield a temporary path to write to, then rename it to ``path``.

    Readers see the old file or the complete new one, even after a power failure; if writing fails,
    the old one is kept. The new file gets the old one's group and permissions. A symbolic link
    remains (its target is replaced), and a device or pipe is written to directly.
    Raises ``OSError``, which names ``path``.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if is_special(path):
        yield path
        return
    target = resolved(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb"):  # "x": it must not exist, so no link is followed
            _keep_mode(temporary, target, stat.S_IRUSR | stat.S_IWUSR)
        yield temporary
        put_in_place(temporary, target)
    except OSError as error:
        if error.filename == str(temporary):
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
        raise
    finally:
        with suppress(OSError):  # it may not exist
            temporary.unlink()


def replace_file(path: AnyPath, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically, as ``replacing`` does. Raises ``OSError``."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def put_in_place(written: Path, target: Path) -> None:
    """Flush a file or folder to disk, then rename it; a replaced file's permissions are kept.

    Raises ``OSError``.
    """
    for path in (*written.rglob("*"), written):
        _sync(path)
    _keep_mode(written, target)
    written.replace(target)
    _sync(target.parent)


def _keep_mode(new: Path, old: Path, more: int = 0) -> None:
    """Copy group and permissions from the old file to the new one, and add ``more`` permissions."""
    if old.exists():
        was, now = old.stat(), new.stat()
        mode = stat.S_IMODE(was.st_mode) & 0o777 | more
        if was.st_gid != now.st_gid:
            try:
                os.chown(new, -1, was.st_gid)
            except OSError:
                mode &= ~stat.S_IRWXG  # otherwise another group could read it
        if mode != stat.S_IMODE(now.st_mode):  # some file systems have only one mode
            new.chmod(mode)


def _sync(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno not in NO_SYNC:
            raise


# --- Quote --------------------------------------------------------------------------------------


def quoted(path: object) -> str:
    """Quote a path for a shell; "./" before a leading "-" keeps it from looking like an option."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))
