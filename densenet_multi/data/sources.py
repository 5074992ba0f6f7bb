"""Find data sets by name, validate them, and prepare them for a network."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import Checked, ConfigError, bad, check_names, check_seed, integer, text
from .._files import as_path, expanded, resolved
from ..checkpoint import Usage
from . import cifar10, fashion_mnist
from .digest import digest
from .examples import Examples, Pixels
from .folder import ImageFiles, find_folder, fingerprints
from .idx import IdxError, header
from .images import (
    MOST_REPEATED,
    DataError,
    DataNotFoundError,
    ImagesAndLabels,
    Preparation,
)

NAMES = {
    "fashion-mnist": "fashion-mnist",
    "sample": "sample",
    "folder": "folder:PATH",
    "cifar10": "cifar10:PATH",
}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
CHECKSUMS = {  # SHA256 of the official .gz, and of its content (Linux distributions recompress it)
    "train-images-idx3-ubyte": (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte": (
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k-images-idx3-ubyte": (
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte": (
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


@dataclass(frozen=True)
class DataSet(Checked):
    """A data set: training examples and test examples.

    Attributes:
        name: "fashion-mnist", "sample", "folder" or "cifar10".
        train: training examples; ``take`` returns float32 of shape (n, C, S, S).
        test: test examples.
        class_names: one name for each label, in order.
        where: the place where the data were found, as shown to the user.
        split_seed: the seed that split a folder into ``train`` and ``test``; None if the data
            already have splits.
        notes: sentences for the user about which images were chosen.
    """

    name: str
    train: Examples
    test: Examples
    class_names: tuple[str, ...]
    where: str
    split_seed: int | None = None
    notes: tuple[str, ...] = ()

    def fingerprints(self) -> tuple[str, ...] | None:
        """Return fingerprints that identify some training images; None for published data.

        See ``folder.fingerprints``.
        """
        return fingerprints(self.train) if isinstance(self.train, ImageFiles) else None

    def digests(self) -> dict[str, Any]:
        """Return what a resumed run compares: digests of the images, and how they are prepared.

        Every image file is read once. Raises ``OSError`` if a file cannot be read.
        """
        prepare: Preparation = self.train.prepare  # type: ignore[attr-defined]  # as load_data made it
        usage = prepare.usage or Usage()
        return {
            "training images": digest(self.train),
            "test images": digest(self.test),
            "pixels": {
                "in_channels": prepare.channels,
                "value_range": list(usage.value_range or (0.0, 1.0)),
                "mean": usage.mean and list(usage.mean),
                "std": usage.std and list(usage.std),
            },
        }


def load_data(
    name: str,
    *,
    image_size: int,
    in_channels: int | None = None,
    usage: Usage | None = None,
    data_dir: str | Path | None = None,
    seed: int = 0,
) -> DataSet:
    """Find a data set by name, and prepare it for a network.

    Raises ``ConfigError`` for an unknown name, or if the data cannot be prepared as requested;
    ``DataError`` or ``IdxError`` if data are missing, damaged or of another data set; ``OSError``
    if a file cannot be read.

    Arguments:
        name: "fashion-mnist"; "sample", the part of Fashion-MNIST that this package includes;
            "folder:PATH", your own images (see ``load_folder``); "cifar10:PATH", the folder or the
            archive of either version (see ``load_cifar10``); or only the PATH of such a folder or
            archive, if it exists.
        image_size: S, pixels per side.
        in_channels: C; None uses the data's own number: 1 for Fashion-MNIST, otherwise 3. Gray is
            repeated over C channels; color becomes luminance if C is 1.
        usage: the network's usage, with the range, mean and std of its input; None keeps pixels
            from 0 to 1.
        data_dir: the only place to look for Fashion-MNIST; None looks for it in the cache, in
            Debian's folder and on its server.
        seed: splits a folder that has no split folders into train and test.

    Returns:
        The data set, with images prepared for the network.

    >>> from densenet_multi import data
    >>> found = data.load_data("sample", image_size=32)
    >>> len(found.train), len(found.test)
    (1000, 1000)
    """
    kind, path = find(name)
    seed = check_seed(seed)
    prepare = preparation(name, data_dir, image_size, in_channels, usage)
    if kind == "folder":
        folder = find_folder(path)
        train, test = folder.to_train_on(prepare, seed)
        if not folder.parts:
            return DataSet(kind, train, test, folder.classes, path, seed)
        used = {"train": train, folder.validation_part: test}
        trained, tested = (
            f"{folder.parts[part].name} ({len(images):,} images)" for part, images in used.items()
        )
        note = f"{path}: training on {trained}, testing with {tested}"
        unused = [found.name for part, found in folder.parts.items() if part not in used]
        if unused := [*unused, *folder.others]:
            note += f"; not used: {', '.join(unused)}"
        return DataSet(kind, train, test, folder.classes, path, None, (note,))
    if kind == "cifar10":
        splits, classes, where = cifar10.load_splits(path, *cifar10.FILES), cifar10.CLASSES, path
    else:
        splits, where = _sample() if kind == "sample" else _fashion_mnist(data_dir)
        classes = fashion_mnist.CLASSES
        splits = [(images[:, np.newaxis], labels) for images, labels in splits]
    train_pixels, test_pixels = (Pixels(images, labels, prepare) for images, labels in splits)
    return DataSet(kind, train_pixels, test_pixels, classes, where)


def find(name: str) -> tuple[str, str]:
    """Return a data set's kind (a key of ``NAMES``) and its path, or "" if it needs no path.

    Raises ``ConfigError`` for an unknown name.
    """
    as_path(text("data", name), "data")
    kind, colon, path = name.partition(":")
    if kind in NAMES:
        if bool(colon and path) != NAMES[kind].endswith(":PATH") or (colon and not path):
            raise bad("data", name, repr(NAMES[kind]))
        return kind, str(expanded(path, "data")) if path else ""
    found = expanded(name, "data")
    if name and found.is_dir():
        return ("cifar10" if cifar10.is_cifar10(found) else "folder"), str(found)
    if name and found.is_file():
        if found.name.endswith((".tar.gz", ".tgz", ".tar")) and "cifar" in found.name.lower():
            return "cifar10", str(found)
        raise bad("data", name, "a folder of images (unpack an archive first)")
    if not colon and (os.sep in name or name.startswith(".")):
        raise bad("data", name, "an existing folder")
    check_names("data", [name], NAMES.values())
    raise AssertionError(name)  # unreachable: check_names has raised


def spelled_out(name: str) -> str:
    """Expand a name to "KIND:ABSOLUTE PATH" (or "KIND"); return an unknown name unchanged.

    Raises ``OSError`` for a symlink loop.
    """
    try:
        kind, path = find(name)
    except ConfigError:
        return name
    return f"{kind}:{resolved(path)}" if path else kind


def preparation(
    name: str,
    data_dir: str | Path | None,
    image_size: int,
    in_channels: int | None,
    usage: Usage | None,
) -> Preparation:
    """Return how to prepare the images of these data. Raises the same errors as ``load_data``."""
    kind, _ = find(name)
    if in_channels is not None:
        in_channels = integer("in_channels", in_channels, 1, MOST_REPEATED)
    if data_dir is not None:
        as_path(data_dir, "data_dir")
    if data_dir is not None and kind != "fashion-mnist":
        raise bad("data_dir", str(data_dir), f"none for {NAMES[kind]!r}, only for 'fashion-mnist'")
    in_color = kind in ("folder", "cifar10")
    if in_color and in_channels not in (None, 1, 3):
        raise bad("in_channels", in_channels, f"1 or 3 for {NAMES[kind]!r}")
    channels = (3 if in_color else 1) if in_channels is None else in_channels
    return Preparation(image_size, channels, usage)


def _sample() -> tuple[list[ImagesAndLabels], str]:
    splits = [fashion_mnist.load_sample(split) for split in fashion_mnist.FILES]
    return splits, "the sample in this package"


def _fashion_mnist(data_dir: str | Path | None) -> tuple[list[ImagesAndLabels], str]:
    """Return both splits, and the place where they were found."""
    if data_dir is not None:
        try:
            return _read(expanded(data_dir, "data_dir")), str(data_dir)
        except FileNotFoundError as error:
            raise DataError(f"{error}; or omit data_dir= to search elsewhere") from None

    from .. import _download

    cache = _download.cache_folder() / "fashion-mnist"
    missed = ["data_dir=None"]
    kind: type[DataError] = DataNotFoundError
    for place in (cache, DEBIAN):
        try:
            return _official(_read(place)), str(place)
        except FileNotFoundError:
            missed.append(f"{place}: the folder or one of its four files is missing")
        except (OSError, IdxError) as error:
            missed.append(f"{place}: {error}")
            kind = DataError  # they are there, but damaged
    try:
        return _fetch(cache), str(cache)
    except (OSError, IdxError) as error:
        missed.append(f"{ADDRESS}: {error}")
    raise kind(
        "Fashion-MNIST was not found in any of four places:\n  "
        + "\n  ".join(missed)
        + "\nOn Debian and Ubuntu, type 'apt-get install dataset-fashion-mnist'; elsewhere, put "
        "the four files into a folder and pass data_dir='FOLDER'; or use data='sample'"
    )


def _read(folder: Path) -> list[ImagesAndLabels]:
    return [fashion_mnist.load_directory(folder, split) for split in fashion_mnist.FILES]


def _official(splits: list[ImagesAndLabels]) -> list[ImagesAndLabels]:
    """Return the splits. Raises ``DataError`` unless they are those of the official release."""
    for names, arrays in zip(fashion_mnist.FILES.values(), splits, strict=True):
        for name, array in zip(names, arrays, strict=True):
            found, expected = hashlib.sha256(header(array)), CHECKSUMS[name][1]
            found.update(array.data)
            if found.hexdigest() != expected:
                raise DataError(
                    f"{name}: expected content with SHA256 {expected}, found {found.hexdigest()}"
                )
    return splits


def _fetch(folder: Path) -> list[ImagesAndLabels]:
    from .._download import download

    splits = []
    for names in fashion_mnist.FILES.values():
        images, labels = (
            download(
                f"{ADDRESS}{name}.gz",
                folder / f"{name}.gz",
                f"sha256:{CHECKSUMS[name][0]}",
                largest=2**26,
            )
            for name in names
        )
        splits.append(fashion_mnist.read_pair(images, labels))
    return splits
