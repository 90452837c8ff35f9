"""Watches over the transport on libnghttp2 without sockets, read as a test wants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import ngh2
import uvloop
from ngh2 import Setting

from tests.integration.http2_harness import Wire
from tests.integration.http2_toy import GRPC, asking
from tests.integration.serving import PATIENCE_S, WATCH
from tests.unit.server.endpoint_service.watching import Reader
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.listen import Server
from vmsvc_grpc.server.session import Sessions
from vmsvc_grpc.server.transport import Listener
from vmsvc_grpc.server.transport.grpc_wire import Messages, framed
from vmsvc_grpc.server.transport.http2 import Http2
from vmsvc_grpc.server.transport.http2_connection import ClientConnection

# A stream's window holds a message or two, so that streams stall one by one.
WINDOW_BYTES = 400


@dataclass
class Watch:
    """One stream: its reader, and the bytes that it has yet to give back to its window."""

    request: pb.WatchEndpointsRequest
    reader: Reader = field(default_factory=Reader)
    messages: Messages = field(
        default_factory=lambda: Messages("identity", lambda _length: None, many=True)
    )
    unread: int = 0
    over: bool = False


class Client:
    """A connection without sockets, whose streams read as much as they are told to."""

    def __init__(self, transport: Http2, window: int = WINDOW_BYTES) -> None:
        assert transport.entrance.enter("ipv4:127.0.0.1") is None
        self.connection = ClientConnection(transport)
        self.wire = Wire(self.connection)  # type: ignore[arg-type]  # it counts nothing
        self.connection.connection_made(self.wire)
        self.engine = ngh2.Connection(
            ngh2.Role.CLIENT, ngh2.Configuration(auto_window_update=False)
        )
        self.engine.initiate_connection({Setting.INITIAL_WINDOW_SIZE: window})
        self.watches: dict[int, Watch] = {}
        self.pongs: list[bytes] = []  # The answers to pings.

    def send(self) -> None:
        if (data := self.engine.data_to_send()) and not self.wire.closing:
            self.connection.get_buffer(len(data))[: len(data)] = data
            self.connection.buffer_updated(len(data))

    def watch(self, asked: pb.WatchEndpointsRequest) -> int:
        """Begin a stream; its number."""
        fields = [*asking(WATCH), GRPC]
        stream = self.engine.send_request(fields)
        self.engine.send_data(stream, framed(asked.SerializeToString()), end_stream=True)
        self.watches[stream] = Watch(asked)
        return int(stream)

    def take(self) -> None:
        """Take in what has come; windows stay as they are."""
        data, self.wire.written = bytes(self.wire.written), bytearray()
        self.engine.receive_data(data)
        for event in self.engine.events():
            if isinstance(event, ngh2.events.DataReceived):
                watch = self.watches[event.stream_id]
                watch.unread += len(event.data)
                watch.messages.feed(event.data)
                while (message := watch.messages.take()) is not None:
                    watch.reader.take(message)
            elif isinstance(event, ngh2.events.PingAcknowledged):
                self.pongs.append(event.opaque_data)
            elif isinstance(event, ngh2.events.StreamClosed):
                self.watches[event.stream_id].over = True

    def open(self) -> list[int]:
        """The streams that are not over."""
        return [stream for stream, watch in self.watches.items() if not watch.over]

    def read(self, stream: int) -> None:
        """Open a stream's window by what has come on it."""
        watch = self.watches[stream]
        self.engine.acknowledge_received_data(watch.unread, stream)
        watch.unread = 0


class _Loop(uvloop.Loop):
    """An event loop whose time is its thread's: none passes while others have the core.

    How much of its work a transport does in a turn depends on time.
    """

    def time(self) -> float:
        return time.thread_time()


class Played:
    """A server over a cache, and its clients, on an event loop that runs while `run` does."""

    def __init__(self, cache: Cache, limits: Limits) -> None:
        self.cache = cache
        self.clients: list[Client] = []
        self.faults: list[object] = []
        self.loop = _Loop()
        self.loop.set_exception_handler(lambda _, told: self.faults.append(told))

        async def started() -> None:
            self.server = Server(cache, [Listener("127.0.0.1:0")], self._made, limits)
            await self.server.start()

        self.loop.run_until_complete(started())

    def _made(self, sessions: Sessions, limits: Limits) -> Http2:
        self.transport = Http2(sessions, limits)
        return self.transport

    def connect(self, window: int = WINDOW_BYTES) -> Client:
        """One more client."""

        def steps() -> None:
            self.clients.append(Client(self.transport, window))

        self.run(steps)
        return self.clients[-1]

    def run(self, steps: Callable[[], object]) -> None:
        """Do something, and let all that follows happen."""

        async def whole() -> None:
            steps()
            for _ in range(8):
                for client in self.clients:
                    client.take()
                    client.send()
                await asyncio.sleep(0)

        self.loop.run_until_complete(whole())

    def read_all(self) -> None:
        """Have all clients read until nothing comes any more."""

        def opened() -> None:
            for client in self.clients:
                for stream, watch in client.watches.items():
                    if watch.unread:
                        client.read(stream)

        while any(watch.unread for client in self.clients for watch in client.watches.values()):
            self.run(opened)

    def close(self) -> None:
        """Lose all clients, and end."""
        for client in self.clients:
            self.run(client.wire.close)
        assert not self.faults, self.faults
        stopped = asyncio.wait_for(self.server.stop(), PATIENCE_S)
        self.loop.run_until_complete(stopped)
        self.loop.close()
