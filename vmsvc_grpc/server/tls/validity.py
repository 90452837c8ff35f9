"""From when until when a certificate is valid, read from its DER (RFC 5280, 4.1).

The `ssl` module says it of a peer's certificate and of a CA's, but not of our own.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple

# Tags of X.690. The version, which may be left out, is [0].
_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0

# A length with this bit is the number of bytes that the length itself has.
_LONG = 0x80
_LENGTH_BYTES_MAX = 4

# RFC 5280, 4.1.2.5: in UTC, with seconds.
_TIMES = {
    _UTC_TIME: re.compile(rb"(\d{2})(\d{10})Z"),
    _GENERALIZED_TIME: re.compile(rb"(\d{4})(\d{10})Z"),
}

# RFC 5280, 4.1.2.5.1: from here on two digits mean the last century.
_LAST_CENTURY = 50


class CertificateError(ValueError):
    """Bytes are no certificate."""


class Validity(NamedTuple):
    """Seconds since 1970 at which a certificate begins to be valid, and at which it expires."""

    begins: float
    ends: float


def validity(der: bytes) -> Validity:
    """The validity of a certificate. Raises CertificateError."""
    try:
        _, inner, _ = _element(der, 0, _SEQUENCE)
        _, at, _ = _element(der, inner, _SEQUENCE)  # The part that is signed.
        tag, _, end = _element(der, at)
        if tag == _VERSION:
            at = end
        for _ in range(3):  # Serial number, algorithm, issuer.
            _, _, at = _element(der, at)
        _, at, _ = _element(der, at, _SEQUENCE)
        begins, at = _time(der, at)
        ends, _ = _time(der, at)
    except (IndexError, ValueError) as error:
        raise CertificateError("is no certificate") from error
    return Validity(begins, ends)


def _element(der: bytes, at: int, expected: int | None = None) -> tuple[int, int, int]:
    """The element at a place: its tag, where its content begins, and where it ends."""
    tag, length = der[at], der[at + 1]
    at += 2
    if length >= _LONG:
        count = length - _LONG
        if not 0 < count <= _LENGTH_BYTES_MAX:
            raise ValueError("a length that no certificate has")
        length = int.from_bytes(der[at : at + count], "big")
        at += count
    if at + length > len(der) or (expected is not None and tag != expected):
        raise ValueError("another element, or a part of one")
    return tag, at, at + length


def _time(der: bytes, at: int) -> tuple[float, int]:
    """The time at a place, and where the next element begins."""
    tag, begin, end = _element(der, at)
    found = _TIMES[tag].fullmatch(der[begin:end]) if tag in _TIMES else None
    if found is None:
        raise ValueError("no time")
    year = int(found[1])
    if tag == _UTC_TIME:
        year += 1900 if year >= _LAST_CENTURY else 2000
    rest = found[2].decode()
    numbers = [int(rest[place : place + 2]) for place in range(0, len(rest), 2)]
    month, day, hour, minute, second = numbers
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp(), end
