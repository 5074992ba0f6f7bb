"""Download pretrained ImageNet weights by name, from the projects that publish them.

torchvision, Keras and MXNet license their weights for ImageNet's 1,000 classes under their own
terms. This package contains none of these weights.
The checksums are those that each project publishes: torchvision puts the beginning of the SHA256
in its URLs, Keras lists the MD5, and MXNet lists the SHA1 of the file inside its archive.
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
    """A published file: its URL, checksum and format; ``member`` is its name in a zip archive."""

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
    """Download pretrained ImageNet weights that the project ``source`` publishes.

    They are downloaded once into the cache (``$DENSENET_MULTI_CACHE``), verified by checksum, and
    read like any other file. The project's license applies to them.

    Raises ``ConfigError`` for an unknown source or name (the message suggests the nearest);
    ``DownloadError`` if the download fails or its checksum is wrong; ``WeightsError`` if the file
    does not hold a DenseNet.

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
    # the implied usage is the one that the publishers document, so nothing is assumed
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
        if not path.exists():  # else another process has unpacked the archive and deleted it
            raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        RuntimeError,
    ) as error:  # RuntimeError: encrypted, or an unknown compression method
        raise WeightsError(f"{archive}: expected a zip archive with {member} ({error})") from None
    finally:
        archive.unlink(missing_ok=True)
    if not _download.matches(path, published.checksum):
        path.unlink(missing_ok=True)
        raise _download.DownloadError(
            f"{published.url}: expected {member} with {published.checksum}, found another checksum"
        )
    return path
