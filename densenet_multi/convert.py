"""Turn a checkpoint of one format into one of another, and say what a checkpoint is."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import formats
from .data import Preparation, load_sample, to_input
from .formats.recognize import variant_name
from .manifest import count_parameters, min_image_size
from .portable import Checkpoint
from .report import TOLERANCES, deviation

VERIFIED_IMAGES = 4


class ConversionError(ValueError):
    """A converted file does not answer as its source does; nothing was written."""


def convert(
    source: Path,
    destination: Path,
    source_format: str | None = None,
    destination_format: str | None = None,
    *,
    variant: str | None = None,
    num_classes: int | None = None,
    verify: bool = False,
) -> dict[str, Any]:
    """Read one file, write another, both in any of ``formats.FORMATS``.

    Arguments:
        source: a file, or an Orbax folder.
        destination: the same; replaced if it exists.
        source_format: by default the content decides.
        destination_format: by default the name decides.
        variant: where names and shapes shall not decide.
        num_classes: replaces the classifier by a new one, for transfer learning.
        verify: run the models of both files on the same images before the file gets its name.

    Returns what was done, as plain values: ``from``, ``to``, ``variant``, ``notes`` and, verified,
    ``max_deviation`` and who calculated.

    Raises ``ConversionError`` above the tolerance of ``report.TOLERANCES``, and as
    ``formats.read`` and ``formats.write``. The destination is complete or as it was.
    """
    source_format = source_format or formats.guess(source)
    destination_format = destination_format or formats.guess_from_name(destination)
    checkpoint = formats.read(source, source_format, variant=variant)
    if num_classes is not None:
        checkpoint = formats.with_classes(checkpoint, num_classes)
    done: dict[str, Any] = {
        "from": source_format,
        "to": destination_format,
        "variant": variant_name(checkpoint.spec.config),
    }
    if not verify:
        notes = formats.write(destination, checkpoint, destination_format)
        return {**done, "notes": [*checkpoint.notes, *notes]}
    # a source whose classifier was replaced has none like the new one to ask
    asked_as = source_format if num_classes is None else "portable"
    where = destination.resolve().parent
    with tempfile.TemporaryDirectory(prefix=f".{destination.name}.", dir=where) as folder:
        written = Path(folder, destination.name)
        notes = formats.write(written, checkpoint, destination_format)
        images = verification_images(checkpoint)
        expected, asked = formats.logits(source, asked_as, checkpoint, images)
        back = formats.read(written, destination_format, bn_eps=checkpoint.spec.config.bn_eps)
        actual, answered = formats.logits(written, destination_format, back, images)
        value = deviation(actual, expected)
        tolerance = TOLERANCES["float32"]
        if value > tolerance:
            raise ConversionError(
                f"{destination}: expected the logits of the source up to {tolerance:.0e}, found a "
                f"deviation of {value:.1e} ({asked} against {answered}); not written. "
                + " ".join(f"Note: {note}." for note in (*checkpoint.notes, *notes))
            )
        if destination.is_dir() and written.is_dir():
            shutil.rmtree(destination)
        written.replace(destination)
    verified = {"max_deviation": value, "source_model": asked, "destination_model": answered}
    size = f"{images.shape[2]}x{images.shape[3]}"
    return {**done, "notes": [*checkpoint.notes, *notes], **verified, "image_size": size}


def verification_images(checkpoint: Checkpoint) -> npt.NDArray[np.float32]:
    """A few real images (N, C, S, S), gray repeated over the channels, normalised as is usual.

    S is the image size of the checkpoint's usage, or what its stem is made for.
    """
    config, usage = checkpoint.spec.config, checkpoint.usage
    size = usage.image_size or (224 if config.stem == "imagenet" else 32)
    size = max(size, min_image_size(checkpoint.spec))
    prepare = Preparation(size, config.in_channels, usage)
    return prepare(to_input(load_sample("test")[0][:VERIFIED_IMAGES]))


def inspect(path: Path, file_format: str | None = None) -> dict[str, Any]:
    """What a checkpoint is, as plain values. Raises as ``formats.read``."""
    name = file_format or formats.guess(path)
    checkpoint = formats.read(path, name)
    counts = count_parameters(checkpoint.spec)
    return {
        "path": str(path),
        "format": name,
        "is": formats.FORMATS[name][1],
        "variant": variant_name(checkpoint.spec.config),
        "trainable": counts.trainable,
        "statistics": counts.statistics,
        "dtype": str(checkpoint.weights["features.conv0.weight"].dtype),
        "config": asdict(checkpoint.spec.config),
        "usage": asdict(checkpoint.usage),
        "notes": list(checkpoint.notes),
    }
