"""Your own images, in one folder per class, named after the class.

The class folders are either in one folder, or in one folder per split: train, val and test.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._checks import COUNTED, check_seed, items, listed
from .._files import as_path, open_file, what_is
from .._inputs import check_indices, check_listed
from .cifar10 import is_cifar100
from .images import (
    CONVERT,
    FORMATS,
    MEND,
    DataError,
    ImageFileError,
    Preparation,
    broken_link,
    check_preparation,
    open_image,
    read_image,
)
from .order import epoch_order

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")
VALIDATION = 5  # one image in this many is held out
PARTS = {  # split -> accepted names of its folder, in upper or lower case
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
LISTED = 20  # the maximum number of files named in an error
NAMED = 5  # the maximum number of folders named in an error
FINGERPRINTS = 32  # the maximum number of images fingerprinted


@dataclass(frozen=True)
class ImageFiles:
    """Examples from image files, which ``take`` reads and prepares.

    Attributes:
        paths: N image files.
        labels: int64 of shape (N,).
        prepare: converts pixels, scaled to the range 0 to 1, to the network's input.
    """

    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    prepare: Preparation

    def __post_init__(self) -> None:
        paths = items("paths", self.paths, "a list of files")
        object.__setattr__(self, "paths", tuple(as_path(path, "paths") for path in paths))
        object.__setattr__(self, "labels", check_listed("labels", self.labels))
        check_preparation(self.prepare)

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Return the images at these indices, float32 of shape (n, C, S, S).

        Raises the same errors as ``read_image``.
        """
        indices = check_indices(indices, len(self))
        channels, size = self.prepare.channels, self.prepare.image_size
        images = np.empty((len(indices), channels, size, size), np.float32)
        for image, index in zip(images, indices, strict=True):
            image[:] = self.prepare(read_image(self.paths[index], channels)[np.newaxis])[0]
        return images

    @property
    def black(self) -> NDArray[np.float32]:
        """The value of a black pixel after preparation."""
        return self.prepare.black


@dataclass(frozen=True)
class Folder:
    """A folder of images: its classes and its split folders. Creating a ``Folder`` opens no image.

    Attributes:
        root: the folder.
        classes: the names of the classes, sorted.
        parts: {split ("train", "val" or "test"): its folder}; empty if the class folders are
            directly in ``root``.
        others: names of the folders in ``root`` that belong to no split, if there are ``parts``.
    """

    root: Path
    classes: tuple[str, ...]
    parts: dict[str, Path] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    def read(self, prepare: Preparation, part: str | None = None) -> ImageFiles:
        """Find all images of a split, or of a folder without splits, sorted by class and name.

        This reads only the header of every image; ``take`` reads the rest.

        Raises ``DataError`` if some files are not images, or if the training split lacks some
        classes; it names these files or classes. Raises ``OSError`` if a folder is unreadable.

        Arguments:
            prepare: converts pixels, scaled to the range 0 to 1, to the network's input.
            part: the split, a key of ``parts``; None if ``parts`` is empty.
        """
        folder = self.root if part is None else self.parts[part]
        unknown = [path.name for path in _folders(folder) if path.name not in self.classes]
        if unknown:
            raise DataError(
                f"{folder}: expected only the classes of {self.parts['train']}, found also "
                f"{_named(unknown)}; remove these, or use only the training folder: "
                f"{_as_data(self.parts['train'])}"
            )
        files = [_visible(folder / name) for name in self.classes if (folder / name).is_dir()]
        wrong = _broken_links(folder)
        wrong += [error for within in files for path in within if (error := _wrong(path))]
        if wrong:
            raise _not_images(folder, wrong)
        paths = tuple(path for within in files for path in within)
        if not paths:
            raise DataError(f"{folder}: expected images in the class folders, found none")
        label_of = {name: label for label, name in enumerate(self.classes)}
        labels = np.array([label_of[path.parent.name] for path in paths], np.int64)
        return ImageFiles(paths, labels, prepare)

    def split(self, images: ImageFiles, seed: int) -> tuple[ImageFiles, ImageFiles]:
        """Hold out a fifth of each class; return the training and the validation images.

        Raises ``DataError`` if a class has fewer than two images; ``ValueError`` if the seed is out
        of range.

        Arguments:
            images: all images of a folder without split folders.
            seed: from 0 to 2**64 - 1.
        """
        self._check_count(images, 2, "one for training and one for validation")
        kept, apart = [], []
        for label in range(len(self.classes)):
            (members,) = np.nonzero(images.labels == label)
            order = epoch_order(len(members), seed, label)
            count = max(1, round(len(members) / VALIDATION))
            kept.append(members[np.sort(order[count:])])
            apart.append(members[np.sort(order[:count])])
        train, validation = (_selected(images, np.concatenate(part)) for part in (kept, apart))
        return train, validation

    def to_train_on(self, prepare: Preparation, seed: int) -> tuple[ImageFiles, ImageFiles]:
        """Return the training images and the validation images: see ``load_folder``."""
        if not self.parts:
            return self.split(self.read(prepare), seed)
        part = self.validation_part
        train = self.read(prepare, "train")
        self._check_count(train, 1, "for training")
        return train, self.read(prepare, part)

    @property
    def validation_part(self) -> str:
        """The split for validation during training: "val" if there is one, otherwise "test".

        Raises ``DataError`` if there is no training split.
        """
        if "train" not in self.parts:
            raise DataError(
                f"{self.root}: expected a folder named train beside {_named(self.parts)}, found "
                f"none; to train on one of those, use {_as_data(next(iter(self.parts.values())))}"
            )
        return "val" if "val" in self.parts else "test"

    def _check_count(self, images: ImageFiles, least: int, what: str) -> None:
        counts = np.bincount(images.labels, minlength=len(self.classes)).tolist()
        for name, count in zip(self.classes, counts, strict=True):
            if count < least:
                expected = f"at least {'two images' if least > 1 else 'one image'}, {what}"
                raise DataError(
                    f"{self.parts.get('train', self.root) / name}: expected {expected}, found "
                    f"{count}; add some, or remove the folder"
                )


def _selected(images: ImageFiles, indices: NDArray[np.int64]) -> ImageFiles:
    paths = tuple(images.paths[i] for i in indices)
    return ImageFiles(paths, images.labels[indices], images.prepare)


def load_folder(
    path: str | os.PathLike[str], prepare: Preparation, seed: int = 0
) -> tuple[ImageFiles, ImageFiles, tuple[str, ...]]:
    """Find the images ``path/CLASS/NAME.png`` (or .jpg, …), and hold out a fifth of each class.

    The images held out depend on the sorted file names and the seed. A folder with split folders
    (``path/train/CLASS/NAME.png``, ``path/val/CLASS/NAME.png``) keeps its splits instead: see
    ``find_folder``. Hidden files and folders (whose names begin with a dot), ``__MACOSX`` (which
    macOS adds to archives), and files beside the class folders are ignored. This reads only the
    header of every image; ``take`` reads the rest.

    Raises ``DataError`` if there are fewer than two classes, if a class has fewer than two images
    (one, with split folders), or if a class folder contains anything but images that ``read_image``
    accepts; ``ValueError`` if the seed is out of range; ``OSError`` if something cannot be read.

    Arguments:
        path: the folder that contains the class folders, or the split folders.
        prepare: converts pixels, scaled to the range 0 to 1, to the network's input.
        seed: the seed of the split, from 0 to 2**64 - 1.

    Returns:
        Training examples, validation examples, and the sorted names of the classes.

    >>> from PIL import Image
    >>> for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
    ...     Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
    ...     Image.new("RGB", (40, 30)).save(f"photos/{name}")
    >>> train, validation, classes = load_folder("photos", Preparation(image_size=32, channels=3))
    >>> len(train), len(validation), classes
    (2, 2, ('cat', 'dog'))
    """
    check_preparation(prepare)
    check_seed(seed)
    found = find_folder(path)
    return (*found.to_train_on(prepare, seed), found.classes)


def find_folder(path: str | os.PathLike[str]) -> Folder:
    """List the classes of a folder of images, and its split folders if it has two or more of them.

    Each split folder contains class folders: ``path/train/CLASS/NAME.png``. It is called train or
    training; val, valid or validation; test or testing. The classes are those of the training
    split, or else of all splits.

    Raises ``DataError`` if there are fewer than two classes, or if the class folders are at the
    wrong level; ``OSError`` if a folder cannot be read.
    """
    root = as_path(path)
    if not root.is_dir():
        other = "a file" if root.is_file() else broken_link(root) or "none"
        raise DataError(f"{root}: expected a folder with one folder per class, found {other}")
    folders = _folders(root)
    parts = _parts(root, folders)
    if parts:
        where = [parts["train"]] if "train" in parts else list(parts.values())
        names = sorted({folder.name for part in where for folder in _folders(part)})
        others = tuple(folder.name for folder in folders if folder not in parts.values())
        folders = [folder for part in parts.values() for folder in _folders(part)]
        found = Folder(root, tuple(names), parts, others)
    else:
        names = [folder.name for folder in folders]
        found = Folder(root, tuple(names))
    if too_deep := [folder for folder in folders if _holds_folders(folder)]:
        raise _at_another_level(root, too_deep)
    if len(names) < 2:
        raise _too_few_classes(root if not parts else where[0], names)
    return found


# --- Fingerprints -------------------------------------------------------------------------------


def fingerprints(images: ImageFiles) -> tuple[str, ...]:
    """Return fingerprints of up to 32 evenly spaced files: size in bytes, 16 digits of the SHA256.

    As "SIZE:HEX", they show whether a network was trained on these images, even if renamed.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, FINGERPRINTS).round().astype(int))
    return tuple(_fingerprint(images.paths[i]) for i in chosen)


def recognized(paths: Iterable[Path], recorded: Sequence[str]) -> dict[Path, str]:
    """Return {file: its fingerprint} for the files whose fingerprint is among the recorded ones."""
    sizes, known = {entry.partition(":")[0] for entry in recorded}, set(recorded)
    candidates = [path for path in paths if str(path.stat().st_size) in sizes]
    found = {path: _fingerprint(path) for path in candidates}
    return {path: fingerprint for path, fingerprint in found.items() if fingerprint in known}


def _fingerprint(path: Path) -> str:
    with open_file(path) as file:
        digits = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        return f"{file.tell()}:{digits}"


# --- Content of a folder ------------------------------------------------------------------------


def _visible(folder: Path) -> list[Path]:
    paths = (path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))
    return sorted(paths, key=lambda path: path.name)


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _parts(root: Path, folders: list[Path]) -> dict[str, Path]:
    """Return {split: its folder} if two or more splits contain class folders; otherwise {}."""
    found: dict[str, Path] = {}
    for folder in folders:
        part = next((part for part, names in PARTS.items() if folder.name.lower() in names), None)
        if part is None or not _holds_folders(folder):
            continue
        if part in found:
            raise DataError(
                f"{root}: expected only one of the folders {found[part].name} and {folder.name}, "
                "found both; remove one"
            )
        found[part] = folder
    return {part: found[part] for part in PARTS if part in found} if len(found) > 1 else {}


def _holds_folders(folder: Path) -> bool:
    """Return whether a folder contains folders, and no images beside them."""
    inside = _visible(folder)
    return not any(map(_looks_like_an_image, inside)) and any(path.is_dir() for path in inside)


def _looks_like_an_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def _wrong(path: Path) -> ImageFileError | None:
    """Return an error if this path in a class folder is not an image; None for an image."""
    if not path.is_file():
        if broken := broken_link(path):
            return ImageFileError(path, broken, advice=MEND)
        advice = CONVERT if path.is_dir() else "remove it"
        return ImageFileError(path, what_is(path) or "nothing", advice=advice)
    if path.suffix.lower() not in SUFFIXES:
        kind = f"with the suffix {path.suffix}" if path.suffix else "without a suffix"
        return ImageFileError(path, f"a file {kind}")
    try:
        with open_image(path):
            return None
    except ImageFileError as error:
        return error
    except OSError as error:
        return ImageFileError(path, f"a file that cannot be read ({error.strerror or error})")


def _broken_links(folder: Path) -> list[ImageFileError]:
    """Return errors about broken links beside the class folders: each may be a missing class."""
    expected = "a folder for each class"
    links = ((path, broken_link(path)) for path in _visible(folder))
    return [ImageFileError(path, found, expected, MEND) for path, found in links if found]


# --- Errors -------------------------------------------------------------------------------------


def _named(names: Iterable[str]) -> str:
    return listed(names, NAMED, COUNTED)


def _not_images(folder: Path, wrong: list[ImageFileError]) -> DataError:
    """Return one error about all files in the class folders that are not images."""
    if len(wrong) == 1:
        return wrong[0]
    lines = [
        f"  {error.path.relative_to(folder)}: {error.found}"
        + (f"; {error.advice}" if error.advice != CONVERT else "")
        for error in wrong[:LISTED]
    ]
    if len(wrong) > LISTED:
        lines.append(f"  and {len(wrong) - LISTED:,} more")
    return DataError(
        f"{folder}: expected only {FORMATS} images in the class folders, found "
        f"{len(wrong):,} other files; convert or remove them:\n" + "\n".join(lines)
    )


def _too_few_classes(folder: Path, names: list[str]) -> DataError:
    found = ", ".join(names) or "none"
    images = sum(map(_looks_like_an_image, _visible(folder)))
    if images and not names:
        found = f"{images:,} images but no folder"
    cifar = [path.name for path in _visible(folder) if path.name.startswith("data_batch_")]
    hint = f"put images into {folder / 'CLASS' / 'NAME.png'}"
    if cifar:
        hint = f"for CIFAR-10, use data={f'cifar10:{folder}'!r}"
    elif is_cifar100(folder):
        hint = f"this is CIFAR-100, which is not supported; {hint}"
    return DataError(
        f"{folder}: expected at least two folders, one for each class, found {found}; {hint}"
    )


def _at_another_level(root: Path, too_deep: list[Path]) -> DataError:
    """Return the error about class folders that contain folders, with advice on the right level."""
    first = next((folder for folder in too_deep if folder.name in PARTS["train"]), too_deep[0])
    inside = [folder.name for folder in _folders(first)]
    are_parts = all(any(name.lower() in names for names in PARTS.values()) for name in inside)
    if are_parts and len(too_deep) > 1:
        advice = (
            f"put the class folders into the split folders, as in {root / inside[0] / first.name}"
        )
    elif len(inside) > 1:
        advice = f"to use these as the classes, pass {_as_data(first)}"
    else:
        advice = f"move the files in {first / inside[0]} to {first}"
    return DataError(
        f"{root}: expected one folder per class, with the images directly in it, found folders in "
        f"{first.relative_to(root)}: {_named(inside)}; {advice}"
    )


def _as_data(folder: Path) -> str:
    return f"data={f'folder:{folder}'!r}"
