"""Read what a pickle describes, without running anything that it names.

A pickle is a program for a small machine: it names functions of any module, ``os.system`` as
readily as ``collections.OrderedDict``, and the machine calls them. Here nothing is imported, and
what a file names becomes a ``StandIn``, which remembers what it was given and does nothing. What
is left are data: dictionaries, lists, texts, numbers, and what a reader itself makes of a name.

The machine is the standard library's own in Python, ``pickle._Unpickler``: the faster one in C
reserves as much memory as any number in the file says. Source: https://peps.python.org/pep-0307/
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

MOST_OBJECTS = 5_000_000  # a file that describes more is refused; one of densenet264 has 20,000
DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")
NUMBERS = "biuf?"  # NumPy's letters for integers, floats and truth values


class PickleError(ValueError):
    """A pickle is damaged, or does not describe what it should."""


class StandIn:
    """In place of the class or function that a file names, once it is called.

    Attributes:
        name: what the file named, such as "argparse.Namespace".
        args: what it was called with.
        state: what it was to be filled with; as a rule {attribute: value}.
        items: {key: value} that were put into it.
        entries: what was appended to it.
    """

    name = ""
    args: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]
    entries: list[Any]

    def __new__(cls, *args: Any) -> StandIn:  # noqa: PYI034  # pickles may call this alone
        made = object.__new__(cls)
        made.args, made.state, made.items, made.entries = args, None, {}, []
        return made

    def __init__(self, *args: Any) -> None:
        pass

    def __call__(self, *args: Any) -> StandIn:
        """What calling the result of a call would give."""
        return StandIn(self, *args)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        """As a list would."""
        self.entries.append(value)

    add = append

    def extend(self, values: Any) -> None:
        """As a list would."""
        self.entries.extend(values)

    @property
    def attributes(self) -> dict[Any, Any]:
        """The attributes that the file gives the object: {name: value}."""
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        return {k: v for part in parts if isinstance(part, dict) for k, v in part.items()}


class Dictionary(dict[Any, Any]):
    """In place of the standard library's own kinds of dictionaries."""

    def __init__(self, *args: Any) -> None:
        pairs = args[0] if args else ()
        super().__init__(pairs if isinstance(pairs, (dict, list)) else ())

    def __setstate__(self, state: Any) -> None:
        pass  # PyTorch keeps versions there


class Known:
    """A function of this package in place of one that a file names; it cannot be changed."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __setstate__(self, state: Any) -> None:
        raise PickleError("expected data, found a function that is given a state")


class Reader(pickle._Unpickler):  # noqa: SLF001  # type: ignore[name-defined,misc]
    """The machine, for one file.

    Arguments:
        file: from where it stands.
        known: {name in the file: function of this package that makes something of it}.
        persistent: makes something of a reference to what is outside the pickle.
    """

    def __init__(
        self,
        file: BinaryIO,
        known: Mapping[str, Callable[..., Any]] | None = None,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(file, encoding="latin-1")  # Python 2's texts, and its arrays' bytes
        self._persistent = persistent
        self._named: dict[str, Any] = dict.fromkeys(DICTIONARIES, Dictionary)
        functions = {"_codecs.encode": _encoded, **(known or {})}
        self._named |= {name: Known(function) for name, function in functions.items()}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for ``module.name``. Nothing is imported."""
        full = f"{module}.{name}"
        if full not in self._named:
            self._named[full] = type("StandIn", (StandIn,), {"name": full})
        return self._named[full]

    def persistent_load(self, pid: Any) -> Any:
        """What a reference stands for."""
        if self._persistent is None:
            raise PickleError("expected a pickle that is complete, found a reference to elsewhere")
        return self._persistent(pid)

    def load(self) -> Any:
        """The next object of the file. Raises ``PickleError``."""
        try:
            return super().load()
        except PickleError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever the machine meets in a damaged file
            found = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise PickleError(f"expected a pickle, found a damaged one ({found})") from None


def _encoded(text: Any, encoding: Any = "") -> bytes:
    """How bytes are written where a pickle can hold texts alone."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise PickleError(f"expected bytes as text in latin-1, found {encoding!r}")
    return text.encode("latin-1")


def contents(root: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, object) of an object and of everything below it, once each.

    A path is the keys of dictionaries, the positions in lists and the names of attributes that
    lead there. Raises ``PickleError`` where there is no end to it.
    """
    seen = set()
    ahead: list[tuple[tuple[str, ...], Any]] = [((), root)]
    while ahead:
        path, found = ahead.pop()
        yield path, found
        if id(found) not in seen and (inside := list(children(found))):
            seen.add(id(found))
            ahead += [((*path, key), value) for key, value in reversed(inside)]
        if len(seen) + len(ahead) > MOST_OBJECTS:
            raise PickleError(f"expected at most {MOST_OBJECTS:,} objects, found more")


def children(found: Any) -> Iterator[tuple[str, Any]]:
    """(key, object) of what a container or a stand-in holds itself."""
    if isinstance(found, dict):
        yield from ((str(key), value) for key, value in found.items())
    elif isinstance(found, (list, tuple, set, frozenset)):
        yield from ((str(i), value) for i, value in enumerate(found))
    elif isinstance(found, StandIn):
        yield from ((str(key), value) for key, value in found.attributes.items())
        yield from ((str(key), value) for key, value in found.items.items())
        yield from ((str(i), value) for i, value in enumerate([*found.entries, *found.args]))


# --- NumPy's arrays -----------------------------------------------------------------------------


def as_array(found: Any) -> npt.NDArray[Any] | None:
    """The array of numbers that a stand-in describes, also one of JAX; None for anything else."""
    try:
        if not isinstance(found, StandIn):
            return None
        if found.name.endswith("._reconstruct_array"):  # JAX': a function, arguments, a state
            return _array(found.args[2])
        if found.name.startswith("numpy.") and found.name.endswith("._reconstruct"):
            return _array(found.state)
        if found.name.startswith("numpy.") and found.name.endswith("._frombuffer"):
            raw, dtype, shape, order = found.args
            return _array((1, shape, dtype, order == "F", raw))
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise PickleError(f"expected an array, found a damaged one ({error})") from None
    return None


def _array(state: Any) -> npt.NDArray[Any]:
    _, shape, described, in_fortrans_order, raw = state
    dtype = np.dtype(str(described.args[0]))
    if described.state and described.state[1] in ("<", ">"):
        dtype = dtype.newbyteorder(described.state[1])
    if dtype.kind not in NUMBERS or dtype.hasobject:
        raise PickleError(f"expected an array of numbers, found one of {dtype}")
    if isinstance(raw, str):  # Python 2's
        raw = raw.encode("latin-1")
    order: Any = "F" if in_fortrans_order else "C"
    return np.frombuffer(raw, dtype).reshape(tuple(int(n) for n in shape), order=order)
