"""Validate hyper-parameters; every error states what was expected and what was found.

Also ``listed``, which shortens a long list of values for a message.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import lru_cache, partial, wraps
from numbers import Real
from operator import index
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


class ConfigError(ValueError):
    """An argument is invalid; the message names it, what was expected and what was found."""


OTHER_WORDS = {  # another project's word -> our names for it; (): suggest none, even if similar
    **dict.fromkeys(("onnx", "torchscript", "tflite", "openvino", "coreml", "tensorrt"), ()),
    **dict.fromkeys(("tensorflow", "tf", "tf.keras", "tf_keras"), ("keras",)),
    **dict.fromkeys(("mxnet", "mx"), ("gluon",)),
    **dict.fromkeys(("jax", "flax"), ("flax", "nnx")),
    **dict.fromkeys(("pytorch", "torch", "timm"), ("torch", "torchvision")),
    "safetensors": ("portable",),
    "lr": ("learning_rate",),
    **dict.fromkeys(("kaiming", "he", "kaiming_normal"), ("he_fan_out",)),
    "glorot": ("xavier",),
    "cuda": ("gpu",),
}
DTYPES = ("float32", "float64")  # offered by every backend
POOLS = ("avg", "max")
NORMALIZATIONS, ACTIVATIONS = ("batch", "none"), ("relu", "silu", "tanh")  # in tabular.py
INITIALIZATIONS = ("he_fan_out", "he_fan_in", "xavier")  # see weights.init_weights

SHOWN = 500  # maximum characters of a value in an error
LISTED = 3  # maximum values of a list in a message
MOST_KNOWN = 30  # names that a message lists, such as all fields of a configuration
LARGEST_SEED = 2**64 - 1
LARGEST_COUNT = 2**31 - 1  # of channels or pixels: the largest signed 32-bit integer
COUNTED = "{:,} more"  # instead of "..." at the end of a list: see ``listed``

LEAST = {"growth_rate": 1, "num_init_features": 1, "num_classes": 0, "in_channels": 1}
# without these limits (docs/formats.md), a few digits in a file could request any amount of memory
MOST_LAYERS = 10_000  # dense layers; the paper's deepest network has 246
MOST_CHANNELS = 2**20  # channels in a map, or classes; densenet161's widest map has 2,208
LARGEST_SIDE = 2**12  # pixels; an image with that height and width takes 0.2 GB

RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "compression": ("a number above 0 and at most 1", lambda x: 0 < x <= 1),
    "drop_rate": ("a number from 0 up to but not including 1", lambda x: 0 <= x < 1),
    "bn_eps": ("a finite number above 0", lambda x: 0 < x < math.inf),
    "bn_decay": ("a number from 0 up to but not including 1", lambda x: 0 <= x < 1),
    "learning_rate": ("a finite number above 0", lambda x: 0 < x < math.inf),
    "learning_rate_factor": ("a number above 0 and at most 1", lambda x: 0 < x <= 1),
    "momentum": ("a number from 0 up to but not including 1", lambda x: 0 <= x < 1),
    "weight_decay": ("a finite number of at least 0", lambda x: 0 <= x < math.inf),
    "average": ("a number from 0 to 1", lambda x: 0 <= x <= 1),
    "milestones": ("fractions between 0 and 1", lambda x: 0 < x < 1),
    "warmup": ("a number from 0 up to but not including 1", lambda x: 0 <= x < 1),
    "label_smoothing": ("a number from 0 up to but not including 1", lambda x: 0 <= x < 1),
}
RANGES |= {"eps": RANGES["bn_eps"], "decay": RANGES["bn_decay"]}
FINITE = ("a finite number", math.isfinite)
CHOICES: dict[str, tuple[str, ...]]
CHOICES = {"pool_kind": POOLS, "global_pool": POOLS}  # field of a ``Checked`` -> allowed values
CHOICES |= {"normalization": NORMALIZATIONS, "activation": ACTIVATIONS}
MAY_BE_0 = ("padding",)  # fields of a ``Checked``; other integers in it are at least 1


def listed(values: Iterable[object], most: int = LISTED, more: str = "...") -> str:
    """Join the first ``most`` values with commas. If n more follow, append ``more.format(n)``."""
    found = list(values)
    others = [more.format(len(found) - most)] if len(found) > most else []
    return ", ".join([*map(str, found[:most]), *others])


def shown(value: object) -> str:
    """Return the start of a value's ``repr``, or a description if that fails (huge integers)."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # a user's class, or an integer of more than 4,300 digits
        if isinstance(value, int):
            return "an integer with thousands of digits"  # Python prints at most 4,300
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def bad(name: str, given: object, allowed: str) -> ConfigError:
    return ConfigError(f"{name}: expected {allowed}; found {shown(given)}")


def integer(name: str, given: Any, least: int, most: int | None = None) -> int:
    try:
        refused = is_bool(given) or hasattr(given, "mask")  # NumPy would ignore a mask
        value = least - 1 if refused else index(given)  # NumPy's integers too, but not 32.0
    except Exception:  # noqa: BLE001  # the object's own code may raise anything
        value = least - 1
    if value < least or (most is not None and value > most):
        bounds = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"
        raise bad(name, given, f"an integer {bounds}")
    return value


def check_seed(given: Any, name: str = "seed") -> int:
    """Return a seed as a Python integer; all random functions accept the same range."""
    return integer(name, given, 0, LARGEST_SEED)


def instance(name: str, given: Any, kind: type[T], expected: str) -> T:
    """Return the value if it is a ``kind``, or raise ``ConfigError`` with ``expected``."""
    if not isinstance(given, kind):
        found = f"{type(given).__name__} {shown(given)[:60]}"
        raise ConfigError(f"{name}: expected {expected}; found {found}")
    return given


def check_backend(backend: Any) -> None:
    """Raise ``ConfigError`` unless this is a backend's module; its name is not enough."""
    if not callable(getattr(backend, "build", None)):
        raise bad("backend", backend, "a backend's module, such as load_backend('torch')")


def check_seconds(name: str, given: Any) -> None:
    """Raise ``ConfigError`` unless this is a number of at least 0; infinity is allowed."""
    seconds: Any = given if is_real(given) else -1
    if not seconds >= 0:
        raise bad(name, given, "a number of seconds of at least 0")


def text(name: str, given: Any) -> str:
    if not isinstance(given, str):
        raise bad(name, given, "a string")
    return given


def texts(name: str, given: Any) -> list[str]:
    return [text(f"{name}[{i}]", each) for i, each in enumerate(items(name, given, "strings"))]


def function(name: str, given: Any) -> Any:
    if not callable(given):
        raise bad(name, given, "a function")
    return given


def items(name: str, given: Any, allowed: str) -> tuple[Any, ...]:
    """Return the items of a list or any other sequence, but not of a string, set or mapping."""
    others = (str, bytes, bytearray, memoryview, set, frozenset, Mapping)
    if isinstance(given, others) or not hasattr(given, "__iter__"):
        raise bad(name, given, allowed)
    try:
        return tuple(given)
    except Exception:  # noqa: BLE001  # a class, an array without dimensions, a user's object
        raise bad(name, given, allowed) from None


def integers(name: str, given: Any) -> tuple[int, ...]:
    if not isinstance(given, (tuple, list)) or not given:
        raise bad(name, given, "one or more positive integers, such as (6, 12, 24, 16)")
    return tuple(integer(f"{name}[{i}]", n, 1) for i, n in enumerate(given))


def number(name: str, given: Any) -> float:
    allowed, test = RANGES.get(name.rpartition(".")[2], FINITE)
    try:
        value = float(given) if is_real(given) else math.nan
    except OverflowError:
        value = math.nan
    if not test(value):  # NaN fails every test
        raise bad(name, given, allowed)
    return value


def truth(name: str, given: Any) -> bool:
    if not isinstance(given, bool):
        raise bad(name, given, "True or False")
    return given


def one_of(name: str, given: Any, allowed: tuple[str, ...]) -> str:
    if not isinstance(given, str) or given not in allowed:
        near = f"; did you mean {meant!r}?" if (meant := nearest(given, allowed)) else ""
        raise ConfigError(f"{bad(name, given, ' or '.join(map(repr, allowed)))}{near}")
    return str(given)


def check_bfloat16(bfloat16: bool, dtype: str) -> None:
    """Raise ``ConfigError`` for bfloat16 in a network that is not float32."""
    if truth("bfloat16", bfloat16) and dtype != "float32":
        raise bad("bfloat16", True, f"False for a network in {dtype}")


def is_finite(given: float) -> bool:
    """Return whether a number is finite as a float; an integer may be larger than any float."""
    try:
        return math.isfinite(given)
    except OverflowError:
        return False


def is_bool(given: Any) -> bool:
    """Return whether this is a Python, NumPy or framework bool, which would pass as an integer."""
    return isinstance(given, bool) or "bool" in str(getattr(given, "dtype", ""))


def is_real(given: Any) -> bool:
    """Return whether this is a real number of Python or NumPy, not a bool or timedelta."""
    is_time = "timedelta" in str(getattr(given, "dtype", ""))
    return isinstance(given, Real) and not is_bool(given) and not is_time


def floor_of_decimal(factor: float, count: int) -> int:
    """Return ``floor(factor * count)``, exact in decimal: 29 for 0.29 and 100, not 28."""
    from fractions import Fraction  # a slow import (milliseconds), only needed here

    return math.floor(Fraction(repr(factor)) * count)


def ceiling_of_decimal(factor: float, count: int) -> int:
    """Return ``ceil(factor * count)``, exact in decimal: 7 for 0.07 and 100, not 8."""
    return -floor_of_decimal(-factor, count)


class Checked:
    """Base of dataclasses whose fields are validated on creation, by their annotations.

    Raises ``ConfigError``, which names the field, and the class unless it is a configuration.
    Integers are at least 1 (or 0 if their name is in ``MAY_BE_0``) and at most ``MOST_CHANNELS``.
    Floats are finite and within ``RANGES``. A string whose name is in ``CHOICES`` has one of the
    values listed there.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for field, name, check in _checks_of(kind):
            object.__setattr__(self, field, check(name, getattr(self, field)))


@lru_cache
def _checks_of(cls: type) -> list[tuple[str, str, Callable[[str, Any], Any]]]:
    """Return (field, its name in errors, its check) for each field of a dataclass."""
    hints = get_type_hints(cls)
    where = "" if cls.__name__.endswith("Config") else f"{cls.__name__}."  # a user's own options
    names = [(f.name, f"{where}{f.name}") for f in fields(cls)]
    return [(field, name, check_of(hints[field], name)) for field, name in names]


def check_of(kind: Any, name: str) -> Callable[[str, Any], Any]:
    """Return the check for an annotation; the check converts a value to Python's own types."""
    kinds = get_args(kind)
    if NoneType in kinds:  # KIND | None
        check = check_of(kinds[0], name)
        return lambda name, given: None if given is None else check(name, given)
    if get_origin(kind) is tuple:
        return partial(_tuple, [check_of(k, name) for k in kinds if k is not ...], ... in kinds)
    if allowed := CHOICES.get(name.rpartition(".")[2]):
        return partial(one_of, allowed=allowed)
    if name.endswith("seed"):
        return lambda name, given: check_seed(given, name)
    if kind is int:
        least = 0 if name.endswith(MAY_BE_0) else 1
        return partial(integer, least=least, most=MOST_CHANNELS)
    plain: dict[Any, Callable[[str, Any], Any]] = {float: number, bool: truth, str: text}
    return plain.get(kind) or partial(instance, kind=kind, expected=f"a {kind.__name__}")


def _tuple(checks: list[Any], repeated: bool, name: str, given: Any) -> tuple[Any, ...]:
    found = items(name, given, "a list")
    checks = checks * len(found) if repeated else checks
    if len(found) != len(checks):
        raise bad(name, given, f"{len(checks)} values")
    each = zip(checks, found, strict=True)
    return tuple(check(f"{name}[{i}]", value) for i, (check, value) in enumerate(each))


def refuse_unknown_fields(cls: type[T]) -> type[T]:
    """Decorate a dataclass: an unknown field raises an error that suggests the nearest name."""
    make: Any = cls.__init__
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]

    def init(self: T, *args: Any, **given: Any) -> None:
        check_names("field", given, names)
        make(self, *args, **given)

    checked: Any = wraps(make)(init)
    cls.__init__ = checked  # type: ignore[method-assign]
    return cls


def nearest(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that is probably meant, by synonym or similar spelling, or None."""
    if not isinstance(name, str):
        return None
    known, small = list(known), name.lower()
    if small in OTHER_WORDS:
        return next((meant for meant in OTHER_WORDS[small] if meant in known), None)
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, known, n=1, cutoff=0.5)), None)


def check_names(what: str, given: Iterable[Any], known: Iterable[str]) -> None:
    known = list(known)
    for name in given:
        if not isinstance(name, str) or name not in known:
            hint = f"did you mean {near!r}? " if (near := nearest(name, known)) else ""
            found = f"{what} {shown(name)} does not exist"
            others = listed(known, MOST_KNOWN, "... ({} in all)")
            raise ConfigError(f"{found}; {hint}known: {others}")
