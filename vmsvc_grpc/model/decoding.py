"""Decoders of JSON and of untyped values that cope with any input.

They read as Kubernetes does: `leniency` has what Kubernetes accepts beyond a shape.

An API server accepts 10,000 levels of nesting where a schema leaves a field open (as the commands
of a VM's cloud-init); msgspec only goes as deep as Python's calls, some 1,000, even in what it
skips. So one VM could make the list of all VMs unreadable, for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from vmsvc_grpc.model.leniency import as_meant
from vmsvc_grpc.model.misfit import Misfit, misfit

T = TypeVar("T")

_DIGITS_MAX = 100  # 64 bits have 19.

LEVELS_MAX = 100
"""How many levels are kept of a value that is too deep. What we read is within 20."""

# A string, which may contain brackets, or a bracket. Possessive, so it never backtracks.
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


class ShapeError(msgspec.ValidationError):
    """A value does not fit a shape. `field` is its path, as Kubernetes writes it.

    `message` says what is wrong, and may show the value; the error's own text does not, as the
    value may be a secret.
    """

    def __init__(self, found: Misfit) -> None:
        super().__init__(f"{found.field}: {found.secretive}")
        self.field = found.field
        self.message = found.message


def decoder(shape: type[T]) -> Callable[[bytes | msgspec.Raw], T]:
    """A decoder of JSON as `shape`; of a value that is nested too deep, it keeps LEVELS_MAX levels.

    It raises msgspec.DecodeError, and its subclass ShapeError for JSON of another shape.
    """
    decode = msgspec.json.Decoder(shape).decode

    def decoded(raw: bytes | msgspec.Raw) -> T:
        try:
            return decode(raw)
        except RecursionError:
            return decoded(shallow(bytes(raw)))
        except UnicodeDecodeError as error:
            raise msgspec.DecodeError(str(error)) from error
        except msgspec.ValidationError:
            return _as_meant(_untyped(raw, shape), shape)

    return decoded


def converted(untyped: Any, shape: type[T]) -> T:
    """An object given as mappings and lists, as `shape`. Raises ShapeError."""
    try:
        return msgspec.convert(untyped, shape)
    except msgspec.ValidationError:
        return _as_meant(untyped, shape)


def _as_meant(untyped: Any, shape: type[T]) -> T:
    meant = as_meant(untyped, shape)
    try:
        return msgspec.convert(meant, shape)
    except msgspec.ValidationError as error:
        raise ShapeError(misfit(meant, shape)) from error


def _untyped(raw: bytes | msgspec.Raw, shape: type) -> Any:
    """The bytes as mappings and lists. Raises DecodeError, and ShapeError for numbers."""
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        return _untyped(shallow(bytes(raw)), shape)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(str(error)) from error
    except msgspec.ValidationError:
        # A number is too large. Python keeps it, so that its place can be found. What comes after
        # it, msgspec has not seen.
        try:
            with_number = json.loads(shallow(bytes(raw)), parse_int=_whole_number)
        except ValueError as error:  # Also UnicodeDecodeError.
            raise msgspec.DecodeError(str(error)) from error
        raise ShapeError(misfit(as_meant(with_number, shape), shape)) from None


def _whole_number(digits: str) -> int | float:
    # Python refuses to read 5,000 digits as a whole number.
    return int(digits) if len(digits) <= _DIGITS_MAX else float(digits)


def shallow(raw: bytes) -> bytes:
    """The same JSON, with null for each list or object beyond LEVELS_MAX. O(bytes).

    Text that is not JSON is still not JSON afterwards.
    """
    kept: list[bytes] = []
    level, start = 0, 0
    for token in _TOKENS.finditer(raw):
        match token[0]:
            case b"[" | b"{":
                level += 1
                if level == LEVELS_MAX + 1:
                    kept.append(raw[start : token.start()])
            case b"]" | b"}":
                if level == LEVELS_MAX + 1:
                    kept.append(b"null")
                    start = token.end()
                level -= 1
    if level <= LEVELS_MAX:
        kept.append(raw[start:])
    return b"".join(kept)
