"""Choose test images that a trained network has not seen in training.

Published data already have splits, and so does a folder with folders train, val and test. On any
other folder, a network trained on it is tested with the held-out fifth, and any other network with
all images. To tell these cases apart, a weights file records fingerprints of training images.
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
    """Images for testing a trained network.

    Attributes:
        split: the chosen split: "test", "train" or "all".
        examples: the images and their labels.
        train: examples for recomputing BatchNorm running statistics: the training images of the
            same data, or ``examples`` if there are none.
        class_names: one name for each label, in order.
        where: the place where the images were found, as shown to the user.
        notes: sentences for the user: what was chosen, why, and what biases the results upward.
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
    """Find a data set by name, and choose the images for testing a trained network.

    Raises ``ConfigError`` for an unknown split, ``DataError`` if the data lack the requested
    split; otherwise the same errors as ``load_data``.

    Arguments:
        name: as for ``load_data``.
        image_size: as for ``load_data``.
        in_channels: as for ``load_data``.
        usage: as for ``load_data``; it also records which images the network was trained on.
        data_dir: as for ``load_data``.
        seed: selects the test images of a folder without split folders; None means
            ``usage.split_seed``, or 0. If a seed is given, ``split`` is "test" by default.
        split: "test", the held-out images; "train", the other images; "all", both. None means
            "test", or "all" if training held out none of the folder's images.
        with_train: whether the result's ``train`` is needed; if False, ``train`` may be the same
            object as ``examples``.

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
            unused = f"{folder.root}: seed={seed} is not used: this folder already has splits"
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
    """Choose from a folder with split folders; "test" is its test split, or else its val split."""
    found = {part: path.name for part, path in folder.parts.items()}
    wanted = {"train": ["train"], "test": ["test", "val"], "all": list(found)}[split]
    present = [part for part in wanted if part in found]
    if not present:
        raise DataError(
            f"{folder.root}: expected a folder named {' or '.join(wanted)}, found "
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
        note += "; there is no test folder"
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
    """Choose from any other folder: all images, or those of one split."""
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
            f"the network was trained on a folder split with seed {first}; if it was this folder, "
            f"seed {seed} moves some of the training images into the test images"
        )
    return HeldOut(split, examples, train, folder.classes, str(folder.root), tuple(notes))


def _decided(usage: Usage, known: int, seed: int | None, *, with_train: bool) -> tuple[str, str]:
    """Return the default split of a folder without split folders, and the reason for it."""
    recorded = len(usage.trained_on or ())
    if seed is not None:
        return "test", f"the fifth of each class that seed {seed} holds out"
    if with_train:
        return "test", "a fifth of each class; the rest is for recomputing running statistics"
    if recorded and 2 * known < recorded:
        return "all", "since the network was not trained on this folder"
    if usage.split_seed is None:
        why = "trained on all of this folder" if recorded else "the file records no training folder"
        return "all", f"since no images were held out in training: {why}"
    if recorded:
        return "test", "the fifth of each class that was held out when the network was trained"
    return "test", (
        f"the fifth of each class that seed {usage.split_seed} holds out, as in training; the file "
        "does not record the training folder: if it was another one, pass split='all'"
    )


def _known(usage: Usage, paths: Iterable[Path]) -> set[Path]:
    """Return the files that were recorded as training images of the network."""
    return set(recognized(paths, usage.trained_on or ()))


def _too_good(usage: Usage, known: Collection[Path]) -> list[str]:
    """Return a warning if the network was trained on any of these images; otherwise []."""
    if not known:
        return []
    found = f"{len(known)} of the {len(usage.trained_on or ())} recorded images"
    better = "the results are better than on unseen images"
    return [f"the network was trained on some of these images ({found}): {better}"]


def _counted(folder: Folder, examples: Examples) -> str:
    return f"{folder.root}: testing with {len(examples):,} images"
