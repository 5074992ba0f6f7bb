"""Download files into the cache: verified, resumable and atomic.

Libraries for this (pooch, torch.hub) do not resume an interrupted download.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ._files import check_file, expanded, open_file, open_own, put_in_place, resolved
from ._progress import progress

TIMEOUT = 30.0  # seconds without data
PIECE = 2**20  # bytes per read


class DownloadError(OSError):
    """A file could not be downloaded; the message states its URL and what to do."""


def cache_folder() -> Path:
    """Return ``$DENSENET_MULTI_CACHE``, or ``densenet_multi`` in the user's cache folder."""
    given = os.environ.get("DENSENET_MULTI_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache", "DENSENET_MULTI_CACHE")
    return Path(given) if given else Path(base, "densenet_multi")


def download(url: str, path: Path, checksum: str, largest: int = 2**30) -> Path:
    """Download ``url`` to ``path``, unless the file is already there; return ``path``.

    Arguments:
        url: an http or https address.
        path: where to save the file. An incomplete download is stored beside it as
            ``NAME.part``, and the next call resumes it. While another process writes ``NAME.part``,
            this process downloads a complete copy of its own.
        checksum: such as ``sha256:3aede3…``; a prefix of the digest is enough.
        largest: the maximum number of bytes to download.

    Raises ``DownloadError``. Progress is shown on stderr if that is a terminal.
    """
    if path.exists():
        size = check_file(path, error=DownloadError, advice="remove it")
        if size <= largest and matches(path, checksum):
            return path
    target = resolved(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _part_of(target) as (part, file):
        try:
            _fetch(url, file, largest)
        except HTTPError as error:
            raise DownloadError(f"{url}: the server answers {error.code} {error.reason}") from None
        except (URLError, TimeoutError, ConnectionError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise DownloadError(
                f"{url}: the download failed ({reason}); try again to resume it, or save "
                f"the file as {path}"
            ) from None
        if not matches(part, checksum):
            found = _digest(part, checksum)
            part.unlink()
            raise DownloadError(
                f"{url}: expected {checksum}, found {found}; the download was deleted; try again"
            )
        put_in_place(part, target)
    return path


@contextmanager
def _part_of(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Yield (path, open file) of ``NAME.part`` or, if that is in use, of a temporary file."""
    part = target.with_name(f"{target.name}.part")
    with ExitStack() as stack:
        try:
            file: BinaryIO = stack.enter_context(open_own(part))
            _claim(file, part)
        except (ImportError, OSError):
            part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
            stack.callback(part.unlink, missing_ok=True)
            file = stack.enter_context(part.open("xb+"))
        yield part, file


def _claim(file: BinaryIO, path: Path) -> None:
    """Lock a file until it is closed. Raises ``OSError`` if another process locked or moved it."""
    import fcntl  # missing on some systems

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    status = os.fstat(file.fileno())
    if status.st_nlink > 1 or not os.path.samestat(status, path.lstat()):
        raise OSError(f"{path}: expected this file, found it moved or hard-linked")


def _fetch(url: str, file: BinaryIO, largest: int) -> None:
    there = file.seek(0, os.SEEK_END)
    if there > largest:  # the incomplete download already exceeds the limit
        file.truncate(0)
        there = file.seek(0)
    headers = {"User-Agent": "densenet_multi", **({"Range": f"bytes={there}-"} if there else {})}
    if not url.startswith(("https://", "http://")):
        raise DownloadError(f"{url}: expected an address that starts with https://")
    try:
        answer = urlopen(Request(url, headers=headers), timeout=TIMEOUT)  # noqa: S310  # checked above
    except HTTPError as error:
        if error.code == 416:  # nothing is left to download
            return
        raise
    with answer, _bar() as bar:
        if answer.status != 206:  # the server sends the complete file again
            there = file.seek(0)
            file.truncate()
        total = there + _length(url, answer.headers.get("Content-Length", "0"))
        if total > largest:
            raise DownloadError(f"{url}: expected at most {largest:,} bytes, found {total:,}")
        task = bar.add_task(url.rsplit("/", 1)[-1], total=total or None, completed=there)
        for piece in _pieces(answer):
            there += len(piece)
            if there > largest:
                raise DownloadError(f"{url}: expected at most {largest:,} bytes, found more")
            file.write(piece)
            bar.update(task, completed=there)
        file.flush()
    if total > there:
        raise ConnectionError(f"the connection ended after {there:,} of {total:,} bytes")


def _length(url: str, stated: str) -> int:
    """Return a response's Content-Length as a number of bytes."""
    if not re.fullmatch("[0-9]{1,18}", stated):
        raise DownloadError(f"{url}: expected a Content-Length in digits, found {stated[:80]!r}")
    return int(stated)


def _pieces(answer: Any) -> Iterator[bytes]:
    while piece := answer.read(PIECE):
        yield piece


def _bar() -> Any:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

    text = TextColumn("{task.description}")
    return progress(text, BarColumn(), DownloadColumn(), TransferSpeedColumn())


def _digest(path: Path, checksum: str) -> str:
    name = checksum.partition(":")[0]
    with open_file(path) as file:
        return f"{name}:{hashlib.file_digest(file, name).hexdigest()}"


def matches(path: Path, checksum: str) -> bool:
    """Return whether a file has this checksum, such as ``sha256:3aede3…`` (a prefix is enough)."""
    return _digest(path, checksum).startswith(checksum)
