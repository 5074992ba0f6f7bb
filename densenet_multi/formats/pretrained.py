"""Trained weights by name, from where their owners publish them.

The license of the weights is their owner's: torchvision, Keras and MXNet publish theirs for
ImageNet's thousand classes under terms of their own. This package contains none of them.
Checksums are those that each project checks itself: torchvision's addresses carry the beginning of
the SHA256, Keras lists MD5, MXNet SHA1 of the file inside its archive.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from .. import _download
from .._checks import check_names
from .._files import replace_file
from ..checkpoint import Checkpoint
from ..weights import WeightsError
from . import read
from ._limits import LARGEST_FILE


@dataclass(frozen=True)
class Published:
    """Where a file is, its checksum, and its format; ``member`` is its name in a zip archive."""

    url: str
    checksum: str
    file_format: str
    member: str | None = None


TORCHVISION = "https://download.pytorch.org/models"
KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/densenet"
MXNET = "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/models"


def _torchvision(name: str, sha256: str) -> Published:
    return Published(f"{TORCHVISION}/{name}-{sha256}.pth", f"sha256:{sha256}", "torchvision")


def _keras(name: str, md5: str) -> Published:
    file = f"{name}_weights_tf_dim_ordering_tf_kernels.h5"
    return Published(f"{KERAS}/{file}", f"md5:{md5}", "keras")


def _gluon(name: str, sha1: str) -> Published:
    file = f"{name}-{sha1[:8]}"
    return Published(f"{MXNET}/{file}.zip", f"sha1:{sha1}", "gluon", f"{file}.params")


SOURCES: dict[str, dict[str, Published]] = {
    "torchvision": {
        "densenet121": _torchvision("densenet121", "a639ec97"),
        "densenet161": _torchvision("densenet161", "8d451a50"),
        "densenet169": _torchvision("densenet169", "b2777c0a"),
        "densenet201": _torchvision("densenet201", "c1103571"),
    },
    "keras": {
        "densenet121": _keras("densenet121", "9d60b8095a5708f2dcce2bca79d332c7"),
        "densenet169": _keras("densenet169", "d699b8f76981ab1b30698df4c175e90b"),
        "densenet201": _keras("densenet201", "1ceb130c1ea1b78c3bf6114dbdfd8807"),
    },
    "gluon": {
        "densenet121": _gluon("densenet121", "f27dbf2dbd5ce9a80b102d89c7483342cd33cb31"),
        "densenet161": _gluon("densenet161", "b6c8a95717e3e761bd88d145f4d0a214aaa515dc"),
        "densenet169": _gluon("densenet169", "2603f878403c6aa5a71a124c4a3307143d6820e9"),
        "densenet201": _gluon("densenet201", "1cdbc116bc3a1b65832b18cf53e1cb8e7da017eb"),
    },
}


def from_pretrained(name: str, source: str = "torchvision") -> Checkpoint:
    """Trained ImageNet weights, as the project ``source`` publishes them.

    They are downloaded once into the cache (``$DENSENET_MULTI_CACHE``), checked, and read like any
    other file. Their license is their owner's.

    Raises ``ConfigError`` for an unknown source or name (the message has the nearest);
    ``DownloadError`` where the download failed, or has another checksum; ``WeightsError`` where the
    file does not hold a DenseNet.

    Arguments:
        name: ``densenet121``, ``161``, ``169`` or ``201``.
        source: ``torchvision``, ``keras`` or ``gluon`` (MXNet's zoo).
    """
    check_names("source", [source], SOURCES)
    check_names("name", [name], SOURCES[source])
    published = SOURCES[source][name]
    folder = _download.cache_folder() / source
    if published.member:
        path = _from_archive(published, published.member, folder)
    else:
        file = folder / published.url.rsplit("/", 1)[-1]
        path = _download.download(published.url, file, published.checksum)
    checkpoint = read(path, published.file_format)
    # their publishers say how they are used, and that is what is implied
    usage = replace(checkpoint.usage, activation="softmax", assumed=())
    return replace(checkpoint, usage=usage)


def _from_archive(published: Published, member: str, folder: Path) -> Path:
    path = folder / member
    if path.exists() and _download.matches(path, published.checksum):
        return path
    archive_name = published.url.rsplit("/", 1)[-1]
    archive = _download.download(published.url, folder / archive_name, "sha256:")
    try:
        with zipfile.ZipFile(archive) as opened:
            if opened.getinfo(member).file_size > LARGEST_FILE:
                raise WeightsError(f"{archive}: expected {member} of at most 4 GiB, found more")
            replace_file(path, opened.read(member))
    except FileNotFoundError:
        if not path.exists():  # else another process has unpacked it, and taken it away
            raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        RuntimeError,
    ) as error:  # a password, a method
        raise WeightsError(f"{archive}: expected a zip archive with {member} ({error})") from None
    finally:
        archive.unlink(missing_ok=True)
    if not _download.matches(path, published.checksum):
        path.unlink(missing_ok=True)
        raise _download.DownloadError(
            f"{published.url}: expected {member} with {published.checksum}, found another"
        )
    return path
