"""gRPC's own test service (grpc/testing/test.proto), as the methods that a transport of ours takes.

Without what no method of ours can say: metadata of its own, and compressed messages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any

from tests.interop.messages import kind
from vmsvc_grpc.server.access.needs import OPEN, Needs
from vmsvc_grpc.server.call import (
    Call,
    Code,
    EndOfStream,
    Method,
    RequestBound,
    RpcError,
    Stream,
    StreamMethod,
    UnaryMethod,
    Wake,
)

OPEN_TO_ALL = Needs(OPEN)

_SERVICE = "/grpc.testing.TestService"


def methods() -> Iterator[Method]:
    """All methods but UnimplementedCall."""
    many = RequestBound.MANY_NAMES
    yield UnaryMethod(f"{_SERVICE}/EmptyCall", lambda _request, _call: b"", many, {}, OPEN_TO_ALL)
    yield UnaryMethod(f"{_SERVICE}/UnaryCall", _unary, many, {}, OPEN_TO_ALL)
    for name, stream, streams in (
        ("StreamingOutputCall", Outputs, False),
        ("FullDuplexCall", Outputs, True),
        ("StreamingInputCall", Inputs, True),
    ):
        yield StreamMethod(
            f"{_SERVICE}/{name}", stream, many, {}, OPEN_TO_ALL, client_streaming=streams
        )


def _unary(request: bytes, _call: Call) -> bytes:
    asked: Any = kind("SimpleRequest").FromString(request)
    _fail_as_asked(asked)
    return _payload("SimpleResponse", asked.response_size)


def _fail_as_asked(asked: Any) -> None:
    if asked.response_status.code:
        raise RpcError(Code(asked.response_status.code), asked.response_status.message)


def _payload(name: str, size: int) -> bytes:
    response: Any = kind(name)()
    response.payload.body = bytes(size)
    return bytes(response.SerializeToString())


class Outputs(Stream):
    """Says what each request asks for, in order, each after its interval."""

    quiet = False
    shared = None

    def __init__(self, _call: Call, wake: Wake) -> None:
        self._wake = wake
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._slept = False

    def receive(self, request: bytes) -> None:
        asked: Any = kind("StreamingOutputCallRequest").FromString(request)
        _fail_as_asked(asked)
        for each in asked.response_parameters:
            response = _payload("StreamingOutputCallResponse", each.size)
            self._waiting.append((each.interval_us / 1e6, response))

    def half_close(self) -> None:
        self._ended = True

    def next_message(self) -> bytes | None:
        if not self._waiting:
            if self._ended:
                raise EndOfStream
            return None
        interval_s, response = self._waiting[0]
        if interval_s and not self._slept:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(interval_s, self._awake)
            return None
        self._slept = False
        self._waiting.popleft()
        return response

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _awake(self) -> None:
        self._timer = None
        self._slept = True
        self._wake()


class Inputs(Stream):
    """Says how many bytes its requests had, once there are no more.

    quiet = False
    shared = None

    Nothing to who has sent none: a client that cancels and ends its requests in one breath, as
    cancel_after_begin does, may still take an answer for one that came before it cancelled.
    """

    def __init__(self, _call: Call, _wake: Wake) -> None:
        self._size = 0
        self._begun = self._ended = self._said = False

    def receive(self, request: bytes) -> None:
        self._begun = True
        asked: Any = kind("StreamingInputCallRequest").FromString(request)
        self._size += len(asked.payload.body)

    def half_close(self) -> None:
        self._ended = True

    def next_message(self) -> bytes | None:
        if not (self._begun and self._ended):
            return None
        if self._said:
            raise EndOfStream
        self._said = True
        response: Any = kind("StreamingInputCallResponse")(aggregated_payload_size=self._size)
        return bytes(response.SerializeToString())

    def close(self) -> None:
        pass
