"""Reads one line of a watch, in one scan of its bytes. Pure.

Most lines have the expected shape: envelope, resource version and object are read in one go. Others
(an error, an object of the wrong shape, one nested too deep) are read part by part, as far as
possible.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import msgspec

from vmsvc_grpc.model.decoding import decoder
from vmsvc_grpc.model.from_wire import ParseError
from vmsvc_grpc.model.objects import Key, Kind, Object
from vmsvc_grpc.source.slim import SLIM_SHAPES, read_slim, slim

_DELETED, _BOOKMARK, _ERROR = "DELETED", "BOOKMARK", "ERROR"
_HELD = frozenset({"ADDED", "MODIFIED"})


class Changed(NamedTuple):
    """The object was added or modified: as it is now, or why it cannot be read."""

    resource_version: str
    object: Object | ParseError


class Deleted(NamedTuple):
    """The object was deleted."""

    resource_version: str
    key: Key


class Bookmark(NamedTuple):
    """Nothing has changed up to this resource version."""

    resource_version: str


class Error(msgspec.Struct):
    """The watch is over. `code` is an HTTP status."""

    code: int = 0
    message: str = ""
    reason: str = ""


Line = Changed | Deleted | Bookmark | Error

ReadLine = Callable[[bytes], Line]
"""Reads one line. Raises msgspec.DecodeError if it cannot be read, or lacks a resource version."""


class LineMeta(msgspec.Struct, rename="camel"):
    """An object's resource version, and its name."""

    # A watch without one would begin at any moment, and objects deleted before that would stay.
    resource_version: Annotated[str, msgspec.Meta(min_length=1)]
    name: str = ""
    namespace: str = ""


class _Named(msgspec.Struct):
    metadata: LineMeta


class _Envelope(msgspec.Struct):
    type: str
    object: msgspec.Raw


_decode_envelope = decoder(_Envelope)
_decode_named = decoder(_Named)
_decode_error = decoder(Error)


def line_reader(kind: Kind) -> ReadLine:
    """A reader of the lines of a watch of one kind."""
    fields = [("type", str), ("object", SLIM_SHAPES[kind])]
    decode = msgspec.json.Decoder(msgspec.defstruct("Line", fields, gc=False)).decode

    def read(raw: bytes) -> Line:
        try:
            line: Any = decode(raw)
            meta = line.object.metadata
            if meta.resource_version:
                if line.type in _HELD:
                    return Changed(meta.resource_version, _slim_or_error(line.object))
                if line.type == _DELETED:
                    key = Key(meta.namespace or "", meta.name)
                    return Deleted(meta.resource_version, key)
                if line.type == _BOOKMARK:
                    return Bookmark(meta.resource_version)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            pass
        return _read_by_parts(kind, raw)

    return read


def _slim_or_error(given: Any) -> Object | ParseError:
    try:
        return slim(given)
    except ParseError as error:
        return error


def _read_by_parts(kind: Kind, raw: bytes) -> Line:
    line = _decode_envelope(raw)
    if line.type == _ERROR:
        return _decode_error(line.object)
    meta = _decode_named(line.object).metadata
    if line.type == _BOOKMARK:
        return Bookmark(meta.resource_version)
    if line.type == _DELETED:
        return Deleted(meta.resource_version, Key(meta.namespace, meta.name))
    try:
        return Changed(meta.resource_version, read_slim(kind, line.object))
    except ParseError as error:
        return Changed(meta.resource_version, error)
