"""A small server on libnghttp2, and a client that does what no library of gRPC would do."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

import ngh2
from ngh2 import ErrorCode, Setting, events

from tests.integration.serving import PATIENCE_S, until
from vmsvc_grpc.server.access.gate import OpenGate
from vmsvc_grpc.server.access.needs import OPEN, Needs
from vmsvc_grpc.server.admission import Admission
from vmsvc_grpc.server.call import (
    LATER,
    Call,
    EndOfStream,
    Later,
    Method,
    RequestBound,
    Stream,
    StreamMethod,
    UnaryMethod,
    Wake,
)
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import Sessions
from vmsvc_grpc.server.transport import Listener
from vmsvc_grpc.server.transport.grpc_wire import HeaderField
from vmsvc_grpc.server.transport.http2 import Http2

OPEN_TO_ALL = Needs(OPEN)

Kind = TypeVar("Kind", bound=events.Event)

GRPC: HeaderField = (b"content-type", b"application/grpc")

ECHO, LARGE, WATCH, BOTH = "/toy.Toy/Echo", "/toy.Toy/Large", "/toy.Toy/Watch", "/toy.Toy/Both"

LARGE_BYTES = 100_000

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def asking(path: str) -> list[HeaderField]:
    """The header fields of any call; what it sends is to be added."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"toy"),
        (b"te", b"trailers"),
    ]


@dataclass
class Watching:
    """A stream that says what is newest, when it is woken."""

    wake: Wake
    newest: bytes | None = None
    asked: int = 0
    requests: list[bytes] = field(default_factory=list)
    half_closed: bool = False
    closed: bool = False
    later: int = 0
    later_s: float = 0.0
    close_s: float = 0.0
    shared: None = None

    def receive(self, request: bytes) -> None:
        self.requests.append(request)

    def half_close(self) -> None:
        self.half_closed = True

    @property
    def quiet(self) -> bool:
        return self.newest is None

    def next_message(self) -> bytes | Later | None:
        self.asked += 1
        if self.later:
            self.later -= 1
            time.sleep(self.later_s)
            return LATER
        newest, self.newest = self.newest, None
        if newest == b"end":
            raise EndOfStream
        return newest

    def close(self) -> None:
        assert not self.closed
        time.sleep(self.close_s)
        self.closed = True

    def say(self, message: bytes) -> None:
        self.newest = message
        self.wake()


@dataclass
class Toy:
    """A server on the transport, and the streams that it has opened."""

    limits: Limits
    counts: ServerCounts = field(default_factory=ServerCounts)
    streams: list[Watching] = field(default_factory=list)
    answered: int = 0
    port: int = 0
    transport: Http2 = field(init=False)

    def handshakes(self) -> int:
        """How many connections have been accepted, and have yet to agree on TLS."""
        return self.transport.accepting.beginning

    def waiting(self) -> int:
        """How many calls the server's connections keep that have something to say."""
        return sum(len(connection._wanting) for connection in self.transport.connections)

    def unread(self) -> int:
        """How many bytes of what clients have sent are still to be taken in."""
        return sum(sum(map(len, each._came)) for each in self.transport.connections)

    def methods(self) -> Iterator[Method]:
        yield UnaryMethod(
            ECHO, lambda request, _: request, RequestBound.MANY_NAMES, {}, OPEN_TO_ALL
        )
        yield UnaryMethod(LARGE, self._large, RequestBound.ONE_NAME, {}, OPEN_TO_ALL)
        for path in (WATCH, BOTH):
            yield StreamMethod(
                path,
                self._open,
                RequestBound.MANY_NAMES,
                {},
                OPEN_TO_ALL,
                client_streaming=path == BOTH,
            )

    def _large(self, _request: bytes, _call: Call) -> bytes:
        self.answered += 1
        return b"x" * LARGE_BYTES

    def _open(self, _call: Call, wake: Wake) -> Stream:
        self.streams.append(Watching(wake))
        return self.streams[-1]


class Client:
    """HTTP/2 by hand: what a test wants to be sent, and what has come."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, window: int, *, auto: bool
    ) -> None:
        self.engine = ngh2.Connection(
            ngh2.Role.CLIENT,
            ngh2.Configuration(
                auto_window_update=auto,
                peer_max_concurrent_streams=5_000,
                max_send_header_block_length=1_000_000,
            ),
        )
        self.engine.initiate_connection({Setting.INITIAL_WINDOW_SIZE: window})
        self.seen: list[events.Event] = []
        self.over = False
        self._reader = reader
        self._writer = writer

    def call(
        self,
        path: str,
        *bodies: bytes,
        end: bool = True,
        more: tuple[HeaderField, ...] = (),
        now: bool = False,
    ) -> int:
        """Begin a call; its stream's number. `now`: write it before this returns."""
        stream = self.engine.send_request(self.head(path, *more))
        for body in bodies:
            self.engine.send_data(stream, body)
        if end:
            self.engine.end_stream(stream)
        if now:
            os.write(self._writer.get_extra_info("socket").fileno(), self.engine.data_to_send())
        else:
            self.send()
        return stream

    def head(self, path: str, *more: HeaderField) -> list[HeaderField]:
        """The header fields of a call."""
        return [
            *asking(path),
            *(() if any(name == b"content-type" for name, _ in more) else (GRPC,)),
            *more,
        ]

    def write(self, data: bytes) -> None:
        """Write as it is, unless the server has closed."""
        if not self._writer.transport.is_closing():
            self._writer.write(data)

    def send(self) -> None:
        """Write what the engine has."""
        if data := self.engine.data_to_send():
            self.write(data)

    async def until(self, condition: Callable[[], object]) -> None:
        """Read until a condition holds, or the server has closed."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition() and not self.over:
                data = b""
                with suppress(ConnectionError):
                    data = await self._reader.read(65_536)
                if data:
                    self.take(data)
                else:
                    self.over = True

    def take(self, data: bytes) -> None:
        """What the server has written; nothing more is taken in once it has said good-bye."""
        with suppress(ngh2.ConnectionStateError):
            self.engine.receive_data(data)
        self.seen += self.engine.events()
        with suppress(ngh2.ConnectionStateError):
            self.send()
        self.seen += self.engine.events()  # What is sent may be the end of a call that is answered.

    async def fields(self, stream: int) -> dict[bytes, bytes]:
        """All header fields of an answer, once it is whole."""
        await self.until(lambda: self.closed(stream))
        return {
            name: value
            for event in self.seen
            if isinstance(event, events.ResponseReceived | events.TrailersReceived)
            and event.stream_id == stream
            for name, value in event.headers
        }

    async def status(self, stream: int) -> tuple[int, str]:
        """How a call ends."""
        fields = await self.fields(stream)
        return int(fields[b"grpc-status"]), fields.get(b"grpc-message", b"").decode()

    def body(self, stream: int) -> bytes:
        """What has come of an answer's body."""
        found = self.of(events.DataReceived)
        return b"".join(event.data for event in found if event.stream_id == stream)

    def sent(self, stream: int) -> bool:
        """Whether all that was said on a call has gone out."""
        return not self.engine.queued_body_size(stream)

    def closed(self, stream: int) -> bool:
        """Whether a call is over."""
        return any(event.stream_id == stream for event in self.of(events.StreamClosed))

    def of(self, kind: type[Kind]) -> list[Kind]:
        """All events of a kind."""
        return [event for event in self.seen if isinstance(event, kind)]

    def told_to_calm_down(self) -> bytes:
        """Why, by what came last; empty if the server's reset was faster than its word."""
        told = self.of(events.GoAwayReceived)
        assert all(each.error_code == ErrorCode.ENHANCE_YOUR_CALM for each in told)
        return told[-1].debug_data if told else b""

    def close(self) -> None:
        """Go away."""
        self._writer.close()


def made(limits: Limits, methods: Iterable[Method] | None = None) -> Toy:
    """The toy, on the event loop that runs; it listens nowhere yet."""
    toy = Toy(limits)
    sessions = Sessions(Admission(toy.limits, toy.counts), toy.counts, toy.limits, OpenGate())
    toy.transport = Http2(sessions, toy.limits)
    toy.transport.serve(toy.methods() if methods is None else methods)
    return toy


@asynccontextmanager
async def serving(
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
    methods: Iterable[Method] | None = None,
) -> AsyncIterator[Toy]:
    """The toy on a free port, or a server of other `methods`.

    In the end nothing may be left of any call.
    """
    tasks = asyncio.all_tasks()
    toy = made(limits or Limits(), methods)
    transport = toy.transport

    def context() -> ssl.SSLContext:
        assert tls is not None
        return tls

    toy.port = transport.bind(
        Listener("127.0.0.1:0", context if tls else None, guarded=tls is not None)
    )
    await transport.start()
    try:
        yield toy
        await until(lambda: not transport.streams_open)
    finally:
        async with asyncio.timeout(PATIENCE_S):  # A server that does nothing any more fails.
            await transport.stop(0)
    await until(lambda: not transport.connections)
    assert not transport.entrance.in_all
    assert not transport.unread.in_all
    assert all(stream.closed for stream in toy.streams)
    assert not transport.uploads.in_all
    assert not toy.counts.streams_open.total()
    await until(lambda: not asyncio.all_tasks() - tasks - {asyncio.current_task()})


@asynccontextmanager
async def client(
    toy: Toy,
    window: int = 65_535,
    *,
    auto: bool = True,
    address: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Client]:
    """A connection from `address`; without `auto`, it takes in its windows and no more."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", toy.port, local_addr=(address, 0), ssl=tls
    )
    connected = Client(reader, writer, window, auto=auto)
    try:
        yield connected
    finally:
        connected.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
