"""Protobuf messages, read without their schema: numbers and lengths of fields.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

NUMBER, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # the wire types


def fields_of(path: Path) -> Mapping[int, int]:
    """Return {number: wire type} of a message's first 1,000 fields; empty if it is not a message.

    Source: https://protobuf.dev/programming-guides/encoding/
    """
    found: dict[int, int] = {}
    at = 0
    size = path.stat().st_size
    with path.open("rb") as opened:
        for _ in range(1000):
            if at == size:
                break
            opened.seek(at)
            start = opened.read(20)
            tag, used = varint(start)
            value, more = varint(start[used:])
            number, wire = tag >> 3, tag & 7
            length = {NUMBER: more, EIGHT_BYTES: 8, BYTES: more + value, FOUR_BYTES: 4}.get(wire, 0)
            at += used + length
            is_field = used and number and length and (more or wire not in (NUMBER, BYTES))
            if not is_field or at > size or found.setdefault(number, wire) != wire:
                return {}
    return found


def varint(content: bytes | memoryview) -> tuple[int, int]:
    """Decode a varint of up to ten bytes: (value, bytes used); (0, 0) if there is none."""
    value = 0
    for i, byte in enumerate(content[:10]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, i + 1
    return 0, 0


def walk(content: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield (number, wire type, content) of each field of a message.

    The content of a number is empty. Raises ``ValueError`` if this is not a complete message.
    """
    at = 0
    while at < len(content):
        tag, used = varint(content[at : at + 10])
        value, more = varint(content[at + used : at + used + 10])
        wire = tag & 7
        length = {NUMBER: more, EIGHT_BYTES: 8, BYTES: more + value, FOUR_BYTES: 4}.get(wire, 0)
        start, at = at + used + (more if wire == BYTES else length), at + used + length
        if not used or not length or at > len(content):
            raise ValueError(f"expected the end of a field, found {len(content)} bytes only")
        yield tag >> 3, wire, content[start:at]


def is_onnx(path: Path) -> bool:
    """Return whether a file has the fields of ONNX's ModelProto, or the name and first byte.

    Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
    """
    with path.open("rb") as file:
        if file.read(1) != b"\x08":  # the IR version
            return False
    if path.name.lower().endswith(".onnx"):  # even if it is truncated
        return True
    fields = fields_of(path)
    return fields.get(1) == NUMBER and fields.get(7) == fields.get(8) == BYTES
