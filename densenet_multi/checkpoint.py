"""A trained network in memory: its specification, its weights, and how to use them.

``formats`` reads every file of weights into a ``Checkpoint``, whatever its format, and writes it
from one. What a training run needs to resume is a ``TrainingState``: see training/state.py.
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
ESTIMATORS = ("biased", "unbiased")  # of a variance
ACTIVATIONS = ("none", "softmax", "sigmoid")
PIXELS = ("value_range", "mean", "std")  # of a usage: stated or assumed together
MAY_BE_ASSUMED = ("image_size", *PIXELS, "class_names")
TEXTS = ("class_names", "trained_on", "assumed")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How to use a network's weights, which no tensor states; None means unknown.

    Attributes:
        image_size: pixels per side that the network was trained with or is meant for, at most
            4,096.
        value_range: of pixels before ``mean`` and ``std``: (0, 1) or (0, 255).
        mean, std: per channel; the network reads ``(pixels - mean) / std``.
        class_names: one for each output, in order. A network with one output has one name: that of
            the class whose probability is its sigmoid.
        activation: what the network was trained with after its logits: ``"softmax"`` (one class
            for each image), ``"sigmoid"`` (each output is the probability of its own class) or
            ``"none"`` (the logits are the answer).
        running_variance: ``"biased"`` or ``"unbiased"``, the estimator behind the statistics.
        split_seed: of the split of a folder of images into training and validation images.
        trained_on: fingerprints of some training images, by which their folder is recognized: see
            ``data.folder.fingerprints``.
        source: where the weights come from, in words.
        assumed: those of ``MAY_BE_ASSUMED`` that no file states, but that are usual for such a
            network; a field without a value is dropped from them.
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
            raise bad("source", self.source, "a text or None")
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
        """Return this usage; raise ``ConfigError`` if a list does not fit the network's size."""
        config = check_spec(spec).config
        lengths = {"mean": config.in_channels, "std": config.in_channels}
        if config.num_classes:
            lengths["class_names"] = config.num_classes
        for name, length in lengths.items():
            value = getattr(self, name)
            if value is not None and len(value) != length:
                each = "output" if name == "class_names" else "channel"
                only = name == "class_names" and length == 1
                hint = "; name the class whose probability the one output is" if only else ""
                raise ConfigError(
                    f"{name}: expected {length} values for this network, one for each {each}; "
                    f"found {len(value)}: {listed(value)}{hint}"
                )
        return self

    def stating(self, **values: Any) -> Usage:
        """The usage with values that are stated, so no longer assumed; None states nothing.

        The range, mean and std of pixels belong together: where one of them is stated, an assumed
        mean and std are dropped. An assumed range stays. Raises ``ConfigError``.
        """
        check_names("field", values, [f.name for f in fields(self)])
        given: dict[str, Any] = {n: value for n, value in values.items() if value is not None}
        if any(name in given for name in PIXELS):
            dropped = [name for name in ("mean", "std") if name in self.assumed]
            given = {**dict.fromkeys(dropped), **given}
        assumed = tuple(name for name in self.assumed if name not in given)
        return replace(self, **given, assumed=assumed)

    def stated(self, name: str) -> Any:
        """The value of a field, or None where it is only assumed."""
        check_names("field", [name], [f.name for f in fields(self)])
        return None if name in self.assumed else getattr(self, name)


@dataclass(frozen=True)
class Checkpoint:
    """A trained network in canonical names and layout, whatever file it was read from.

    Attributes:
        spec: the network.
        weights: {canonical name: array}, float32 or float64, in the manifest's order.
        usage: how to use them.
        notes: what is unusual, or was changed when it was read: sentences for the user.
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
        """What no file states about the use of this network: {what: the assumed value}."""
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
                "a sigmoid, so that its one output becomes the probability of one class"
                if outputs == 1
                else "a softmax, so that every image has one of the classes"
            )
        if "class_names" in usage.assumed and usage.class_names:
            found["its class names"] = f"ImageNet's ({listed(usage.class_names)})"
        return found


def check_usage(usage: Any) -> Usage:
    """The usage itself. Raises ``ConfigError`` for anything else, such as a dictionary."""
    return instance("usage", usage, Usage, "a Usage, such as Usage(class_names=('cat', 'dog'))")


def check_checkpoint(checkpoint: Any) -> Checkpoint:
    """The checkpoint itself. Raises ``ConfigError`` for anything else, such as a path."""
    expected = "a Checkpoint, such as formats.read('FILE')"
    return instance("checkpoint", checkpoint, Checkpoint, expected)


def names_in_order(found: object) -> list[str] | None:
    """Class names in the order of the outputs, from a file's entry; None if it has no names.

    Arguments:
        found: a list of names, ``{name: index}`` (what PyTorch calls ``class_to_idx``, Keras
            ``class_indices``) or ``{index: name}`` (``id2label``), the indices from 0 on.
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
    # NumPy's numbers as Python's, which JSON has
    return tuple(item if isinstance(item, (str, int)) else float(item) for item in value)


IMAGENET = Usage(image_size=224, value_range=(0.0, 1.0), mean=IMAGENET_MEAN, std=IMAGENET_STD)
