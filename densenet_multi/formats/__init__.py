"""Read and write weights files: the portable file, and the formats of other projects.

Each format has one module, which implements ``Format``. A format's library is imported only when
it is needed. Nothing in a file is ever executed: pickles are parsed as data, see _pickles.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from .._checks import ConfigError, check_names, integer, listed, text, truth
from .._files import as_path
from ..checkpoint import Checkpoint, check_checkpoint
from ..manifest import tensors
from ..variants import VARIANTS
from ..weights import WeightsError, check_weights, init_weights
from ._channels import with_channels
from ._folders import as_configured, file_in
from ._notes import ASSUMED
from ._other_files import description, refuse_others
from ._stated import NOTHING, Stated, unknown_prefix
from .recognize import variant_name

__all__ = [
    "FORMATS",
    "Checkpoint",
    "Format",
    "guess",
    "guess_from_name",
    "module",
    "read",
    "with_channels",
    "with_classes",
    "write",
]

FORMATS = {  # name -> (module, description); detection tries them in this order
    "portable": ("portable", "the portable .safetensors file of densenet_multi"),
    "keras": ("keras_applications", "keras.applications' .weights.h5, .h5 and .keras"),
    "kerashub": ("kerashub", "KerasHub's .weights.h5, .keras and presets"),
    "linen": ("linen", "Flax Linen: .msgpack, .safetensors, a pickle, or an Orbax folder"),
    "onnx": ("onnx_file", "ONNX's .onnx, for inference in any runtime"),
    "nnx": ("nnx", "Flax NNX: .safetensors, .msgpack, a pickle, or an Orbax folder"),
    "torchvision": ("torchvision", "torchvision's and timm's .pth and .safetensors"),
    "gluon": ("gluon_zoo", "MXNet Gluon's .params, the zoo's and others"),
}

ONE_NETWORK = ("portable", "keras", "kerashub")  # formats whose tensor names have no prefix

UNSHOWN = (  # fields that do not depend on the variant, or that a file may declare
    *("num_classes", "in_channels", "bn_eps", "bn_decay"),
    *("drop_rate", "transition_pool", "global_pool"),
)


class Format(Protocol):
    """The functions and attributes that a format's module provides.

    ``BACKEND`` is the backend whose framework the format belongs to, or None. The format of an
    installable library may also define ``library_logits(path, checkpoint, images)``, which returns
    the logits and the name of the library's own model. It is called after the backend is imported,
    and raises ``LookupError`` if the library has no such model. ``LIBRARY`` is the package that
    ``library_logits`` needs besides the backend's framework. ``OPTIONS`` names the keyword
    arguments of ``write`` that a format has.
    """

    BACKEND: str | None

    def looks_like(self, path: Path, head: bytes) -> bool:
        """Return whether a file that starts with ``head`` (a folder: ``b""``) has this format.

        Formats are tried in the order of ``FORMATS``; the first match wins. Raises
        ``WeightsError`` if the file has this format but is damaged.
        """

    def read(self, path: Path, stated: Stated = NOTHING) -> Checkpoint:
        """Read and validate the weights, in canonical names and layout, and read their usage.

        ``stated`` holds what the user states about the file.

        Raises ``WeightsError``, ``ConfigError``, ``OSError``, ``BackendNotInstalledError``.
        """

    def write(self, path: Path, checkpoint: Checkpoint, **options: bool) -> tuple[str, ...]:
        """Write the file atomically; return notes on what the format cannot store.

        Raises the same errors as ``read``.
        """


def read(
    path: str | os.PathLike[str],
    file_format: str | None = None,
    *,
    variant: str | None = None,
    prefix: str | None = None,
    **overrides: Any,
) -> Checkpoint:
    """Read a DenseNet's weights from a file of any known format.

    Returns them in canonical names and layout. From a Hugging Face Hub folder, both the weights
    file and ``config.json`` are read.

    Raises ``WeightsError`` if the file is damaged, or does not hold the weights of a DenseNet or
    of ``variant`` (every problem is listed); ``ConfigError`` for an unknown format or field;
    ``OSError`` if the file cannot be read; ``BackendNotInstalledError`` if the library that reads
    it is missing.

    Arguments:
        path: a file, or a folder from Orbax, KerasHub or the Hub.
        file_format: one of ``FORMATS``; detected from the content by default.
        variant: one of ``VARIANTS``; overrides the variant detected from names and shapes, and
            must fit them.
        prefix: the prefix of the network's tensor names, if the file holds several networks.
        overrides: fields of ``DenseNetConfig`` that no tensor shows (``bn_eps``, ``drop_rate``).
    """
    given = as_path(path)
    path = file_in(given)
    if prefix is not None:
        text("prefix", prefix)
    if file_format is not None:
        check_names("format", [file_format], FORMATS)
        refuse_others(path)
    name = guess(path) if file_format is None else file_format
    if prefix is not None and name in ONE_NETWORK:
        raise _naming(path, unknown_prefix(prefix, []))
    stated = Stated(file_format=file_format is not None, variant=variant, prefix=prefix)
    try:
        checkpoint = module(name).read(path, stated)
    except ValueError as error:
        raise _naming(path, error, but=_another(path, file_format)) from None
    if path != given:
        checkpoint = as_configured(checkpoint, given, path)
    if variant is None and not overrides:
        return checkpoint
    config = checkpoint.spec.config
    if variant is not None:
        check_names("variant", [variant], VARIANTS)
        kept = {name: getattr(config, name) for name in UNSHOWN}
        config = replace(VARIANTS[variant], **kept)
    spec = replace(config, **overrides).resolve()
    expected = {name: info.shape for name, info in tensors(spec).items()}
    found = {name: array.shape for name, array in checkpoint.weights.items()}
    if problems := [n for n in {**expected, **found} if expected.get(n) != found.get(n)]:
        whose = variant_name(checkpoint.spec.config) or "a network that is no named variant"
        raise WeightsError(
            f"{path}: expected the tensors of {variant or 'this network'}, found those of {whose}: "
            f"{len(problems)} differ, such as {listed(problems)}"
            + (f"; to detect the variant, omit variant={variant!r}" if variant else "")
        )
    notes = [note for note in checkpoint.notes if not (overrides and note.startswith(ASSUMED))]
    return replace(checkpoint, spec=spec, notes=tuple(notes))


def write(
    path: str | os.PathLike[str],
    checkpoint: Checkpoint,
    file_format: str | None = None,
    *,
    probabilities: bool = False,
    folded: bool = False,
    half: bool = False,
) -> tuple[str, ...]:
    """Write weights in a format; by default, the file name's suffix selects it.

    Returns notes for the user on what the format cannot store, or stores differently. The write is
    atomic: the file is complete or absent. Raises the same errors as ``read``; ``ConfigError`` for
    an option that the format does not have.

    Arguments:
        path: the file; for some formats, a new folder.
        checkpoint: the network.
        file_format: one of ``FORMATS``.
        probabilities: ONNX: apply the activation that the usage states to the logits.
        folded: ONNX: fold each BatchNorm that follows a convolution into it.
        half: ONNX: store weights and compute in float16.

    >>> from densenet_multi import formats
    >>> import pathlib, tempfile
    >>> spec = dm.get_spec("d2l")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "NEW.safetensors")
    ...     notes = formats.write(path, dm.Checkpoint(spec, dm.init_weights(spec)))
    ...     formats.read(path).spec == spec
    True
    """
    path = as_path(path)
    name = guess_from_name(path) if file_format is None else file_format
    options = {"probabilities": probabilities, "folded": folded, "half": half}
    chosen = check_options(name, options)
    return module(name).write(path, check_checkpoint(checkpoint), **chosen)


def check_options(name: str, options: Mapping[str, bool]) -> dict[str, bool]:
    """Return the options that are on. Raises ``ConfigError`` if a format does not have one.

    Arguments:
        name: one of ``FORMATS``.
        options: {argument of ``write``: whether it is on}.
    """
    chosen = {option: True for option, value in options.items() if truth(option, value)}
    known = getattr(module(name), "OPTIONS", ())
    for option in chosen:
        if option not in known:
            raise ConfigError(
                f"{option}: expected an ONNX file as the destination, found the format {name!r}; "
                f"omit {option}=True, or write NEW.onnx"
            )
    return chosen


def guess(path: Path, argument: str = "file_format") -> str:
    """Detect a file's or folder's format from its content. Raises ``WeightsError``, ``OSError``.

    ``argument`` names the caller's argument that overrides the detection, for the error message.

    >>> spec = dm.get_spec("d2l", block_config=(1,))
    >>> dm.save_weights("net.safetensors", spec, dm.init_weights(spec))
    >>> guess("net.safetensors")
    'portable'
    """
    path = file_in(as_path(path))
    refuse_others(path)
    head = b""
    if not path.is_dir():
        with path.open("rb") as file:
            head = file.read(512)
    for name in FORMATS:
        try:
            if module(name).looks_like(path, head):
                return name
        except WeightsError as error:  # it has that format, but is damaged
            raise _naming(path, error) from None
    raise WeightsError(
        f"{path}: expected a DenseNet checkpoint ({', '.join(FORMATS)}), found "
        f"{description(path)}; if you know its format, pass {argument}=FORMAT"
    )


def guess_from_name(path: Path, argument: str = "file_format") -> str:
    """Return the format that a new file's suffix selects. Raises ``ConfigError``; see ``guess``.

    >>> from densenet_multi import formats
    >>> formats.guess_from_name("NEW.pth")
    'torchvision'
    """
    endings = {
        ".safetensors": "portable",
        ".pth": "torchvision",
        ".pt": "torchvision",
        ".weights.h5": "keras",
        ".params": "gluon",
        ".msgpack": "linen",
        ".onnx": "onnx",
    }
    path = as_path(path)
    for ending, name in endings.items():
        if path.name.endswith(ending):
            return name
    raise ConfigError(
        f"{path}: expected a name ending in {', '.join(endings)}, or {argument}=FORMAT; "
        f"known: {', '.join(FORMATS)}"
    )


def with_classes(checkpoint: Checkpoint, num_classes: int, seed: int = 0) -> Checkpoint:
    """Replace the classifier with a new one, for transfer learning; the body is unchanged.

    Class names and activation are dropped, because they belonged to the old classifier.

    Raises ``ConfigError`` unless ``num_classes`` is an integer of at least 0.

    Arguments:
        checkpoint: the network.
        num_classes: outputs of the new classifier; 0 removes the classifier.
        seed: for the new classifier's weights, which ``init_weights`` draws.

    >>> from densenet_multi import formats
    >>> spec = dm.get_spec("d2l")
    >>> checkpoint = dm.Checkpoint(spec, dm.init_weights(spec))
    >>> formats.with_classes(checkpoint, 3).weights["classifier.weight"].shape
    (3, 248)
    """
    check_checkpoint(checkpoint)
    num_classes = integer("num_classes", num_classes, 0)
    spec = replace(checkpoint.spec.config, num_classes=num_classes).resolve()
    head = {n: a for n, a in init_weights(spec, seed).items() if n.startswith("classifier.")}
    dtype = checkpoint.weights["features.conv0.weight"].dtype
    weights = {n: a for n, a in checkpoint.weights.items() if not n.startswith("classifier.")}
    weights |= {name: array.astype(dtype) for name, array in head.items()}
    was = f"the classifier for {checkpoint.spec.config.num_classes} classes"
    note = f"{was} was replaced with a new one for {num_classes} (seed {seed})"
    if not num_classes:
        note = f"{was} was removed: the outputs are features"
    return Checkpoint(
        spec,
        check_weights(spec, weights, dtype.name),
        replace(checkpoint.usage, class_names=None, activation=None),
        (*checkpoint.notes, note),
    )


def module(name: str) -> Format:
    """Return the module of a format, by its name in ``FORMATS``. Raises ``ConfigError``."""
    check_names("format", [name], FORMATS)
    return cast("Format", import_module(f".{FORMATS[name][0]}", __name__))


def _naming(path: Path, error: ValueError, but: str = "") -> WeightsError:
    """Return the error as a ``WeightsError`` that starts with the path and ends with ``but``."""
    named = str(error).startswith((f"{path}: ", f"{path}{os.sep}"))
    return WeightsError(f"{error}{but}" if named else f"{path}: {error}{but}")


def _another(path: Path, file_format: str | None) -> str:
    """Return the end of an error message if the content has a different format; else ""."""
    found = file_format
    with suppress(WeightsError, OSError):
        found = guess(path) if file_format else None
    if found == file_format:
        return ""
    return f"; the content looks like {found!r}: pass that format, or omit it"


def __getattr__(name: str) -> Any:
    if name == "logits":  # public here, but it needs the backends, which import this package
        return import_module("..tasks.convert", __name__).logits
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
