"""Files from the network, into the cache: checked, resumed, whole or absent.

Libraries for this (pooch, torch.hub) do not go on where an interrupted download stopped.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ._progress import progress

TIMEOUT = 30.0  # seconds without a byte
PIECE = 2**20


class DownloadError(OSError):
    """A file could not be fetched; the message has its address and what to do."""


def cache_folder() -> Path:
    """``$DENSENET_MULTI_CACHE``, or ``densenet_multi`` in the user's cache folder."""
    given = os.environ.get("DENSENET_MULTI_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(base, "densenet_multi")


def download(url: str, path: Path, checksum: str, largest: int = 2**30) -> Path:
    """The file at ``url``, in ``path``; fetched unless it is there.

    Arguments:
        url: http or https.
        path: where it goes; what is not yet complete lies beside it, as ``NAME.part``, and the
            next call goes on from there.
        checksum: such as ``sha256:3aede3…``; a beginning of the digest is enough.
        largest: bytes that are read at most.

    Raises ``DownloadError``. A bar shows progress on stderr, on a terminal.
    """
    if path.is_file() and matches(path, checksum):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        _fetch(url, part, largest)
    except HTTPError as error:
        raise DownloadError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (URLError, TimeoutError, ConnectionError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise DownloadError(
            f"{url}: could not be fetched ({reason}); the next attempt goes on where this one "
            f"stopped, or put the file at {path}"
        ) from None
    if not matches(part, checksum):
        found = _digest(part, checksum)
        part.unlink()
        raise DownloadError(f"{url}: expected {checksum}, found {found}; it was thrown away")
    part.replace(path)
    return path


def _fetch(url: str, part: Path, largest: int) -> None:
    there = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "densenet_multi", **({"Range": f"bytes={there}-"} if there else {})}
    if not url.startswith(("https://", "http://")):
        raise DownloadError(f"{url}: expected an address that starts with https://")
    try:
        answer = urlopen(Request(url, headers=headers), timeout=TIMEOUT)  # noqa: S310  # checked above
    except HTTPError as error:
        if error.code == 416:  # nothing is left to fetch
            return
        raise
    with answer, _bar() as bar:
        there = there if answer.status == 206 else 0  # a server may send all of it again
        total = there + int(answer.headers.get("Content-Length") or 0)
        if total > largest:
            raise DownloadError(f"{url}: expected at most {largest:,} bytes, found {total:,}")
        task = bar.add_task(url.rsplit("/", 1)[-1], total=total or None, completed=there)
        with part.open("ab" if there else "wb") as file:
            for piece in _pieces(answer):
                there += len(piece)
                if there > largest:
                    raise DownloadError(f"{url}: expected at most {largest:,} bytes, found more")
                file.write(piece)
                bar.update(task, completed=there)
    if total > there:
        raise ConnectionError(f"the connection ended after {there:,} of {total:,} bytes")


def _pieces(answer: Any) -> Iterator[bytes]:
    while piece := answer.read(PIECE):
        yield piece


def _bar() -> Any:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

    text = TextColumn("{task.description}")
    return progress(text, BarColumn(), DownloadColumn(), TransferSpeedColumn())


def _digest(path: Path, checksum: str) -> str:
    name = checksum.partition(":")[0]
    with path.open("rb") as file:
        return f"{name}:{hashlib.file_digest(file, name).hexdigest()}"


def matches(path: Path, checksum: str) -> bool:
    """Whether a file has this checksum."""
    return _digest(path, checksum).startswith(checksum)
