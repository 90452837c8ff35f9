"""gRPC as bytes and header fields, as they go into HTTP/2 and come out of it.

Pure. The rules are those of "gRPC over HTTP/2" (PROTOCOL-HTTP2.md of grpc/grpc), and the parts of
RFC 9113 that it builds on; where it leaves a choice, we follow grpc-go.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.session import Status, not_one_request

HeaderField = tuple[bytes, bytes]
"""A header field of HTTP/2: a lower-case name, and its value."""

PREFIX_BYTES = 5
"""Bytes before each message: one for a flag, four for its length."""

# "Timeout": at most eight digits and a unit.
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

# "Status-Message": printable ASCII except the percent sign is not encoded.
_ENCODED = re.compile(rb"[^\x20-\x24\x26-\x7e]")

_AUTHORIZATION = b"authorization"

_TEXT = b"text/plain; charset=utf-8"


class RequestHead(NamedTuple):
    """The call that header fields ask for.

    `timeout_s` is None if the call has no deadline; `encoding` is how messages are compressed that
    are flagged as compressed.
    """

    path: str
    timeout_s: float | None
    encoding: str


class HttpRefusal(NamedTuple):
    """The answer to a request that is not gRPC: header fields, and the text of a body."""

    fields: list[HeaderField]
    body: bytes


def request(fields: Iterable[HeaderField]) -> RequestHead | HttpRefusal | Status:
    """The call that a request's header fields ask for, or the refusal."""
    pseudo: dict[bytes, bytes] = {}
    plain: list[HeaderField] = []
    for name, value in fields:
        if name.startswith(b":"):
            pseudo[name] = value
        else:
            plain.append((name, value))
    given = dict(plain)
    # "Requests": a server answers 415 to a content type that is not gRPC's, so that a plain HTTP
    # client does not take our 200 for its answer.
    content_type = given.get(b"content-type", b"")
    if not re.match(rb"application/grpc($|[+;])", content_type):
        return _refusal(b"415", b"this port speaks gRPC: content-type must be application/grpc")
    if pseudo.get(b":method") != b"POST":
        return _refusal(b"405", b"this port speaks gRPC: its calls are POST requests")
    timeout_s = None
    if (timeout := given.get(b"grpc-timeout")) is not None:
        match = _TIMEOUT.fullmatch(timeout)
        if match is None:
            return Status(Code.INTERNAL, "grpc-timeout must be up to 8 digits and a unit")
        timeout_s = int(match[1]) * _UNIT_S[match[2]]
    path = pseudo.get(b":path", b"").decode("latin-1")
    encoding = given.get(b"grpc-encoding", b"identity").decode("latin-1")
    return RequestHead(path, timeout_s, encoding)


def authorization(fields: Iterable[HeaderField]) -> list[bytes]:
    """The values of a call that say who asks: one at most, if its client is clear about that."""
    return [value for name, value in fields if name == _AUTHORIZATION]


def _refusal(status: bytes, text: bytes) -> HttpRefusal:
    fields = [
        (b":status", status),
        (b"content-type", _TEXT),
        (b"grpc-status", b"%d" % Code.UNKNOWN),
        (b"grpc-message", text),
    ]
    return HttpRefusal(fields, text + b"\n")


RESPONSE: list[HeaderField] = [
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity"),
]
"""The header fields at the beginning of every answer."""


def trailers(status: Status) -> list[HeaderField]:
    """The fields that end a call. "Status-Details" is base64 without padding."""
    fields = [(b"grpc-status", b"%d" % status.code)]
    if status.message:
        fields.append((b"grpc-message", percent_encoded(status.message)))
    if status.details:
        encoded = base64.b64encode(status.details).rstrip(b"=")
        fields.append((b"grpc-status-details-bin", encoded))
    return fields


def percent_encoded(message: str) -> bytes:
    """A status message, encoded for its header field."""
    encoded = message.encode("utf-8", "replace")
    return _ENCODED.sub(lambda match: b"%%%02X" % match[0][0], encoded)


def framed(message: bytes) -> bytes:
    """A message with its prefix ("Length-Prefixed-Message"), uncompressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class Messages:
    """Reads messages from the body of a request as it arrives.

    A message is checked at its prefix, before any of it is kept.
    """

    __slots__ = ("_body", "_check_length", "_encoding", "_many", "_to_drop")

    def __init__(self, encoding: str, check_length: Callable[[int], None], *, many: bool) -> None:
        """`encoding` is the call's. `check_length` raises RpcError for a message that is too long.

        Unless `many` may come, what follows the first message is a fault.
        """
        self._many = many
        self._body = bytearray()
        self._to_drop = 0  # Of a message that is dropped, the bytes that have yet to arrive.
        self._encoding = encoding
        self._check_length = check_length

    def feed(self, data: bytes) -> int:
        """Take in more of the body; how many bytes of it are dropped."""
        self._body += data
        return self._drop_arrived() if self._to_drop else 0

    def drop(self) -> int:
        """Drop the first message, even if it is incomplete; how many bytes have come of it."""
        self._to_drop = self.first_bytes
        return self._drop_arrived()

    def _drop_arrived(self) -> int:
        size = min(self._to_drop, len(self._body))
        del self._body[:size]
        self._to_drop -= size
        return size

    @property
    def held(self) -> int:
        """How many bytes are kept."""
        return len(self._body)

    @property
    def missing(self) -> bool:
        """Whether a message has begun to arrive, and is not complete."""
        return 0 < len(self._body) < self.first_bytes

    @property
    def first_bytes(self) -> int:
        """The size of the first message with its prefix; of the prefix, if that is incomplete."""
        if len(self._body) < PREFIX_BYTES:
            return PREFIX_BYTES
        return PREFIX_BYTES + int.from_bytes(self._body[1:PREFIX_BYTES], "big")

    def clear(self) -> None:
        """Drop the bytes that are kept."""
        self._body.clear()

    def fault(self) -> RpcError | None:
        """Why the next message cannot be taken, as far as its bytes show."""
        if len(self._body) < PREFIX_BYTES:
            return None
        try:
            self._check(self._body[0], int.from_bytes(self._body[1:PREFIX_BYTES], "big"))
        except RpcError as error:
            return error
        if not self._many and len(self._body) > self.first_bytes:
            return not_one_request()
        return None

    def only(self) -> bytes:
        """The only message of a complete request. Raises RpcError."""
        message = self.take()
        if message is None or self._body:
            raise not_one_request()
        return message

    def take(self) -> bytes | None:
        """The next message, once it is complete. Raises RpcError if it cannot be taken."""
        body = self._body
        if len(body) < PREFIX_BYTES:
            return None
        length = int.from_bytes(body[1:PREFIX_BYTES], "big")
        self._check(body[0], length)
        end = PREFIX_BYTES + length
        if len(body) < end:
            return None
        message = bytes(memoryview(body)[PREFIX_BYTES:end])
        del body[:end]
        return message

    def _check(self, flag: int, length: int) -> None:
        if flag == 1:
            # "Compression": a server that does not know the algorithm answers UNIMPLEMENTED and
            # names those it knows; a compressed message without an algorithm is an error of the
            # client.
            if self._encoding == "identity":
                raise RpcError(Code.INTERNAL, "a message is compressed, and grpc-encoding says no")
            raise RpcError(
                Code.UNIMPLEMENTED,
                f"requests compressed by {self._encoding} are not taken; send identity",
            )
        if flag:
            raise RpcError(Code.INTERNAL, f"a message begins with {flag}, which is no flag of gRPC")
        self._check_length(length)
