"""Files that are read within bounds, and written whole or not at all; paths as they are typed."""

from __future__ import annotations

import errno
import os
import secrets
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom, BufferedReader
from pathlib import Path

from ._checks import bad

AnyPath = str | os.PathLike[str]

NO_FILES = {  # kinds of what is no regular file
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
NO_SYNC = (errno.EACCES, errno.EINVAL, errno.ENOTSUP)  # of a folder that cannot be synced

# --- Read ---------------------------------------------------------------------------------------


def what_is(path: AnyPath) -> str | None:
    """What is at a path that is no regular file, such as "a pipe"; None for a file.

    Links are followed. Raises ``OSError``, also for one that leads nowhere or to itself.
    """
    kind = stat.S_IFMT(os.stat(path).st_mode)  # noqa: PTH116  # a text is a path here
    return None if kind == stat.S_IFREG else NO_FILES.get(kind, "something else")


def check_file(path: AnyPath, largest: int | None = None, error: type[Exception] = OSError) -> int:
    """The size in bytes of a regular file, or of the one that a link leads to.

    It is not opened: a pipe would wait, a device never end.

    Raises ``error`` where it is anything else, or larger than ``largest`` bytes; ``OSError`` where
    there is nothing.
    """
    if found := what_is(path):
        raise error(f"{os.fspath(path)}: expected a file, found {found}")
    size = Path(path).stat().st_size
    if largest is not None and size > largest:
        raise error(f"{os.fspath(path)}: expected at most {largest:,} bytes, found {size:,}")
    return size


def open_file(
    path: AnyPath, largest: int | None = None, error: type[Exception] = OSError
) -> BufferedReader:
    """Open a file to read its bytes. Raises as ``check_file``, before it is opened."""
    check_file(path, largest, error)
    return Path(path).open("rb")


def read_file(path: AnyPath, largest: int, error: type[Exception] = OSError) -> bytes:
    """The bytes of a file of at most ``largest``. Raises as ``check_file``."""
    size = check_file(path, largest, error)
    with Path(path).open("rb") as file:
        content = file.read(size + 1)
        if len(content) > size:  # it grows, or has no size, as those in /proc
            content += file.read(largest + 1 - len(content))
    if len(content) > largest:
        raise error(f"{os.fspath(path)}: expected at most {largest:,} bytes, found more")
    return content


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
    """Whether it is a device or a pipe, which is written to and never replaced.

    Raises ``IsADirectoryError`` for a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return path.exists() and not path.is_file()


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
