"""A trained network in memory: its specification, its weights, and how to use them.

``formats`` reads a weights file of any format into a ``Checkpoint``, and writes one from it. A
training run resumes from a ``TrainingState`` instead: see training/state.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ._checks import (
    LARGEST_SEED,
    LARGEST_SIDE,
    ConfigError,
    bad,
    check_names,
    instance,
    integer,
    is_finite,
    is_real,
    items,
    listed,
    one_of,
)
from .spec import DenseNetSpec, check_spec
from .weights import Weights, check_mapping

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ESTIMATORS = ("biased", "unbiased")  # of the variance
ACTIVATIONS = ("none", "softmax", "sigmoid")
PIXELS = ("value_range", "mean", "std")  # fields of a ``Usage`` that belong together
MAY_BE_ASSUMED = ("image_size", *PIXELS, "class_names")
TEXTS = ("class_names", "trained_on", "assumed")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How to use a network: its input pixels, class names, and more; None means unknown.

    Attributes:
        image_size: pixels per side of the images that the network was trained on or is meant for;
            at most 4,096.
        value_range: the range of pixels before ``mean`` and ``std``: (0, 1) or (0, 255).
        mean, std: one value for each channel; the network reads ``(pixels - mean) / std``.
        class_names: one for each output, in order. A network with one output has one name: the
            class whose probability is the sigmoid of that output.
        activation: the function that training applied to the logits: ``"softmax"`` (each
            image has one class), ``"sigmoid"`` (each output is the probability of its own class) or
            ``"none"`` (the logits are the output).
        running_variance: ``"biased"`` or ``"unbiased"``, the estimator of the running variances.
        split_seed: the seed with which a folder was split into training and validation images.
        trained_on: fingerprints of some training images, which identify their folder: see
            ``data.folder.fingerprints``.
        source: where the weights come from, in words.
        assumed: names of fields (from ``MAY_BE_ASSUMED``) with values that no file states, but that
            are usual for such a network. Names of fields without a value are dropped.

    Raises ``ConfigError``, which names the offending field.

    >>> usage = dm.Usage(image_size=96, class_names=["cat", "dog"])
    >>> usage.class_names
    ('cat', 'dog')
    """

    image_size: int | None = None
    value_range: tuple[float, float] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    class_names: tuple[str, ...] | None = None
    activation: str | None = None
    running_variance: str | None = None
    split_seed: int | None = None
    trained_on: tuple[str, ...] | None = None
    source: str | None = None
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least, most in (
            ("image_size", 1, LARGEST_SIDE),
            ("split_seed", 0, LARGEST_SEED),
        ):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, integer(name, value, least, most))
        if not isinstance(self.source, str | None):
            raise bad("source", self.source, "a string or None")
        for name in (*PIXELS, *TEXTS):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _checked_list(name, value))
        if self.running_variance is not None:
            one_of("running_variance", self.running_variance, ESTIMATORS)
        if self.activation is not None:
            one_of("activation", self.activation, ACTIVATIONS)
        check_names("assumed", items("assumed", self.assumed, "a list of names"), MAY_BE_ASSUMED)
        assumed = tuple(name for name in self.assumed if getattr(self, name) is not None)
        object.__setattr__(self, "assumed", assumed)

    def fits(self, spec: DenseNetSpec) -> Usage:
        """Return this usage; raise ``ConfigError`` if a list's length does not fit the network."""
        config = check_spec(spec).config
        lengths = {"mean": config.in_channels, "std": config.in_channels}
        if config.num_classes:
            lengths["class_names"] = config.num_classes
        for name, length in lengths.items():
            value = getattr(self, name)
            if value is not None and len(value) != length:
                each = "output" if name == "class_names" else "channel"
                only = name == "class_names" and length == 1
                hint = "; name the class whose probability the output is" if only else ""
                values = "1 value" if length == 1 else f"{length} values"
                raise ConfigError(
                    f"{name}: expected {values} for this network, one for each {each}; "
                    f"found {len(value)}: {listed(value)}{hint}"
                )
        return self

    def stating(self, **values: Any) -> Usage:
        """Return a copy with these values, now stated instead of assumed; None changes nothing.

        The range, mean and std of pixels belong together: if one of them is stated, an assumed mean
        and std are dropped. An assumed range is kept. Raises ``ConfigError``.
        """
        check_names("field", values, [f.name for f in fields(self)])
        given: dict[str, Any] = {n: value for n, value in values.items() if value is not None}
        if any(name in given for name in PIXELS):
            dropped = [name for name in ("mean", "std") if name in self.assumed]
            given = {**dict.fromkeys(dropped), **given}
        assumed = tuple(name for name in self.assumed if name not in given)
        return replace(self, **given, assumed=assumed)

    def stated(self, name: str) -> Any:
        """Return the value of a field, or None if it is only assumed."""
        check_names("field", [name], [f.name for f in fields(self)])
        return None if name in self.assumed else getattr(self, name)


@dataclass(frozen=True)
class Checkpoint:
    """A trained network in memory, the same for every file format and backend.

    Attributes:
        spec: the network.
        weights: {canonical name: array} in canonical layout, float32 or float64, in the order of
            ``tensors(spec)``.
        usage: how to use the network.
        notes: sentences for the user about what is unusual in the file, or was changed on reading.

    Raises ``ConfigError`` or ``WeightsError`` for arguments of the wrong type.

    >>> spec = dm.get_spec("d2l")
    >>> checkpoint = dm.Checkpoint(spec, dm.init_weights(spec), dm.Usage(image_size=96))
    >>> checkpoint.usage.image_size
    96
    """

    spec: DenseNetSpec
    weights: Weights
    usage: Usage = field(default_factory=Usage)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_spec(self.spec)
        check_mapping(self.weights)
        check_usage(self.usage)
        notes = items("notes", self.notes, "a list of sentences")
        if not all(isinstance(note, str) for note in notes):
            raise bad("notes", self.notes, "a list of sentences")
        object.__setattr__(self, "notes", notes)

    def unstated(self) -> dict[str, str]:
        """Return {question: assumed answer} for each unstated fact about the network's use."""
        usage, outputs = self.usage, self.spec.config.num_classes
        found = {}
        if usage.value_range is None or not set(PIXELS).isdisjoint(usage.assumed):
            low, high = usage.value_range or (0, 1)
            moments = [
                f"{name} {listed(getattr(usage, name), len(getattr(usage, name)))}"
                for name in ("mean", "std")
                if name in usage.assumed
            ]
            found["which pixel values the network expects"] = ", ".join(
                [f"{low:g} to {high:g}", *moments]
            )
        if "image_size" in usage.assumed:
            found["its image size"] = f"{usage.image_size} x {usage.image_size} pixels"
        if outputs and usage.activation is None:
            found["what its outputs mean"] = (
                "a sigmoid, so that its single output becomes the probability of one class"
                if outputs == 1
                else "a softmax, so that every image has one of the classes"
            )
        if "class_names" in usage.assumed and usage.class_names:
            found["its class names"] = f"ImageNet's ({listed(usage.class_names)})"
        return found


def check_usage(usage: Any) -> Usage:
    """Return a ``Usage`` as it is. Raises ``ConfigError`` for other types, such as a dictionary."""
    return instance("usage", usage, Usage, "a Usage, such as Usage(class_names=('cat', 'dog'))")


def check_checkpoint(checkpoint: Any) -> Checkpoint:
    """Return a ``Checkpoint`` as it is. Raises ``ConfigError`` for other types, such as a path."""
    expected = "a Checkpoint, such as formats.read('FILE')"
    return instance("checkpoint", checkpoint, Checkpoint, expected)


def names_in_order(found: object) -> list[str] | None:
    """Return a file entry's class names in the order of the outputs; None if the entry has none.

    Arguments:
        found: a list of names, ``{name: index}`` (PyTorch's ``class_to_idx``, Keras'
            ``class_indices``) or ``{index: name}`` (``id2label``); indices start at 0.
    """
    if isinstance(found, Mapping):
        is_indexed = all(isinstance(value, str) for value in found.values())
        pairs = found.items() if is_indexed else ((index, name) for name, index in found.items())
        names = {int(index): name for index, name in pairs if _is_index(index)}
        found = [names.get(index) for index in range(len(found))]
    if not isinstance(found, (list, tuple)) or not all(isinstance(name, str) for name in found):
        return None
    return list(found)


def _is_index(found: object) -> bool:
    return type(found) is int or (isinstance(found, str) and found.isdecimal() and len(found) < 9)


def _checked_list(name: str, value: Any) -> tuple[Any, ...]:
    what = "names" if name in TEXTS else "numbers"
    is_list = isinstance(value, (tuple, list))
    fits: Any = is_real if what == "numbers" else lambda item: isinstance(item, str)
    if not is_list or not all(map(fits, value)):
        raise bad(name, value, f"a list of {what}")
    if what == "numbers" and not all(map(is_finite, value)):
        raise bad(name, value, "finite numbers")
    if name == "std" and not all(item > 0 for item in value):
        raise bad(name, value, "numbers above 0")
    if name == "value_range" and not (len(value) == 2 and value[0] < value[1]):
        raise bad(name, value, "two numbers, the lower first")
    # NumPy's numbers become Python's, which JSON can store
    return tuple(item if isinstance(item, (str, int)) else float(item) for item in value)


IMAGENET = Usage(image_size=224, value_range=(0.0, 1.0), mean=IMAGENET_MEAN, std=IMAGENET_STD)
