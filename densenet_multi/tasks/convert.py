"""Convert a checkpoint to another format, verify the result, and describe a checkpoint."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import formats
from .._checks import check_names, truth
from .._files import as_path, is_special, put_in_place, resolved
from .._inputs import check_images
from .._installed import not_installed
from ..backends import load_backend
from ..checkpoint import Checkpoint, check_checkpoint
from ..comparison.deviation import TOLERANCES, deviation
from ..data import Preparation, load_sample, to_input
from ..diagnosis import suspicion
from ..formats.onnx_file import describe
from ..formats.recognize import variant_name
from ..manifest import count_parameters, min_image_size
from ..reference import predict
from ..variants import VARIANTS
from ..weights import widest
from ._stated import ClassNames, with_outputs, with_stated_pixels

VERIFIED_IMAGES = 4
REFERENCE = "the NumPy reference"
NOT_INDEPENDENT = "compared only with this package's own code, not with an independent model"


class ConversionError(ValueError):
    """The converted model's logits differ from the source's; nothing was written."""


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    source_format: str | None = None,
    destination_format: str | None = None,
    *,
    variant: str | None = None,
    prefix: str | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    class_names: ClassNames | None = None,
    activation: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    value_range: Sequence[float] | None = None,
    image_size: int | None = None,
    verify: bool = False,
    probabilities: bool = False,
    folded: bool = False,
    half: bool = False,
) -> dict[str, Any]:
    """Convert a checkpoint between any two of ``formats.FORMATS``.

    Arguments about pixels and classes override what the source states or implies. A portable
    destination stores these values.

    Raises ``ConversionError`` if the logits deviate by more than ``TOLERANCES`` in
    comparison/deviation.py; ``FileExistsError`` if the destination is a folder, or a file that a
    new folder would replace; otherwise the same errors as ``formats.read`` and ``formats.write``.
    In every case the destination is either complete or unchanged.

    Arguments:
        source: as for ``formats.read``.
        destination: a file, overwritten if it exists; for "nnx", a new folder is possible too.
        source_format: detected from the content by default.
        destination_format: detected from the name by default.
        variant: overrides the variant detected from names and shapes.
        prefix: see ``formats.read``.
        num_classes: classes of a new classifier, for transfer learning; 0 removes it.
        in_channels: adapts the stem to this many channels: see ``formats.with_channels``.
        class_names: one per output; see ``read_class_names`` in _stated.py.
        activation: the activation to apply to the logits: see ``Usage``.
        mean: pixel mean for each channel of the source, within ``value_range``.
        std: standard deviation for each channel; the network's input is ``(pixels - mean) / std``.
        value_range: the range of pixels before ``mean`` and ``std``, if any, are applied.
        image_size: the image size that the network expects, in pixels per side.
        verify: compare both models' logits of the same images before writing ``destination``.
        probabilities: only for ONNX: apply the stated activation to the logits.
        folded: only for ONNX: fold each BatchNorm that follows a convolution into it.
        half: only for ONNX: store weights and compute in float16.

    Returns:
        A summary in plain values: ``from``, ``to``, ``variant``, ``activation`` (if known),
        ``notes``, ``assumed`` (see ``Checkpoint.unstated``) and, with ``verify``,
        ``max_deviation``, ``image_size``, ``source_model``, ``destination_model`` and ``verified``:
        whether code from outside this package computed the logits of the non-portable file.
    """
    truth("verify", verify)
    source, destination = as_path(source, "source"), as_path(destination, "destination")
    source_format = _format_of(source, source_format)
    destination_format = _free(destination, destination_format)
    options = formats.check_options(
        destination_format, {"probabilities": probabilities, "folded": folded, "half": half}
    )
    original = with_stated_pixels(
        formats.read(source, source_format, variant=variant, prefix=prefix),
        mean=mean,
        std=std,
        value_range=value_range,
        image_size=image_size,
    )
    checkpoint = original
    if num_classes is not None:
        checkpoint = formats.with_classes(checkpoint, num_classes)
    if in_channels is not None:
        checkpoint = formats.with_channels(checkpoint, in_channels)
    checkpoint = with_outputs(checkpoint, class_names, activation)
    done: dict[str, Any] = {
        "from": source_format,
        "to": destination_format,
        "variant": variant_name(checkpoint.spec.config),
    }
    if checkpoint.usage.activation:
        done["activation"] = checkpoint.usage.activation
    told = {"assumed": [f"{what}: {value}" for what, value in checkpoint.unstated().items()]}
    if not verify:
        notes = formats.write(destination, checkpoint, destination_format, **options)
        return {**done, "notes": [*checkpoint.notes, *notes], **told}
    with _named_at_last(destination) as written:
        notes = formats.write(written, checkpoint, destination_format, **options)
        images = verification_images(checkpoint)
        before, expected, asked, independent, more = _source_logits(
            source,
            source_format,
            original,
            checkpoint,
            images,
            new_classifier=num_classes is not None,
        )
        notes += more
        exact = not (folded or half)  # weights that were folded or rounded cannot be read again
        epsilon = checkpoint.spec.config.bn_eps
        back = formats.read(written, destination_format, bn_eps=epsilon) if exact else checkpoint
        actual, answered, confirmed = logits(written, destination_format, back, images)
        if not (exact or confirmed):
            user = f"{'folded' if folded else 'half'} with verify=True"
            raise not_installed("onnx", "onnxruntime", user)
        value = max(before, deviation(actual, expected))
        tolerance = TOLERANCES["float16" if half else "float32"]
        if value > tolerance:
            raise ConversionError(
                f"{destination}: expected the source's logits to within {tolerance:.0e}, found a "
                f"deviation of {value:.1e} ({asked} against {answered}); not written. "
                + _suspects(checkpoint, images, {asked: expected, answered: actual})
                + " ".join(f"Note: {note}." for note in (*checkpoint.notes, *notes))
            )
    if np.ptp(expected, axis=0).max() <= tolerance * np.abs(expected).max():
        notes = (*notes, "all images produce the same logits, so this verification proves little")
    if source_format == "portable":  # this package's own format
        independent = confirmed or destination_format == "portable"
    if not independent:
        notes = (*notes, NOT_INDEPENDENT + _absent(source_format, destination_format))
    verified = {
        "max_deviation": value,
        "source_model": asked,
        "destination_model": answered,
        "verified": independent,
    }
    size = f"{images.shape[2]}x{images.shape[3]}"
    return {**done, "notes": [*checkpoint.notes, *notes], **told, **verified, "image_size": size}


def _source_logits(
    source: Path,
    source_format: str,
    original: Checkpoint,
    checkpoint: Checkpoint,
    images: npt.NDArray[np.float32],
    *,
    new_classifier: bool,
) -> tuple[float, npt.NDArray[np.floating], str, bool, tuple[str, ...]]:
    """Return what the destination's logits must be, and where they come from.

    Returns the deviation of the reference's logits from the source's, before the classifier or the
    channels were changed; the logits; the models that computed them; whether one is independent
    of this package; and notes.
    """
    own_images = verification_images(original)
    expected, asked, independent = logits(source, source_format, original, own_images)
    changed = ["classifier"] if new_classifier else []
    if checkpoint.spec.config.in_channels != original.spec.config.in_channels:
        changed.append("channels")
    if not changed:
        return 0.0, expected, asked, independent, ()
    # the reference computes logits before and after the change
    own = predict(original.spec, original.weights, own_images)
    new = predict(checkpoint.spec, checkpoint.weights, images)
    asked = f"{asked} (original {' and '.join(changed)}), {REFERENCE} (original and new)"
    notes: tuple[str, ...] = ()
    if not new_classifier:
        kept = f"{deviation(new, own):.1e}"
        notes = (f"logits of gray images deviate from the source's by {kept}",)
    return deviation(own, expected), new, asked, independent, notes


def _suspects(
    checkpoint: Checkpoint,
    images: npt.NDArray[np.float32],
    answers: dict[str, npt.NDArray[np.floating]],
) -> str:
    """Return sentences that name the conventions which models break, as far as they are known."""
    spec, weights = checkpoint.spec, checkpoint.weights
    found = {who: suspicion(spec, weights, images, answer) for who, answer in answers.items()}
    return "".join(f"Suspect in {who}: {what} " for who, what in found.items() if what)


def _absent(*names: str) -> str:
    """Return the end of a note: which libraries to install to verify these formats."""
    libraries = {getattr(formats.module(name), "LIBRARY", None) for name in names} - {None}
    absent = sorted(str(each) for each in libraries if find_spec(str(each)) is None)
    return "".join(f"; install {name} to compare with its own model" for name in absent)


def _format_of(source: Path, file_format: str | None) -> str:
    """Return the given format of a source, or else detect it from the content."""
    return formats.guess(source, "source_format") if file_format is None else file_format


def _free(destination: Path, file_format: str | None) -> str:
    """Return the given format, or else detect it from the name; raise if the name is taken."""
    if file_format is None:
        file_format = formats.guess_from_name(destination, "destination_format")
    check_names("format", [file_format], formats.FORMATS)
    becomes_folder = file_format == "nnx" and not destination.name.endswith(".safetensors")
    if destination.is_dir() or (becomes_folder and destination.exists()):
        found = "folder" if destination.is_dir() else "file"
        raise FileExistsError(f"{destination}: expected a new name, found a {found} of this name")
    return file_format


PREFIX = ".densenet_multi."


@contextmanager
def _named_at_last(destination: Path) -> Iterator[Path]:
    """Yield a temporary path; on success, move what was written there to ``destination``.

    A symbolic link stays a link; a device or pipe is written to. Errors name ``destination``.
    """
    to_device = is_special(destination)
    target = destination if to_device else resolved(destination)
    written = Path()
    try:
        where = None if to_device else target.parent
        with tempfile.TemporaryDirectory(prefix=PREFIX, dir=where) as folder:
            written = Path(folder, destination.name)
            yield written
            if to_device:
                target.write_bytes(written.read_bytes())
            else:
                put_in_place(written, target)
    except OSError as error:
        if PREFIX not in str(error):
            raise
        if error.errno is None:
            raise type(error)(str(error).replace(str(written), str(destination))) from None
        raise type(error)(error.errno, error.strerror, str(destination)) from None
    except ValueError as error:
        text = str(error).replace(str(written), str(destination))
        raise (type(error)(text) if text != str(error) else error) from None


def logits(
    path: Path, file_format: str, checkpoint: Checkpoint, images: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.floating], str, bool]:
    """Compute a network's logits with the model of the format's library, if installed and suitable.

    Otherwise this package's model in the same framework computes them (the returned name includes
    the reason, if known), or else the NumPy reference. Returns the logits (N, num_classes), the
    name of the model that computed them, and whether that model is independent of this package.
    """
    module = formats.module(file_format)
    library_logits = getattr(module, "library_logits", None)
    path, spec = as_path(path), check_checkpoint(checkpoint).spec
    check_images(spec, images)
    why = ""
    if module.BACKEND is None and library_logits:
        try:
            with suppress(ImportError):
                answer, who = library_logits(path, checkpoint, images)
                return answer, who, True
        except LookupError as error:
            why = f", because {error}"
    if module.BACKEND is not None:
        with suppress(ImportError):
            # load the backend first: this makes MXNet importable with current NumPy, and rejects
            # Keras engines other than TensorFlow
            backend = load_backend(module.BACKEND)
            if library_logits:
                try:
                    with suppress(ImportError):
                        answer, who = library_logits(path, checkpoint, images)
                        return answer, who, True
                except LookupError as error:
                    why = f", because {error}" if str(error) else ""
            model = backend.build(checkpoint.spec, dtype=widest(checkpoint.weights))
            backend.import_weights(model, checkpoint.weights)
            return backend.predict(model, images), f"densenet_multi.{backend.NAME}{why}", False
    return predict(checkpoint.spec, checkpoint.weights, images), f"{REFERENCE}{why}", False


def verification_images(checkpoint: Checkpoint) -> npt.NDArray[np.float32]:
    """Return a few real images (N, C, S, S): gray, repeated over the channels, and normalized.

    The checkpoint's usage defines both normalization and S (by default, the stem's usual size).
    """
    config, usage = checkpoint.spec.config, checkpoint.usage
    size = usage.image_size or (224 if config.stem == "imagenet" else 32)
    size = max(size, min_image_size(checkpoint.spec))
    prepare = Preparation(size, config.in_channels, usage)
    return prepare(to_input(load_sample("test")[0][:VERIFIED_IMAGES]))


def inspect(
    path: str | os.PathLike[str], file_format: str | None = None, *, prefix: str | None = None
) -> dict[str, Any]:
    """Describe a checkpoint in plain values. Raises the same errors as ``formats.read``.

    An ONNX file may also be one that cannot be read, only used: folded or quantized.
    """
    path = as_path(path)
    name = formats.guess(path) if file_format is None else file_format
    if name == "onnx" and prefix is None:
        checkpoint = describe(path)
    else:
        checkpoint = formats.read(path, name, prefix=prefix)
    kernel = checkpoint.weights.get("features.conv0.weight")
    counts = count_parameters(checkpoint.spec)
    return {
        "path": str(path),
        "format": name,
        "is": formats.FORMATS[name][1],
        "variant": variant_name(checkpoint.spec.config),
        "trainable": counts.trainable,
        "statistics": counts.statistics,
        "dtype": None if kernel is None else str(kernel.dtype),
        "config": asdict(checkpoint.spec.config),
        "usage": asdict(checkpoint.usage),
        "assumed": [f"{what}: {value}" for what, value in checkpoint.unstated().items()],
        "notes": [*checkpoint.notes, *_unusual(checkpoint)],
    }


def _unusual(checkpoint: Checkpoint) -> list[str]:
    """Return a note for each difference from the variant's usual network."""
    config = checkpoint.spec.config
    name = variant_name(config)
    usual = VARIANTS[name] if name else config
    notes = []
    if not config.num_classes:
        notes.append("it has no classifier: its outputs are features")
    elif config.num_classes != usual.num_classes:
        notes.append(f"{name} usually has {usual.num_classes:,} classes")
    if config.in_channels != usual.in_channels:
        notes.append(f"{name} usually reads images with {_channels(usual.in_channels)}")
    arrays = [array.astype(np.float32, copy=False) for array in checkpoint.weights.values()]
    if not arrays:
        return notes
    if all((array.view(np.uint32) & 0xFFFF == 0).all() for array in arrays):
        notes.append("all weights have bfloat16 precision (2 to 3 digits); compute in float32")
    else:
        with np.errstate(over="ignore"):
            if all(np.array_equal(array, array.astype(np.float16)) for array in arrays):
                notes.append("all weights have float16 precision (3 digits); compute in float32")
    return notes


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"
