"""Files that are read within bounds, and written whole or not at all; paths as they are typed."""

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
NO_FILES = {  # kinds of what is no regular file
    stat.S_IFDIR: A_FOLDER,
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
TO_READ = os.O_RDONLY | sum(  # a pipe does not wait, and a terminal does not become this process's
    getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY")
)
NO_SYNC = (errno.EACCES, errno.EINVAL, errno.ENOTSUP)  # of a folder that cannot be synced

# --- Read ---------------------------------------------------------------------------------------


def what_is(path: AnyPath | int) -> str | None:
    """What is at a path, or open, that is no regular file, such as "a pipe"; None for a file.

    Links are followed. Raises ``OSError``, also for one that leads nowhere or to itself.
    """
    kind = stat.S_IFMT(os.stat(path).st_mode)  # noqa: PTH116  # a text is a path here
    return None if kind == stat.S_IFREG else NO_FILES.get(kind, "something else")


def opened(
    path: AnyPath, refusal: Callable[[str, str], Exception], largest: int | None = None
) -> BufferedReader:
    """Open a regular file, or the one that a link leads to, to read its bytes.

    Nothing waits for a pipe, and what was checked is what is read, whatever the path leads to next.

    Raises ``refusal(expected, found)`` for anything else, and for more than ``largest`` bytes;
    ``OSError`` where there is nothing, or where it cannot be opened.
    """
    try:
        descriptor = os.open(path, TO_READ)
    except OSError:
        if found := what_is(path):  # a socket; a device, without permission
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
    """The same; ``error`` is raised with what was expected, what was found, and ``advice``."""

    def refusal(expected: str, found: str) -> Exception:
        return error(f"{os.fspath(path)}: expected {expected}, found {found}; {advice}")

    return opened(path, refusal, largest)


def check_file(path: AnyPath, largest: int | None = None, **words: Any) -> int:
    """The size of a file in bytes. Raises as ``open_file``, which has the other arguments."""
    with open_file(path, largest, **words) as file:
        return size_of(file)


def read_file(
    path: AnyPath,
    largest: int,
    error: Callable[[str], Exception] = OSError,
    advice: str = "use another file",
) -> bytes:
    """The bytes of a file of at most ``largest``. Raises as ``open_file``."""
    with open_file(path, largest, error, advice) as file:
        size = size_of(file)
        content = file.read(size + 1)
        if len(content) > size:  # it grows, or has no size, as those in /proc
            content += file.read(largest + 1 - len(content))
    if len(content) > largest:
        found = f"expected at most {largest:,} bytes, found more"
        raise error(f"{os.fspath(path)}: {found}; {advice}")
    return content


def size_of(file: BufferedReader) -> int:
    """The size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


# --- Write --------------------------------------------------------------------------------------


def resolved(path: AnyPath) -> Path:
    """The absolute path that links lead to, also where nothing is there yet.

    Raises ``OSError`` for a link that leads to itself.
    """
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    return target


def is_special(path: Path) -> bool:
    """Whether it is a device, a pipe or a socket, which is written to and never replaced."""
    return path.exists() and what_is(path) not in (None, A_FOLDER)


def open_own(path: Path, error: type[Exception] = OSError) -> BufferedRandom:
    """Open a file of a name that this package uses alone, to read and write; created if missing.

    No link is followed, and nothing is emptied. Raises ``error`` where a link, or what is no file,
    has this name; ``OSError`` where it cannot be opened.
    """
    found = "a symbolic link" if path.is_symlink() else path.exists() and what_is(path)
    if found:
        raise error(f"{path}: expected a file or nothing, found {found}; remove it")
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)  # it may become a link meanwhile
    return open(path, "r+b", opener=lambda name, _: os.open(name, flags, 0o666))


def as_path(given: str | os.PathLike[str], name: str = "path") -> Path:
    """The path of an argument. Raises ``ConfigError`` for anything else than a path as text."""
    try:
        found = os.fspath(given)
    except Exception:  # noqa: BLE001  # the object is asked, which may raise anything
        found = None
    if not isinstance(found, str) or "\0" in found:
        raise bad(name, given, "a path, as a text or a pathlib.Path")
    return Path(given)


def expanded(path: AnyPath, name: str = "path") -> Path:
    """The path with a home folder in place of ``~`` or ``~user``. Raises ``ConfigError``."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # a stranger's, or nobody's
        allowed = "a path whose ~ or ~user has a home folder, or ./~… for a file of that name"
        raise bad(name, os.fspath(path), allowed) from None


@contextmanager
def replacing(path: AnyPath) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` to write to; then it is renamed, if nothing failed.

    Readers see the old file or the new one, also after a power failure. A replaced file's
    group and permissions stay. A symbolic link stays one, and a device or a pipe is written to
    directly.
    Raises ``OSError``, with the name that was asked for.
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
        with temporary.open("xb"):  # new: no link is followed
            _keep_mode(temporary, target, stat.S_IRUSR | stat.S_IWUSR)
        yield temporary
        put_in_place(temporary, target)
    except OSError as error:
        if error.filename == str(temporary):
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
        raise
    finally:
        with suppress(OSError):  # it may be gone, or never have been
            temporary.unlink()


def replace_file(path: AnyPath, content: bytes) -> None:
    """Write ``content`` to ``path``, as ``replacing`` does. Raises ``OSError``."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def put_in_place(written: Path, target: Path) -> None:
    """Rename a file or folder once it is on the disk; a replaced file's permissions stay.

    Raises ``OSError``.
    """
    for path in (*written.rglob("*"), written):
        _sync(path)
    _keep_mode(written, target)
    written.replace(target)
    _sync(target.parent)


def _keep_mode(new: Path, old: Path, more: int = 0) -> None:
    """Give a file the group and permissions of the one that it will replace, and ``more``."""
    if old.exists():
        was, now = old.stat(), new.stat()
        mode = stat.S_IMODE(was.st_mode) & 0o777 | more
        if was.st_gid != now.st_gid:
            try:
                os.chown(new, -1, was.st_gid)
            except OSError:
                mode &= ~stat.S_IRWXG  # or another group could read it
        if mode != stat.S_IMODE(now.st_mode):  # some file systems have one mode alone
            new.chmod(mode)


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno not in NO_SYNC:
            raise


# --- As typed -----------------------------------------------------------------------------------


def quoted(path: object) -> str:
    """A path as it is typed in a shell, where it may not look like an option."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))
