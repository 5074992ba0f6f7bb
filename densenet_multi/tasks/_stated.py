"""Validate the user's values for pixels and classes, which override those of the file."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._checks import ConfigError, items, listed
from .._files import as_path, quoted, read_file
from ..checkpoint import PIXELS, Checkpoint, names_in_order
from ..manifest import min_image_size

ClassNames = Sequence[str] | str | os.PathLike[str]

LARGEST_LIST = 2**20  # the maximum bytes of a file of class names
EXPECTED = "expected names separated by commas, or a file with one name per line"
LISTS = (".txt", ".json", ".csv")  # suffixes of files, not of class names


def with_stated_pixels(checkpoint: Checkpoint, **stated: Any) -> Checkpoint:
    """Return the checkpoint with the stated image preprocessing; see ``Usage.stating``.

    Raises ``ConfigError`` if the values contradict each other or do not fit the network.

    Arguments:
        checkpoint: the network.
        stated: ``mean``, ``std``, ``value_range``, ``image_size``; None leaves a value unchanged.
    """
    before = checkpoint.usage
    usage = before.stating(**stated).fits(checkpoint.spec)
    least = min_image_size(checkpoint.spec)
    if stated.get("image_size") is not None and stated["image_size"] < least:
        raise ConfigError(
            f"image_size: expected at least {least} pixels per side, the minimum for this network; "
            f"found {stated['image_size']}"
        )
    given = [name for name in ("mean", "std") if stated.get(name) is not None]
    for name, other in (("mean", "std"), ("std", "mean")):
        if name in given and getattr(usage, other) is None:
            raise ConfigError(f"{name}: expected {other}= as well, found none")
    low, high = usage.value_range or (0, 1)
    if "mean" in given and not all(low <= value <= high for value in usage.mean or ()):
        raise ConfigError(
            f"mean: expected numbers from {low:g} to {high:g}, the range of the pixels; found "
            f"{listed(usage.mean or ())}; for pixels in another range, add value_range="
        )
    if "std" in given and not all(value > (high - low) / 255 for value in usage.std or ()):
        raise ConfigError(
            f"std: expected numbers above {(high - low) / 255:g}, one gray level of pixels from "
            f"{low:g} to {high:g}; found {listed(usage.std or ())}; for pixels in another range, "
            "add value_range="
        )
    dropped = [n for n in PIXELS if getattr(before, n) is not None and getattr(usage, n) is None]
    note = f"the usual {' and '.join(dropped)} were dropped, because value_range is given"
    notes = (*checkpoint.notes, note) if dropped else checkpoint.notes
    return replace(checkpoint, usage=usage, notes=notes)


def with_outputs(
    checkpoint: Checkpoint, class_names: ClassNames | None, activation: str | None
) -> Checkpoint:
    """Return the checkpoint with the stated class names and activation; None changes nothing.

    Raises ``ConfigError`` if they do not fit the network; otherwise as ``read_class_names``.
    """
    outputs = checkpoint.spec.config.num_classes
    for name, given in (("class_names", class_names), ("activation", activation)):
        if given is not None and not outputs:
            raise ConfigError(f"{name}: expected a network with a classifier, found one without")
    if outputs == 1 and activation == "softmax":
        raise ConfigError(
            "activation: expected 'sigmoid' or 'none' for a network with one output, since its "
            "softmax is always 1; found 'softmax'"
        )
    names = None if class_names is None else read_class_names(class_names, outputs)
    usage = checkpoint.usage.stating(class_names=names, activation=activation)
    return replace(checkpoint, usage=usage.fits(checkpoint.spec))


def read_class_names(given: ClassNames, outputs: int) -> tuple[str, ...]:
    """Return class names from a list, a file or a comma-separated string.

    A text file has one name per line. If each line starts with its number (from 0), the numbers are
    removed. A JSON file contains a list of names, {name: index} (PyTorch's ``class_to_idx``, Keras'
    ``class_indices``) or {index: name} (``id2label``). It may also be a ``config.json`` with an
    ``id2label``, or Keras' ``imagenet_class_index.json``. A string without a comma is a path. For a
    network with one output, it is a name, unless the file exists or the string looks like a path.

    Raises ``ConfigError`` if a file does not exist, or if a name is empty or occurs twice;
    ``OSError`` if the file cannot be read.

    Arguments:
        given: the list, path or string.
        outputs: number of outputs of the network.
    """
    if not isinstance(given, str | os.PathLike):
        allowed = "a list of names in the order of the outputs"
        names: list[Any] = list(items("class_names", given, allowed))
    elif isinstance(given, str) and not given.strip():
        raise ConfigError(f"class_names: {EXPECTED}; found an empty string")
    elif (
        as_path(given, "class_names").is_file()
        or not isinstance(given, str)
        or _is_path(given, outputs)
    ):
        names = _names_in(Path(given))
    else:
        names = [name.strip() for name in given.split(",")]
    for number, name in enumerate(names, 1):
        if not isinstance(name, str) or not name:
            raise ConfigError(f"class_names: expected names, found {name!r} as name {number}")
    if twice := [name for at, name in enumerate(names) if name in set(names[:at])]:
        found = listed(map(repr, twice))
        raise ConfigError(f"class_names: expected unique names, found {found} more than once")
    return tuple(names)


def _is_path(text: str, outputs: int) -> bool:
    return "," not in text and (outputs != 1 or os.sep in text or text.endswith(LISTS))


def _names_in(path: Path) -> list[Any]:
    def error(text: str) -> ConfigError:
        return ConfigError(f"class_names: {text}")

    try:
        content = read_file(path, LARGEST_LIST, error, "use a file with one name per line")
    except (FileNotFoundError, NotADirectoryError):
        raise error(f"{EXPECTED}; found no file {str(path)!r}") from None
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        is_wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        command = f"iconv -f {'UTF-16' if is_wide else 'LATIN1'} -t UTF-8 {quoted(path)} > NEW.txt"
        raise ConfigError(
            f"class_names: expected UTF-8 text, found another encoding in {path}; type: {command}"
        ) from None
    if text.lstrip()[:1] in ("{", "["):
        return _names_in_json(path, text)
    lines = [line.strip() for line in text.rstrip().split("\n")]
    if "" in lines:
        where = f"line {lines.index('') + 1} of {path}"
        raise ConfigError(f"class_names: expected a name in each line, found none in {where}")
    parts = [[*line.split(maxsplit=1), ""] for line in lines]
    names = [part[1].lstrip("-:. ") for part in parts]  # "0 - zero", as in MNIST
    is_numbered = len(lines) > 1 and [part[0] for part in parts] == [
        str(i) for i in range(len(lines))
    ]
    return names if is_numbered and all(names) else lines


def _is_of_imagenet(value: Any) -> bool:
    """Return whether this is a pair of WordNet ID and name, such as ["n01440764", "tench"]."""
    is_pair = isinstance(value, list) and list(map(type, value)) == [str, str]
    return is_pair and value[0].startswith("n")


def _names_in_json(path: Path, text: str) -> list[Any]:
    found = None
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
    if isinstance(found, dict) and isinstance(found.get("id2label"), dict):
        found = found["id2label"]
    if isinstance(found, dict) and all(map(_is_of_imagenet, found.values())):
        counts = Counter(name for _, name in found.values())  # two are named "crane"
        found = {
            index: f"{name} ({wordnet})" if counts[name] > 1 else name
            for index, (wordnet, name) in found.items()
        }
    names = found if isinstance(found, list) else names_in_order(found)
    if names is None:
        raise ConfigError(
            f"class_names: expected JSON with a list of names, {{name: index}} or {{index: name}}, "
            f"with indices starting at 0; found something else in {path}"
        )
    return names
