"""Read the data in a pickle safely: without importing or calling anything that it names.

A pickle is a program for a small virtual machine. It can name any function of any module,
``os.system`` as well as ``collections.OrderedDict``, and the machine calls it. This reader imports
nothing: each name becomes a ``StandIn``, which records its arguments and does nothing. The result
is data: dictionaries, lists, strings, numbers, and results of functions supplied by the caller.

The virtual machine is the standard library's, written in Python (``pickle._Unpickler``). The faster
one in C allocates as much memory as a number in the file requests. Steps are limited, because a few
bytes can describe nested lists that take forever to read. Source: https://peps.python.org/pep-0307/
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt

MOST_STEPS = 2_000_000  # for a pickle and those inside it; densenet264's takes 60,000
PER_OBJECT = 4  # steps, because an object takes more time and memory than a number
MOST_WORK = 2**25  # of ``contents``: characters in all paths, plus these per object:
PER_NUMBER, PER_CONTAINER = 32, 96
MOST_DIMENSIONS = 8
MOST_NAMES = 5_000  # of classes and functions in one pickle
DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")
BYTES = ("__builtin__.bytes", "builtins.bytes")
PLAIN = (str, bytes, int, float, bool, type(None))
DTYPE = re.compile(r"[<>|=]?(?:f[248]|[iu][1248]|b1|\?)")  # of integers, floats and booleans
BFLOAT16 = np.dtype([("bfloat16", "<u2")])  # NumPy has no bfloat16; this holds its bits
TOO_LARGE = (
    "expected a pickled network, found millions of objects; save only the weights, such as with "
    "torch.save(model.state_dict(), 'NEW.pth')"
)


class PickleError(ValueError):
    """A pickle is damaged, or its contents are not what was expected."""


class StandIn:
    """Placeholder for the result of calling a class or function that a file names.

    Attributes:
        name: of the class or function, such as "argparse.Namespace".
        args: the arguments of the call.
        state: the object's state, usually {attribute: value}.
        items: {key: value} that the file stores in the object.
        entries: values that the file appends to it.
    """

    __slots__ = ("args", "entries", "items", "state")
    name = ""
    args: tuple[Any, ...]
    state: Any
    items: dict[Any, Any] | None
    entries: list[Any] | None

    def __new__(cls, *args: Any, **more: Any) -> StandIn:  # noqa: PYI034  # NEWOBJ: no __init__
        made = object.__new__(cls)
        made.args = (*args, *more.values())
        made.state, made.items, made.entries = None, None, None
        return made

    def __init__(self, *args: Any) -> None:
        pass  # object.__init__ accepts no arguments

    def __call__(self, *args: Any) -> StandIn:
        """Record a call of this object, as a new placeholder."""
        return StandIn(self, *args)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items = self.items or {}
        self.items[key] = value

    def append(self, value: Any) -> None:
        """Record a value that the file appends, as to a list."""
        self.extend((value,))

    add = append

    def extend(self, values: Any) -> None:
        """Record values that the file appends, as to a list."""
        self.entries = self.entries or []
        self.entries.extend(values)

    @property
    def attributes(self) -> dict[Any, Any]:
        """The attributes that the file sets on the object, {name: value}."""
        if isinstance(self.state, dict):
            return self.state
        parts = self.state if isinstance(self.state, tuple) else ()
        return {k: v for part in parts if isinstance(part, dict) for k, v in part.items()}


class Inert:
    """Base of objects that the reader provides; the state in a file cannot change them."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class Dictionary(Inert, dict[Any, Any]):
    """A replacement for the standard library's subclasses of dict."""

    __slots__ = ()


class Known(Inert):
    """A function of this package that is called in place of one that a file names."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class Text(str):
    """A string from Python 2, whose bytes may be the data of an array."""

    __slots__ = ("raw",)
    raw: bytes


class Tuple(tuple[Any, ...]):
    """A tuple hashed by identity; Python's own hash would visit shared contents many times."""

    __slots__ = ()
    __hash__ = object.__hash__


Step = Callable[["Reader"], None]


def _calling(step: Step) -> Step:
    def calling(reader: Reader) -> None:
        # each call copies its arguments
        reader.budget.spend(PER_OBJECT + len(reader.stack[-1]))
        step(reader)

    return calling


def _making(step: Step) -> Step:
    def making(reader: Reader) -> None:
        reader.budget.spend(PER_OBJECT)
        step(reader)

    return making


def _making_a_tuple(step: Step) -> Step:
    def making(reader: Reader) -> None:
        step(reader)
        reader.stack[-1] = Tuple(reader.stack[-1])

    return making


class Budget:
    """The number of steps left for a pickle and all pickles inside it."""

    def __init__(self) -> None:
        self.left = MOST_STEPS

    def spend(self, steps: int) -> None:
        """Count steps. Raises ``PickleError`` if there are too many."""
        self.left -= steps
        if self.left < 0:
            raise PickleError(TOO_LARGE)


class Reader(pickle._Unpickler):  # noqa: SLF001  # type: ignore[name-defined,misc]
    """The virtual machine for one file.

    Arguments:
        file: read from its current position.
        known: {name in the file: function of this package to call instead}.
        persistent: a function that resolves a reference to data outside the pickle.
        budget: shared with the pickle that contains this one.
    """

    def __init__(
        self,
        file: BinaryIO,
        known: Mapping[str, Callable[..., Any]] | None = None,
        persistent: Callable[[Any], Any] | None = None,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(file)
        self._file = file
        self.budget = budget or Budget()
        self._persistent = persistent
        self._bytes: dict[str, bytes] = {}
        functions: dict[str, Callable[..., Any]] = dict.fromkeys(DICTIONARIES, self._dictionary)
        functions |= {"_codecs.encode": self._encoded, **dict.fromkeys(BYTES, _no_bytes)}
        functions |= known or {}
        self._named: dict[str, Any] = {name: Known(made) for name, made in functions.items()}

    def find_class(self, module: str, name: str) -> Any:
        """Return the placeholder class, or our replacement, for ``module.name``; import nothing."""
        full = f"{module}.{name}"
        if full not in self._named:
            if len(self._named) > MOST_NAMES:
                raise PickleError(TOO_LARGE)
            body = {"name": full, "__slots__": ()}
            self._named[full] = type("StandIn", (StandIn,), body)
        return self._named[full]

    def get_extension(self, code: int) -> Any:
        """Reject extension codes: the names that they represent are not in the file."""
        raise PickleError(f"expected a name, found the extension code {code}")

    def persistent_load(self, pid: Any) -> Any:
        """Resolve a reference to data outside the pickle."""
        if self._persistent is None:
            raise PickleError("expected a complete pickle, found a reference to data outside it")
        return self._persistent(pid)

    def load(self) -> Any:
        """Read the next object of the file. Raises ``PickleError``."""
        self.read, self.readline = self._file.read, self._file.readline
        self.metastack: list[list[Any]] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.proto = 0
        steps, budget = self.dispatch, self.budget
        try:
            while code := self.read(1):
                budget.spend(1)
                steps[code[0]](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]  # noqa: SLF001
            return stop.value
        except PickleError:
            raise
        except Exception as error:  # noqa: BLE001  # a damaged file can cause any error
            found = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise PickleError(f"expected a pickle, found a damaged one ({found:.100})") from None
        raise PickleError("expected a complete pickle, found one that ends too early")

    def load_frame(self) -> None:
        """Skip the size of a frame; its contents follow as usual."""
        self.read(8)

    def load_bytearray8(self) -> None:
        """Read a bytearray; unlike pickle's method, do not allocate its stated size first."""
        length = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(length)))

    def load_newobj_ex(self) -> None:
        """Do what pickle's method does, and count the arguments."""
        named, args, kind = (self.stack.pop() for _ in range(3))
        self.budget.spend(len(args) + len(named))
        self.append(kind.__new__(kind, *args, **named))

    dispatch: ClassVar[dict[int, Any]] = pickle._Unpickler.dispatch | {  # noqa: SLF001
        pickle.FRAME[0]: load_frame,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
    }

    def _decode_string(self, value: bytes) -> str:
        text = Text(value, "latin-1")
        text.raw = value
        return text

    def _dictionary(self, *args: Any) -> Dictionary:
        pairs = args[0] if args and isinstance(args[0], (dict, list)) else ()
        self.budget.spend(len(pairs))
        return Dictionary(pairs)

    def _encoded(self, text: Any, encoding: Any = "") -> bytes:
        """Restore bytes, which protocols without a bytes type store as a string."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise PickleError(f"expected bytes as a string in latin-1, found {shown(encoding)}")
        if text not in self._bytes:  # repeated calls share one object
            self._bytes[text] = text.encode("latin-1")
        return self._bytes[text]


def _no_bytes(*_: Any) -> bytes:
    """Return empty bytes: protocols without a bytes type store them as a call without arguments."""
    return b""


for code in pickle.REDUCE + pickle.NEWOBJ:
    Reader.dispatch[code] = _calling(Reader.dispatch[code])
OBJECTS = pickle.EMPTY_DICT + pickle.EMPTY_LIST + pickle.EMPTY_SET + pickle.FROZENSET
for code in OBJECTS + pickle.MARK + pickle.OBJ + pickle.INST:
    Reader.dispatch[code] = _making(Reader.dispatch[code])
for code in pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3:
    Reader.dispatch[code] = _making_a_tuple(Reader.dispatch[code])


def shown(found: Any) -> str:
    """Describe an object in an error: a plain value by its repr, anything else by its type."""
    is_plain = isinstance(found, PLAIN) and not (isinstance(found, int) and abs(found) >= 2**63)
    return f"{found!r:.60}" if is_plain else f"a {type(found).__name__.lower()}"


def contents(root: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (path, object) for an object and everything inside it except plain values.

    A path consists of keys of dictionaries, positions in lists and names of attributes. An object
    with several paths is yielded once per path, but its contents only for the first path. Raises
    ``PickleError`` if this takes too long.
    """
    seen = set()
    work = 0
    ahead: list[tuple[tuple[str, ...], int, Any]] = [((), 0, root)]
    while ahead:
        path, letters, found = ahead.pop()
        yield path, found
        if id(found) in seen:
            continue
        seen.add(id(found))
        inside = []
        for key, value in children(found):
            work += PER_NUMBER
            if not isinstance(value, PLAIN):
                inside.append(((*path, key), letters + len(key) + 1, value))
                work += PER_CONTAINER + inside[-1][1]
            if work > MOST_WORK:
                raise PickleError(TOO_LARGE)
        ahead += reversed(inside)


def children(found: Any) -> Iterator[tuple[str, Any]]:
    """Yield (key, object) for the direct contents of a container or ``StandIn``."""
    if isinstance(found, dict):
        yield from ((_word(key), value) for key, value in found.items())
    elif isinstance(found, (list, tuple, set, frozenset)):
        yield from ((str(i), value) for i, value in enumerate(found))
    elif isinstance(found, StandIn):
        yield from children(found.attributes)
        yield from children(found.items)
        yield from children(found.entries)
        yield from children(found.args)


def _word(key: Any) -> str:
    """Return a key as a part of a path."""
    if isinstance(key, str):
        return key
    return shown(key)


# --- NumPy's arrays -----------------------------------------------------------------------------


def as_array(found: Any) -> npt.NDArray[Any] | None:
    """Return the array of numbers (NumPy's or JAX's) that a ``StandIn`` describes, else None.

    The array is a view of the bytes in the pickle; bfloat16 has the dtype ``BFLOAT16``. Raises
    ``PickleError``.
    """
    try:
        if not isinstance(found, StandIn):
            return None
        if found.name.endswith("._reconstruct_array"):  # JAX: a function, its arguments, a state
            return _array(found.args[2])
        if found.name.startswith("numpy.") and found.name.endswith("._reconstruct"):
            return _array(found.state)
        if found.name.startswith("numpy.") and found.name.endswith("._frombuffer"):
            raw, dtype, shape, order = found.args
            return _array((1, shape, dtype, order == "F", raw))
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise PickleError(f"expected an array, found a damaged one ({error})") from None
    return None


def _array(state: Any) -> npt.NDArray[Any] | None:
    _, shape, described, in_fortrans_order, raw = state
    code = described.args[0]
    if _is_bfloat16(code):
        dtype = BFLOAT16
    elif isinstance(code, str) and DTYPE.fullmatch(code):
        dtype = np.dtype(str(code))
    else:  # strings, dates, objects
        return None
    if described.state and described.state[1] in ("<", ">"):
        dtype = dtype.newbyteorder(described.state[1])
    if not isinstance(shape, tuple) or len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"its shape is {shown(shape)}")
    order: Any = "F" if in_fortrans_order else "C"
    return np.frombuffer(getattr(raw, "raw", raw), dtype).reshape(shape, order=order)


def _is_bfloat16(code: Any) -> bool:
    """Return whether a dtype is the bfloat16 class of JAX or TensorFlow, from any module."""
    is_class = isinstance(code, type) and issubclass(code, StandIn)
    return is_class and code.name.rpartition(".")[2] == "bfloat16"
