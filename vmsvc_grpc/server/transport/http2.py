"""gRPC over HTTP/2 on libnghttp2, made for thousands of streams that are sent the same messages.

Owns the listening sockets and the connections, and decides when they are written to. A call with
something to send marks its stream. Once a turn of the event loop, a flush goes through the
connections with marked streams, asks each such stream for its message, hands the bytes, which all
streams share, to the connection's engine, and writes once a connection. While a stream's last
message waits in the engine, or the socket is full, nothing is taken from it: its mark waits.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable
from itertools import chain
from typing import ClassVar, Self

from google.protobuf.message import Message

from vmsvc_grpc.server import addresses
from vmsvc_grpc.server.call import Method, RpcError
from vmsvc_grpc.server.deliveries import Batch
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import TURN_S, Sessions
from vmsvc_grpc.server.transport import Listener, grpc_wire
from vmsvc_grpc.server.transport.http2_accept import Accepting
from vmsvc_grpc.server.transport.http2_bounds import Entrance, Unread
from vmsvc_grpc.server.transport.http2_calls import StreamCall
from vmsvc_grpc.server.transport.http2_connection import ClientConnection, Party
from vmsvc_grpc.server.transport.http2_groups import Cohort
from vmsvc_grpc.server.transport.round_robin import RoundRobin
from vmsvc_grpc.server.transport.sockets import Sockets
from vmsvc_grpc.server.transport.uploads import Uploads
from vmsvc_grpc.server.transport.windows import Windows

READ_BYTES = 8 * 1024
"""What is read of a connection at a time: some 800 of the smallest frames."""

TURN_READ_BYTES = 256 * 1024
"""What is taken in of all connections in one turn of the event loop."""

# And that much of its time, so that there is time left to send something.
_READ_PART = 0.5

# And that much more to lose the calls of connections that are closed: thousands of one client.
_LOSE_PART = 0.2


class _Next:
    """Stands for a batch among cohorts with news: these mark connections only when asked."""

    __slots__ = ("_marked", "batch")

    def __init__(self, batch: Batch, marked: deque[ClientConnection | Batch]) -> None:
        self.batch = batch
        self._marked = marked

    def ask(self) -> None:
        """Have the batch wait behind the connections that are marked by now."""
        self._marked.append(self.batch)


class Http2:
    """A server of gRPC on HTTP/2, as `transport.Transport` describes it."""

    name: ClassVar[str] = "http2"

    def __init__(self, sessions: Sessions, limits: Limits) -> None:
        """Must be made on the event loop that will run it."""
        self.sessions = sessions
        self.limits = limits
        self.methods: dict[str, Method] = {}
        self.streams: dict[StreamCall, None] = {}  # In the order in which they were opened.
        self.connections: dict[ClientConnection, None] = {}
        self.cohorts: dict[Hashable, Cohort] = {}
        self.entrance = Entrance(limits)
        self.unread = Unread(limits.unread_bytes_max)
        self.loop = asyncio.get_running_loop()
        self.read_buffer = memoryview(bytearray(READ_BYTES))
        self.accepting = Accepting(self, self._connection)
        self.sockets = Sockets()
        self.uploads = Uploads(limits.upload_bytes_max)
        self.windows = Windows(limits.window_bytes_max)
        self._listening: list[tuple[socket.socket, Listener]] = []
        self._came: RoundRobin[Party, ClientConnection] = RoundRobin()
        # Closed connections that have yet to lose their calls, by their clients.
        self._losing: OrderedDict[str, deque[ClientConnection]] = OrderedDict()
        self._news: deque[Cohort | _Next] = deque()
        self._marked: deque[ClientConnection | Batch] = deque()
        self.left_over = 0
        self._answering: RoundRobin[str, ClientConnection] = RoundRobin()
        self._at_work = False
        self.flush_until = 0.0
        self._framed: dict[int, tuple[bytes, bytes]] = {}

    def channelz(self, method: str, request: Message) -> Message:
        """The answer of channelz' `method` about this transport's connections. Raises RpcError."""
        return self.sockets.answer(method, request)

    def serve(self, methods: Iterable[Method]) -> None:
        """Set the methods. Once, before `start`."""
        self.methods = {method.path: method for method in methods}

    def bind(self, listener: Listener) -> int:
        """Bind a listener's address; returns the port, a free one for 0. Raises OSError."""
        host, _, port = listener.address.rpartition(":")
        bound = addresses.bound(host.strip("[]"), int(port))
        self._listening += [(listening, listener) for listening in bound]
        ends = [listening.getsockname() for listening in bound]
        for host, port, *_ in ends:
            self.sockets.listen((host, port))
        return int(ends[0][1])

    async def start(self) -> None:
        """Accept calls from now on."""
        for listening, listener in self._listening:
            self.accepting.listen(listening, listener)

    async def stop(self, grace_s: float) -> None:
        """Accept no more calls, and end those that have not ended after `grace_s`."""
        await self.accepting.close()
        for listening, _ in self._listening:
            listening.close()
        for connection in list(self.connections):
            connection.go_away()
        if self.connections and grace_s:
            gone = [connection.gone for connection in self.connections]
            await asyncio.wait(gone, timeout=grace_s)
        for connection in list(self.connections):
            connection.abort()
        lost = chain.from_iterable(self._losing.values())
        if gone := [connection.gone for connection in (*self.connections, *lost)]:
            await asyncio.wait(gone)

    def taken(self) -> dict[str, int]:
        """How much is taken of the bounds on what clients have in all, by their settings."""
        return {
            "connections_max": self.entrance.in_all,
            "unread_bytes_max": self.unread.in_all,
            "upload_bytes_max": self.uploads.in_all,
            "window_bytes_max": self.windows.in_all,
        }

    @property
    def line(self) -> Self:
        """Where its connections wait to be flushed."""
        return self

    def line_up(self, batch: Batch) -> bool:
        """Have a batch flushed behind all that waits now; False if nothing does."""
        if self._news:
            self._news.append(_Next(batch, self._marked))
        elif self._marked or self._answering:
            self._marked.append(batch)
        else:
            return False
        return True

    def is_last(self, batch: Batch) -> bool:
        """Whether nothing waits behind a batch."""
        if self._news:
            last = self._news[-1]
            return isinstance(last, _Next) and last.batch is batch
        return bool(self._marked) and self._marked[-1] is batch

    @property
    def streams_open(self) -> int:
        """How many streams neither side has ended yet."""
        return len(self.streams)

    def end_streams(self, count: int, error: RpcError) -> None:
        """End so many streams with `error`, the oldest first; stalled ones too."""
        for stream in list(self.streams)[:count]:
            stream.end(error)

    def framed(self, message: bytes) -> bytes:
        """A message with its prefix; made once in a flush for all streams that are sent it."""
        kept = self._framed.get(id(message))
        if kept is not None:
            return kept[1]
        framed = grpc_wire.framed(message)
        self._framed[id(message)] = (message, framed)
        return framed

    def received(self, connection: ClientConnection) -> None:
        """Have a connection take in what has come, in its turn."""
        self._came.append(connection, connection.party)
        self._work()

    def lost(self, connection: ClientConnection) -> None:
        """Have a connection that is closed lose its calls, some in each turn.

        Until then they count as the client's. So no more is taken in of its other connections: a
        client at a bound that connects again would be refused for what it has let go of.
        """
        self._losing.setdefault(connection.client, deque()).append(connection)
        self._work()

    def mark(self, connection: ClientConnection) -> None:
        """Have a connection flushed soon."""
        self._marked.append(connection)
        self._work()

    def ask_soon(self, cohort: Cohort) -> None:
        """Ask a cohort, which has news, for its next message."""
        self._news.append(cohort)
        self._work()

    def mark_first(self, connection: ClientConnection) -> None:
        """Have a connection flushed before those that are only marked."""
        self._answering.append(connection, connection.client)
        self._work()

    def _connection(self, listener: Listener) -> ClientConnection:
        return ClientConnection(self, guarded=listener.guarded)

    def _work(self) -> None:
        if not self._at_work:
            self._at_work = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Take in and say what one turn of the event loop has time for. The rest comes first next.

        So clients that all send at once, as after a restart, hold up nobody else.
        """
        try:
            began = self.loop.time()
            self._take_in(began + TURN_S * _READ_PART)
            self._flush(began + TURN_S)
            self._lose_calls(self.loop.time() + TURN_S * _LOSE_PART)
        finally:  # Whatever happens, the others have their turns.
            waiting = self._came or self._news or self._marked or self._answering or self._losing
            self._at_work = bool(waiting)
            if self._at_work:
                self.loop.call_soon(self._turn)

    def _take_in(self, until: float) -> None:
        """Have connections take in what has come, a piece each, as long as anything is left.

        Clients take turns: what one sends on thousands of connections holds up no other, nor what
        little the same one sends on another (`ClientConnection.party`).
        """
        left, passed = TURN_READ_BYTES, 0
        while left > 0 and passed < self._came.parties:
            client, _ = self._came.next_party
            if client in self._losing:  # All of its connections wait, without a look at each.
                self._came.pass_over()
                passed += 1
                continue
            passed = 0
            connection = self._came.popleft()
            try:
                left -= connection.take_in()
            except Exception:  # noqa: BLE001 - a fault at one client must not stop the others.
                connection.fail()
            if connection.came:
                self._came.append(connection, connection.party)
            if self.loop.time() > until:
                break

    def _lose_calls(self, until: float) -> None:
        """Have closed connections lose their calls, client after client, until the time is over."""
        while self._losing and self.loop.time() <= until:
            client, losing = next(iter(self._losing.items()))
            connection = losing[0]
            try:
                if not connection.lose_calls(until):
                    losing.popleft()
                    connection.finish()
            except Exception:  # noqa: BLE001 - a fault at one call must not keep the others.
                connection.fail()
            if not losing:
                del self._losing[client]

    def _flush(self, until: float) -> None:
        """Flush the marked connections until the time is over, those with a call to answer first.

        So a look-up does not wait for all connections with streams that have much to work out. Nor
        do these for all look-ups: where both wait, each have half of the time. The same holds for
        what streams share, which is asked for before they are sent it.
        """
        self._flush_some(self._answering, self._part(until, self._news or self._marked))
        self._ask_cohorts(self._part(until, self._marked))
        self._flush_some(self._marked, until)
        self._framed.clear()

    def _part(self, until: float, others: object) -> float:
        """Until when to go on that has the time until then, or half of it if others wait."""
        now = self.loop.time()
        return now + (until - now) / 2 if others else until

    def _ask_cohorts(self, until: float) -> None:
        for _ in range(len(self._news)):
            self._news.popleft().ask()
            if self.loop.time() > until:
                break

    def _flush_some(
        self,
        waiting: deque[ClientConnection | Batch] | RoundRobin[str, ClientConnection],
        until: float,
    ) -> None:
        self.flush_until = until
        for _ in range(len(waiting)):
            connection = waiting.popleft()
            if connection.marked:  # Else it was flushed as one of the others.
                connection.marked = False
                try:
                    connection.flush()
                except Exception:  # noqa: BLE001 - as above.
                    connection.fail()
                if self.loop.time() > until:
                    break
