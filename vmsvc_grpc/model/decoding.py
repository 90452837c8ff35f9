"""Readers of JSON and of untyped values that stand whatever comes.

They read as Kubernetes does: `leniency` says where that is more than a shape's letter.

An API server takes 10,000 levels of nesting, where a schema leaves a field open (the
commands of a VM's cloud-init, say); msgspec goes as deep as Python's calls may go, some
1,000, also through what it skips. So one VM would make the list of all VMs unreadable, for
ever.
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
"""How many levels are kept of what is too deep. What we read is within 20."""

# A string, which may hold brackets, or a bracket. Possessive: no text makes it go back.
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


class ShapeError(msgspec.ValidationError):
    """A value does not fit a shape: `field` says where, as Kubernetes writes it.

    `message` says what is wrong and may show the value; the error's own text does not, as
    the value may be a secret.
    """

    def __init__(self, found: Misfit) -> None:
        super().__init__(f"{found.field}: {found.secretive}")
        self.field = found.field
        self.message = found.message


def decoder(shape: type[T]) -> Callable[[bytes | msgspec.Raw], T]:
    """Decodes JSON as `shape`; of what is nested too deep, only LEVELS_MAX levels.

    What it returns raises msgspec.DecodeError; if the shape is another, its subclass
    ShapeError.
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
    """The same for an object given as mappings and lists. Raises ShapeError."""
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
    """What the bytes say as mappings and lists. Raises DecodeError, and ShapeError for numbers."""
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        return _untyped(shallow(bytes(raw)), shape)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(str(error)) from error
    except msgspec.ValidationError:
        # A number is beyond all bounds. Python keeps it, so that its place can be found.
        with_number = json.loads(shallow(bytes(raw)), parse_int=_whole_number)
        raise ShapeError(misfit(as_meant(with_number, shape), shape)) from None


def _whole_number(digits: str) -> int | float:
    # Python refuses to read one of 5,000 digits as a whole number.
    return int(digits) if len(digits) <= _DIGITS_MAX else float(digits)


def shallow(raw: bytes) -> bytes:
    """The same JSON, with null for each list or object beyond LEVELS_MAX. O(bytes).

    What is no JSON stays none.
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
