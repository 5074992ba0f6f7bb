"""Find text in a Keras file: layer names, and the declaration of a complete model."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from ...weights import WeightsError
from .._hdf5 import CONFIG, MAGIC, WEIGHTS, is_keras, member, opened, walk

LARGEST_TEXT = 2**25  # bytes of a declaration; densenet264's has 0.7 million
MOST_TRIED = 2**26  # total bytes of an HDF5 file's strings that may be the declaration
STARTS = (b'{"class_name"', b'{"config"', b'{"module"')  # before Python 3.7, keys had no order
COMPILED = (b'{"loss"', b'{"optimizer_config"')
BEGINNING = re.compile(b"|".join(map(re.escape, (*STARTS, *COMPILED))))


def declaration(path: Path) -> Any | None:
    """Return a complete model's declaration, which is JSON; None for a weights-only file.

    Raises ``WeightsError`` if the declaration is damaged.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    try:
        if is_zip:
            return _model_in(json.loads(member(path, CONFIG, LARGEST_TEXT)))
        with opened(path) as (opened_file, _):
            if "model_config" not in opened_file.attrs:
                return None
        with _bytes_of(path) as texts:
            return _json_in(texts)
    except WeightsError:
        raise
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"expected a model's declaration, found damaged JSON ({error})"
        ) from None


def _model_in(found: Any) -> Any | None:
    """Return the declaration; None for other JSON, such as a user's own notes beside weights."""
    return found if isinstance(found, dict) and {"class_name", "config"} <= found.keys() else None


def _json_in(texts: mmap.mmap) -> Any:
    """Return the declaration in an HDF5 file's bytes, with the settings of ``compile``.

    The HDF5 library is not used, because it can hang or crash on the text of a damaged file.
    """
    found = list(_texts_in(texts))
    models = [each for start, each in found if start in STARTS and _model_in(each)]
    if not models:
        raise ValueError("the attribute model_config has no text")
    if any(each != models[0] for each in models):
        raise WeightsError(
            f"expected one model declaration, found {len(models)} that differ; load the model with "
            "Keras and save it again, as .keras"
        )
    compiled = [each for start, each in found if start in COMPILED]
    return models[0] | ({"compile_config": compiled[0]} if len(compiled) == 1 else {})


def _texts_in(texts: mmap.mmap) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield (start, JSON) of each contiguous, length-prefixed string in an HDF5 file."""
    tried, looked = 0, 0
    while match := BEGINNING.search(texts, looked):  # one pass over a large file
        start, at, looked = match[0], match.start(), match.end()
        length = int.from_bytes(texts[max(at - 8, 0) : at], "little")
        if not len(start) < length <= min(len(texts) - at, LARGEST_TEXT):
            continue
        if (tried := tried + length) > MOST_TRIED:
            raise WeightsError("expected one model declaration, found too many candidates")
        with suppress(ValueError):
            text = json.loads(texts[at : at + length].rstrip(b"\0"))
            looked = at + length  # skip the objects inside it
            yield start, text


def _bytes_of(path: Path) -> Any:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def names_in(path: Path, head: bytes, names: Iterable[bytes]) -> set[bytes]:
    """Return the names that occur in the declaration of a ``.keras`` file, or in an HDF5 file.

    Raises ``WeightsError`` if a ``.keras`` file is damaged.
    """
    if head.startswith(MAGIC):
        with _bytes_of(path) as texts:
            return {name for name in names if texts.find(name) >= 0}
    config = member(path, CONFIG, LARGEST_TEXT) if is_keras(path, head) else b""
    return {name for name in names if name in config}


def has_layers_called(path: Path, names: Iterable[Sequence[bytes]]) -> bool:
    """Return whether a weights file, plain or in a ``.keras`` archive, has a name of each layer.

    Keras writes layers in order, so each search starts after the previous name. A failed search
    reads the complete file.

    Arguments:
        path: the file.
        names: for each layer, its possible names, the most common first.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    with nullcontext(member(path, WEIGHTS)) if is_zip else _bytes_of(path) as texts:
        at = 0
        for each in names:
            tries = (texts.find(name, start) for start in (at, 0) for name in each)
            at = next((place for place in tries if place >= 0), -1)
            if at < 0:
                return False
    return True


def layers_have_names(path: Path) -> bool:
    """Return whether a weights-only file stores its layers' names."""
    with opened(path) as (file, _):
        if "layer_names" in file.attrs or "model_weights" in file:
            return True
        groups = (item for place, item in walk(file) if place.endswith("/vars"))
        return any("name" in group.attrs for group in groups)
