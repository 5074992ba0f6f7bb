"""Which images a trained network is tested with: those that it was not trained on.

Published data are split already, and so is a folder with parts (train, val, test). Any other folder
is looked at: a network that was trained on it is tested with the fifth that was set apart, one that
was not, with all images. A file of weights records a few of the images that it was trained on.
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
        split: "test", "train" or "all": what was chosen.
        examples: the images and their labels.
        train: those to recompute statistics with: the training images of the same data; of those
            without any, the same images.
        class_names: one for each label, in order.
        where: the images were found, for the user.
        notes: what was chosen and why, and what makes the results too good: sentences for the user.
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
    """Find data by name, and choose those to test a trained network with.

    Raises ``ConfigError`` where there is no such split, ``DataError`` where these data do not have
    it, and as ``load_data``.

    Arguments:
        name: as for ``load_data``.
        image_size: the same.
        in_channels: the same.
        usage: the same; it also tells what the network was trained on.
        data_dir: the same.
        seed: splits a folder without parts, and so requests its test images; None is that of the
            usage, else 0.
        split: "test", the images set apart; "train", the others; "all", both. None is "test", but
            "all" for a folder without parts that the network was not trained on.
        with_train: whether ``train`` is needed; without, it may be the same as ``examples``.

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
            unused = f"{folder.root}: seed={seed} is for a folder without parts; not used"
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
    """Of a folder with parts: to test with, those of test, or of val without it."""
    found = {part: path.name for part, path in folder.parts.items()}
    wanted = {"train": ["train"], "test": ["test", "val"], "all": list(found)}[split]
    present = [part for part in wanted if part in found]
    if not present:
        raise DataError(
            f"{folder.root}: expected a folder {' or '.join(wanted)}, found "
            f"{', '.join(found.values())}; for the images of all: split='all'"
        )
    if split == "test":
        present = present[:1]
    parts = {part: folder.read(prepare, part) for part in present}
    examples = Together(tuple(parts.values())) if len(parts) > 1 else parts[present[0]]
    train: Examples = parts.get("train", examples)
    if with_train and "train" in found and "train" not in parts:
        train = folder.read(prepare, "train")
    note = f"{_counted(folder, examples)}, those of {', '.join(found[part] for part in present)}"
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
    """Of any other folder: all images, or those that its split sets apart."""
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
        notes = [f"{_counted(folder, examples)}, all that there are, {why}"]
    if split != "train":
        notes += _too_good(usage, [path for path in examples.paths if path in known])
    if split == "test" and usage.trained_on is None and first not in (None, seed):
        notes.append(
            f"the network was trained on a folder that seed {first} had split; with seed {seed} "
            "some of the same folder's test images are those it was trained on"
        )
    return HeldOut(split, examples, train, folder.classes, str(folder.root), tuple(notes))


def _decided(usage: Usage, known: int, seed: int | None, *, with_train: bool) -> tuple[str, str]:
    """The split of a folder without parts where none is requested, and why."""
    recorded = len(usage.trained_on or ())
    if seed is not None:
        return "test", f"the fifth of each class that seed {seed} sets apart"
    if with_train:
        return "test", "a fifth of each class; the others are those to recompute statistics with"
    if recorded and 2 * known < recorded:
        return "all", "as the network was not trained on this folder"
    if usage.split_seed is None:
        nothing = "it was trained on all of this folder" if recorded else "the file names no folder"
        return "all", f"as nothing was set apart when the network was trained: {nothing}"
    if recorded:
        return "test", "the fifth of each class that was set apart when the network was trained"
    return "test", (
        f"the fifth of each class that seed {usage.split_seed} sets apart, as in training: the "
        "file does not record on which folder that was; for all images of another one: split='all'"
    )


def _known(usage: Usage, paths: Iterable[Path]) -> set[Path]:
    """Those of these files that were recorded when the network was trained."""
    return set(recognized(paths, usage.trained_on or ()))


def _too_good(usage: Usage, known: Collection[Path]) -> list[str]:
    """A sentence about images that the network was trained on, if there are any."""
    if not known:
        return []
    found = f"{len(known)} are among the {len(usage.trained_on or ())} that were recorded then"
    better = "the results are better than for images that it has not seen"
    return [f"the network was trained on some of these images ({found}): {better}"]


def _counted(folder: Folder, examples: Examples) -> str:
    return f"{folder.root}: testing with {len(examples):,} images"
