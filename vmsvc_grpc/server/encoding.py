"""Fields of protobuf as bytes, for data that is encoded too often to be built as messages."""

from __future__ import annotations

_SEVEN_BITS = 0x7F
_LENGTH = 2  # The wire type of texts, bytes and messages: the length comes first.


def varint(number: int) -> bytes:
    """A number in the encoding of protobuf: seven bits a byte, the lowest first."""
    if number <= _SEVEN_BITS:
        return bytes((number,))
    encoded = []
    while number > _SEVEN_BITS:
        encoded.append(number & _SEVEN_BITS | 0x80)
        number >>= 7
    return bytes((*encoded, number))


def header(number: int, size: int) -> bytes:
    """The beginning of a field with so many bytes of content: number, wire type and length.

    The number is at most 15.
    """
    if size <= _SEVEN_BITS:
        return bytes((number << 3 | _LENGTH, size))
    return b"%c%b" % (number << 3 | _LENGTH, varint(size))


def bytes_field(number: int, content: bytes) -> bytes:
    """A field of text, bytes or a message; its number is at most 15.

    An empty one is written too; protobuf would leave it out.
    """
    return header(number, len(content)) + content


def number_field(number: int, value: int) -> bytes:
    """A field with a number that is not negative; `number`, that of the field, is at most 15."""
    return b"%c%b" % (number << 3, varint(value))
