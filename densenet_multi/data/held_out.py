"""Choose images to test a trained network with that it was not trained on.

Published data are split already, and so is a folder with parts (train, val, test). For any other
folder, a network that was trained on it is tested with the fifth that was held out, and any other
network with all images. To tell them apart, weights record a few of their training images.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from .._checks import Checked, check_seed, one_of, truth
from ..checkpoint import Usage, check_usage
from .examples import Examples, Together
from .folder import Folder, find_folder, recognized
from .images import DataError, Preparation
from .sources import find, load_data, preparation

SPLITS = ("test", "train", "all")


@dataclass(frozen=True)
class HeldOut(Checked):
    """Images to test a trained network with.

    Attributes:
        split: the chosen split: "test", "train" or "all".
        examples: the images and their labels.
        train: examples to recompute running statistics with: the training images of the same data,
            or ``examples`` if there are none.
        class_names: one name for each label, in order.
        where: the place where the images were found, for the user.
        notes: sentences for the user: what was chosen, why, and what makes the results too good.
    """

    split: str
    examples: Examples
    train: Examples
    class_names: tuple[str, ...]
    where: str
    notes: tuple[str, ...] = ()


def load_held_out(
    name: str,
    *,
    image_size: int,
    in_channels: int | None = None,
    usage: Usage | None = None,
    data_dir: str | Path | None = None,
    seed: int | None = None,
    split: str | None = None,
    with_train: bool = False,
) -> HeldOut:
    """Find a data set by name, and choose the images to test a trained network with.

    Raises ``ConfigError`` for an unknown split, ``DataError`` if the data do not have it; otherwise
    as ``load_data``.

    Arguments:
        name: as for ``load_data``.
        image_size: as for ``load_data``.
        in_channels: as for ``load_data``.
        usage: as for ``load_data``; it also records what the network was trained on.
        data_dir: as for ``load_data``.
        seed: splits a folder without parts, and makes "test" the default split; None uses the seed
            of the usage, or 0.
        split: "test", the images held out; "train", the others; "all", both. None means "test", but
            "all" for a folder without parts that the network was not trained on.
        with_train: whether ``train`` is needed; if not, it may be the same as ``examples``.

    >>> from densenet_multi import data
    >>> len(data.load_held_out("sample", image_size=32).examples)
    1000
    """
    if split is not None:
        one_of("split", split, SPLITS)
    if seed is not None:
        seed = check_seed(seed)
    truth("with_train", with_train)
    kind, path = find(name)
    usage = Usage() if usage is None else check_usage(usage)
    if kind == "folder":
        prepare = preparation(name, data_dir, image_size, in_channels, usage)
        folder = find_folder(path)
        if folder.parts:
            chosen = _of_parts(folder, prepare, usage, split or "test", with_train=with_train)
            unused = f"{folder.root}: seed={seed} is not used: this folder is split already"
            return chosen if seed is None else replace(chosen, notes=(*chosen.notes, unused))
        return _of_one(folder, prepare, usage, split, seed, with_train=with_train)
    data = load_data(
        name, image_size=image_size, in_channels=in_channels, usage=usage, data_dir=data_dir
    )
    examples: dict[str, Examples] = {"train": data.train, "test": data.test}
    examples["all"] = Together((data.train, data.test))
    split = split or "test"
    return HeldOut(split, examples[split], data.train, data.class_names, data.where)


def _of_parts(
    folder: Folder, prepare: Preparation, usage: Usage, split: str, *, with_train: bool
) -> HeldOut:
    """Choose from a folder with parts: "test" is its part test, or val if it has no test."""
    found = {part: path.name for part, path in folder.parts.items()}
    wanted = {"train": ["train"], "test": ["test", "val"], "all": list(found)}[split]
    present = [part for part in wanted if part in found]
    if not present:
        raise DataError(
            f"{folder.root}: expected a folder {' or '.join(wanted)}, found "
            f"{', '.join(found.values())}; to use all images, pass split='all'"
        )
    if split == "test":
        present = present[:1]
    parts = {part: folder.read(prepare, part) for part in present}
    examples = Together(tuple(parts.values())) if len(parts) > 1 else parts[present[0]]
    train: Examples = parts.get("train", examples)
    if with_train and "train" in found and "train" not in parts:
        train = folder.read(prepare, "train")
    note = f"{_counted(folder, examples)} from {', '.join(found[part] for part in present)}"
    if present == ["val"] and split == "test":
        note += "; there is no folder test"
    paths = [path for images in parts.values() for path in images.paths]
    notes = [note, *([] if split == "train" else _too_good(usage, _known(usage, paths)))]
    return HeldOut(split, examples, train, folder.classes, str(folder.root), tuple(notes))


def _of_one(
    folder: Folder,
    prepare: Preparation,
    usage: Usage,
    split: str | None,
    seed: int | None,
    *,
    with_train: bool,
) -> HeldOut:
    """Choose from any other folder: all images, or those of a split."""
    images = folder.read(prepare)
    known = _known(usage, images.paths)
    why = "as requested"
    if split is None:
        split, why = _decided(usage, len(known), seed, with_train=with_train)
    first = usage.split_seed
    seed = (first or 0) if seed is None else seed
    examples = train = images
    if split != "all":
        train, apart = folder.split(images, seed)
        examples = {"train": train, "test": apart}[split]
    notes = [f"{_counted(folder, examples)} of {len(images):,}, {why}"]
    if split == "all":
        notes = [f"{_counted(folder, examples)}, all of them, {why}"]
    if split != "train":
        notes += _too_good(usage, [path for path in examples.paths if path in known])
    if split == "test" and usage.trained_on is None and first not in (None, seed):
        notes.append(
            f"the network was trained on a folder split with seed {first}; if this is that folder, "
            f"seed {seed} puts some of its training images into the test images"
        )
    return HeldOut(split, examples, train, folder.classes, str(folder.root), tuple(notes))


def _decided(usage: Usage, known: int, seed: int | None, *, with_train: bool) -> tuple[str, str]:
    """The default split of a folder without parts, and the reason for it."""
    recorded = len(usage.trained_on or ())
    if seed is not None:
        return "test", f"the fifth of each class that seed {seed} holds out"
    if with_train:
        return "test", "a fifth of each class; the others are for recomputing running statistics"
    if recorded and 2 * known < recorded:
        return "all", "since the network was not trained on this folder"
    if usage.split_seed is None:
        why = "it was trained on all of this folder" if recorded else "its file records no folder"
        return "all", f"since no images were held out in training: {why}"
    if recorded:
        return "test", "the fifth of each class that was held out when the network was trained"
    return "test", (
        f"the fifth of each class that seed {usage.split_seed} holds out, as in training; the file "
        "does not record the training folder: if this is another one, pass split='all'"
    )


def _known(usage: Usage, paths: Iterable[Path]) -> set[Path]:
    """The files that were recorded as training images of the network."""
    return set(recognized(paths, usage.trained_on or ()))


def _too_good(usage: Usage, known: Collection[Path]) -> list[str]:
    """A warning if the network was trained on any of these images; otherwise []."""
    if not known:
        return []
    found = f"{len(known)} of the {len(usage.trained_on or ())} recorded ones"
    better = "the results are better than for images that it has not seen"
    return [f"the network was trained on some of these images ({found}): {better}"]


def _counted(folder: Folder, examples: Examples) -> str:
    return f"{folder.root}: testing with {len(examples):,} images"
