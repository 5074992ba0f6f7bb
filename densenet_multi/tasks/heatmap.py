"""Draw where a network sees a class: its class activation map over the classified picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import COUNTED, ConfigError, bad, listed, nearest, text
from .._files import as_path, replace_file
from .._heatmap import over
from ..checkpoint import Checkpoint
from ..class_maps import check_averaging, class_activation_map
from ..data.images import read_image

Floats = npt.NDArray[np.floating[Any]]

ENDING = ".png"
NAMED = 20  # class names in an error


def check_heatmap(
    heatmap: str | Path | None, class_name: str | None, path: Path, images: Sequence[Path]
) -> Path | None:
    """Return the path to draw to, if any. Raises ``ConfigError`` for what cannot be drawn.

    Arguments:
        heatmap: a new PNG file, or None.
        class_name: see ``class_index``; only with a heatmap.
        path: the weights file, which is not replaced.
        images: the classified images, of which there must be one; it is not replaced either.
    """
    if heatmap is None:
        if class_name is not None:
            raise bad("class_name", class_name, "none without heatmap=")
        return None
    drawn = as_path(heatmap, "heatmap")
    if drawn.suffix.lower() != ENDING:
        raise bad("heatmap", str(drawn), f"a name that ends in {ENDING}")
    if len(images) != 1:
        raise ConfigError(
            f"heatmap: expected one image, found {len(images)}; draw one heatmap at a time"
        )
    for used in (path, *images):
        if drawn.exists() and used.exists() and drawn.samefile(used):
            raise ConfigError(
                f"heatmap: expected a new file, found {used}, which is read; choose another name"
            )
    return drawn


def check_network(path: Path, checkpoint: Checkpoint) -> None:
    """Raise ``ConfigError``, which names the file, for a network without exact heatmaps."""
    try:
        check_averaging(checkpoint.spec)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def class_index(given: str | None, names: Sequence[str]) -> int | None:
    """Return the index of the class with this name, or else with this number; None for None.

    Raises ``ConfigError`` if the network has no such class, or several of this name.
    """
    if given is None:
        return None
    found = [i for i, name in enumerate(names) if name == text("class_name", given)]
    if len(found) > 1:
        numbers = " and ".join(map(str, found))
        raise ConfigError(
            f"class_name: expected one class, found {given!r} as classes {numbers}; "
            f"type the number: class_name='{found[0]}'"
        )
    if found:
        return found[0]
    numbered = [str(i) for i in range(len(names))]
    if given in numbered:
        return numbered.index(given)
    hint = f"did you mean {near!r}? " if (near := nearest(given, names)) else ""
    raise ConfigError(
        f"class_name: expected a class of the network or its number, found {given!r}; "
        f"{hint}known: {listed(names, NAMED, COUNTED)}"
    )


def draw_heatmap(
    heatmap: Path,
    image: Path,
    checkpoint: Checkpoint,
    stages: Mapping[str, Floats],
    *,
    index: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Draw the map of a class over an image, atomically, and return the map as plain values.

    Arguments:
        heatmap: the file to write.
        image: the file of the image, which is drawn at its own size.
        checkpoint: the network.
        stages: the backend's ``features`` of this image alone.
        index: the class.
        say: called with a sentence if the map has a single pixel.

    Returns:
        ``file``, ``index``, ``map`` (a list of rows; see ``class_maps.class_activation_map``) and
        ``bias``: the mean of the map plus the bias is the logit.

    Raises ``DataError`` if the image cannot be read, ``OSError`` if the file cannot be written.
    """
    (values,) = class_activation_map(checkpoint.spec, checkpoint.weights, stages, index)
    if values.size == 1:
        say(
            f"{heatmap}: the network's last map has one pixel at this size, so the heatmap has one "
            "color; to see places, pass a larger image_size="
        )
    replace_file(heatmap, over(read_image(image, 1)[0], values))
    return {
        "file": str(heatmap),
        "index": index,
        "map": values.tolist(),
        "bias": float(checkpoint.weights["classifier.bias"][index]),
    }
