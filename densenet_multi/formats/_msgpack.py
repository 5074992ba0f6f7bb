"""MessagePack as Flax writes it, read and written without Flax.

``flax.serialization.to_bytes`` writes a map of maps, whose leaves are numbers, strings and arrays.
An array is an extension of type 1 (a NumPy scalar: type 3) that holds the array's shape, the name
of its dtype and its bytes. Such a file is only data: nothing in it can be run.
Source: https://github.com/msgpack/msgpack/blob/master/spec.md and
https://github.com/google/flax/blob/main/flax/serialization.py
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..weights import WeightsError
from ._safetensors import from_bfloat16

MOST_OBJECTS = 1_000_000  # a training state of densenet264 has 3,000
DEEPEST = 100  # nested maps
DTYPES = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
DTYPES += ("float16", "float32", "float64")
ARRAY, SCALAR = 1, 3  # Flax's extension types
NUMBERS = {0xCA: "f", 0xCB: "d", 0xCC: "B", 0xCD: "H", 0xCE: "I", 0xCF: "Q"}
NUMBERS |= {0xD0: "b", 0xD1: "h", 0xD2: "i", 0xD3: "q"}
CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
SIZED = {  # first byte -> kind, and the struct format of the length that follows
    0xC4: ("bytes", "B"),
    0xC5: ("bytes", "H"),
    0xC6: ("bytes", "I"),
    0xC7: ("extension", "B"),
    0xC8: ("extension", "H"),
    0xC9: ("extension", "I"),
    0xD9: ("text", "B"),
    0xDA: ("text", "H"),
    0xDB: ("text", "I"),
    0xDC: ("list", "H"),
    0xDD: ("list", "I"),
    0xDE: ("map", "H"),
    0xDF: ("map", "I"),
}


def is_msgpack(head: bytes) -> bool:
    """Return whether a file starts like a map whose first key is a short name."""
    starts = {0xDE: 3, 0xDF: 5} | dict.fromkeys(range(0x81, 0x90), 1)
    at = starts.get(head[0], len(head)) if head else 0
    if at >= len(head) or not 0xA1 <= head[at] <= 0xBF:
        return False
    name = head[at + 1 : at + 1 + (head[at] & 31)]
    return name.isascii() and name.decode().isprintable()


def read_msgpack(content: bytes | memoryview) -> Any:
    """Parse a file into dictionaries, lists, strings, numbers and NumPy arrays.

    Bytes and arrays are views of the content. A bfloat16 array becomes float32; an array whose
    dtype is not in ``DTYPES`` becomes None. Raises ``WeightsError`` if the file is damaged
    or of another kind.
    """
    reader = _Reader(memoryview(content))
    found = reader.next()
    if reader.at != len(content):
        raise WeightsError("expected the end of the file after the MessagePack map, found more")
    return found


class _Reader:
    """A reader with a position in a file; ``next`` parses the object at that position."""

    def __init__(self, content: memoryview) -> None:
        self.content, self.at, self.objects = content, 0, 0

    def take(self, count: int) -> memoryview:
        taken = self.content[self.at : self.at + count]
        if len(taken) != count:
            raise WeightsError(
                "expected MessagePack, found a damaged file or another kind (it ends within the "
                f"next {count:,} bytes)"
            )
        self.at += count
        return taken

    def number(self, layout: str) -> Any:
        return struct.unpack(">" + layout, self.take(struct.calcsize(layout)))[0]

    def next(self, depth: int = 0) -> Any:
        self.objects += 1
        if self.objects > MOST_OBJECTS or depth > DEEPEST:
            raise WeightsError(
                f"expected at most {MOST_OBJECTS:,} objects, {DEEPEST} levels deep, found more"
            )
        first = self.number("B")
        if first < 0x80 or first >= 0xE0:
            return first if first < 0x80 else first - 256
        if first < 0xC0:  # the length is in the byte itself
            kind = "map" if first < 0x90 else "list" if first < 0xA0 else "text"
            return self.sized(kind, first & (31 if kind == "text" else 15), depth)
        if first in CONSTANTS:
            return CONSTANTS[first]
        if first in NUMBERS:
            return self.number(NUMBERS[first])
        if 0xD4 <= first <= 0xD8:
            return self.sized("extension", 1 << (first - 0xD4), depth)
        if first in SIZED:
            kind, layout = SIZED[first]
            return self.sized(kind, self.number(layout), depth)
        raise WeightsError(f"expected MessagePack, found an object that starts with {first:#x}")

    def sized(self, kind: str, count: int, depth: int) -> Any:
        if kind == "map":
            found: dict[str, Any] = {}
            for _ in range(count):
                key = str(self.next(depth + 1))
                if key in found:
                    raise WeightsError(f"{key:.60}: found twice in one map")
                found[key] = self.next(depth + 1)
            return found
        if kind == "list":
            return [self.next(depth + 1) for _ in range(count)]
        if kind == "bytes":
            return self.take(count)
        if kind == "text":
            return str(self.take(count), "utf-8", "replace")
        code, content = self.number("b"), self.take(count)
        return _array(content) if code in (ARRAY, SCALAR) else None


def _array(content: memoryview) -> npt.NDArray[Any] | None:
    described = read_msgpack(content)
    shape, name, raw = described if isinstance(described, list) and len(described) == 3 else [0] * 3
    if isinstance(name, memoryview):  # as Flax wrote it before 2020
        name = str(name, "ascii", "replace")
    if not isinstance(shape, list) or not isinstance(raw, memoryview) or not isinstance(name, str):
        raise WeightsError("expected an array's shape, dtype and bytes, found something else")
    narrow = name == "bfloat16"
    if not narrow and name not in DTYPES:
        return None
    dtype = np.dtype("<u2" if narrow else name)
    counts = all(type(n) is int and n >= 0 for n in shape) and len(shape) <= 32
    if not counts or math.prod(shape) * dtype.itemsize != len(raw):
        raise WeightsError(
            f"expected an array of shape {shape!r:.60} and dtype {name}, found {len(raw):,} bytes"
        )
    array = np.frombuffer(raw, dtype).reshape(shape)
    return from_bfloat16(array) if narrow else array


# --- Writing ------------------------------------------------------------------------------------

IN_ONE_BYTE = {"map": (0x80, 16), "list": (0x90, 16), "text": (0xA0, 32)}  # includes the length


def to_msgpack(tree: Mapping[str, Any]) -> bytes:
    """Serialize nested dictionaries of arrays, exactly as Flax's ``to_bytes`` does."""
    packed = [_start("map", len(tree))]
    for key, value in tree.items():
        packed += [_text(key), to_msgpack(value) if isinstance(value, Mapping) else _packed(value)]
    return b"".join(packed)


def _packed(array: npt.NDArray[Any]) -> bytes:
    raw = array.tobytes()
    shape = [_start("list", array.ndim), *map(_integer, array.shape)]
    named = [_text(array.dtype.name), _start("bytes", len(raw)), raw]
    inside = b"".join([_start("list", 3), *shape, *named])
    return _start("extension", len(inside)) + struct.pack(">b", ARRAY) + inside


def _text(text: str) -> bytes:
    return _start("text", len(text.encode())) + text.encode()


def _integer(number: int) -> bytes:
    if number < 0x80:
        return bytes([number])
    byte, layout = next((b, n) for b, n in NUMBERS.items() if n in "BHI" and number < _limit(n))
    return struct.pack(f">B{layout}", byte, number)


def _start(kind: str, count: int) -> bytes:
    """Return the shortest header for an object of this length."""
    first, most = IN_ONE_BYTE.get(kind, (0, 0))
    if count < most:
        return bytes([first + count])
    sizes = (size for size in SIZED.items() if size[1][0] == kind and count < _limit(size[1][1]))
    byte, (_, layout) = next(sizes)
    return struct.pack(f">B{layout}", byte, count)


def _limit(layout: str) -> int:
    return 1 << 8 * struct.calcsize(layout)
