"""The fields of a request in protobuf, counted before protobuf reads them.

The bytes of a request do not bound the memory that protobuf needs for it: 4 MiB can hold two
million empty messages, each of which takes a hundred bytes. This reads tags and lengths only, and
keeps nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

FieldShape: TypeAlias = "Mapping[int, FieldShape]"
"""The fields of a message that are messages, by number, with their shapes; may be circular."""

_STEP_FIELDS = 8_000  # Some 3 ms.

# The types of fields on the wire, as protobuf encodes them in a tag.
_TYPE_BITS = 3
_TYPE_MASK = (1 << _TYPE_BITS) - 1
_VARINT, _FIXED64, _SIZED, _START, _END, _FIXED32 = range(6)
_BYTES = {_FIXED64: 8, _START: 0, _END: 0, _FIXED32: 4}
# By how much a field changes the depth of groups. Whether the numbers of a group's begin and end
# match is not checked: if they do not, protobuf refuses the message.
_GROUPS = {_START: 1, _END: -1}

_VARINT_BITS = 7
_VARINT_MORE = 1 << _VARINT_BITS
_VARINT_BYTES_MAX = 10


def shape_of(message: Any) -> FieldShape:
    """The shape of a message, by its descriptor."""
    return _shape(message, {})


def _shape(message: Any, known: dict[str, dict[int, FieldShape]]) -> FieldShape:
    shape = known.get(message.full_name)
    if shape is None:
        shape = known[message.full_name] = {}
        for field in message.fields:
            # A known group is like an unknown one; no request has one.
            if field.message_type is not None and field.type != field.TYPE_GROUP:
                shape[field.number] = _shape(field.message_type, known)
    return shape


def counted(request: bytes, shape: FieldShape) -> Iterator[int]:
    """The number of fields counted so far, after each step of some ms, and in the end.

    Fields of nested messages and groups count too, known or not: no fewer than protobuf reads. An
    error ends only the message that it is in, as a reader of the outer message may skip that one.
    Bytes in an unknown group, which protobuf skips, do not count as messages. O(fields).
    """
    count, at, end, groups = 0, 0, len(request), 0
    around: list[tuple[int, FieldShape]] = []  # The messages that this one is in.
    while at < end or around:
        if at >= end:
            at, groups = end, 0
            end, shape = around.pop()
            continue
        count += 1
        if count % _STEP_FIELDS == 0:
            yield count
        try:
            # Most numbers have one byte. It is read here, as a call would take as long as all the
            # rest.
            tag, at = request[at], at + 1
            if tag >= _VARINT_MORE:
                tag, at = _varint(request, at - 1)
            if tag & _TYPE_MASK != _SIZED:
                at = _past_number(request, at, tag & _TYPE_MASK)
                groups += _GROUPS.get(tag & _TYPE_MASK, 0)
                continue
            size, at = request[at], at + 1
            if size >= _VARINT_MORE:
                size, at = _varint(request, at - 1)
        except (IndexError, KeyError, ValueError):
            at = end
            continue
        inner = None if groups else shape.get(tag >> _TYPE_BITS)
        if inner is not None and size:
            around.append((end, shape))
            end, shape = min(at + size, end), inner
        else:
            at += size
    yield count


def _past_number(request: bytes, at: int, wire_type: int) -> int:
    """The end of a field that is a number, or that begins or ends a group."""
    return _varint(request, at)[1] if wire_type == _VARINT else at + _BYTES[wire_type]


def _varint(request: bytes, at: int) -> tuple[int, int]:
    """The number at a position, and where it ends."""
    value = 0
    for place in range(_VARINT_BYTES_MAX):
        byte = request[at + place]
        value += (byte & _VARINT_MORE - 1) << _VARINT_BITS * place
        if byte < _VARINT_MORE:
            return value, at + place + 1
    raise ValueError("a number does not end")
