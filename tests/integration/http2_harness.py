"""One connection of the transport on libnghttp2 without a socket, and frames made by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import uvloop
from ngh2 import events

from tests.integration.http2_toy import BOTH, ECHO, GRPC, LARGE, WATCH, Toy, asking, made
from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.transport.grpc_wire import HeaderField
from vmsvc_grpc.server.transport.http2_calls import AskingCall
from vmsvc_grpc.server.transport.http2_connection import ClientConnection, ConnectionServer

# Small, so that each is met; and no time passes in these tests but the client's own.
LIMITS = Limits(
    header_list_bytes_max=1_000,
    connection_window_bytes=4_000,
    upload_bytes_max=20_000,
    message_bytes_max=8_000,
    one_name_bytes_max=2_000,
    calls_per_connection_max=20,
    streams_max=6,
    resets_max=10,
    settings_max=10,
    empty_frames_max=50,
    unread_bytes_max=300_000,
)

PATHS = (ECHO, LARGE, WATCH, BOTH, "/toy.Toy/None")


@dataclass
class Wire(asyncio.Transport):
    """What a connection writes to; it takes everything, or nothing while it is `full`."""

    connection: Counting
    written: bytearray = field(default_factory=bytearray)
    closing: bool = False
    full: bool = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert not self.closing, "nothing is written to what is closed"
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 1 if self.full else 0

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        assert not self.closing

    def resume_reading(self) -> None:
        assert not self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    abort = close


class Counting(ClientConnection):
    """A connection that counts the bytes of bodies that have come and were not given back."""

    def __init__(self, server: ConnectionServer) -> None:
        super().__init__(server)
        self.lent = 0

    def kept(self) -> int:
        """How many of them its calls keep."""
        calls = self._calls.values()
        return sum(
            each._messages.held - each._freed for each in calls if isinstance(each, AskingCall)
        )

    def _data(self, event: events.DataReceived) -> None:
        self.lent += len(event.data)
        super()._data(event)

    def _free(self, stream_id: int, size: int) -> None:
        self.lent -= size
        super()._free(stream_id, size)

    _HANDLERS: ClassVar[Any] = {**ClientConnection._HANDLERS, events.DataReceived: _data}


@dataclass
class Harness:
    """One connection of a toy, on an event loop that reports what nobody caught."""

    toy: Toy
    faults: list[dict[str, Any]] = field(default_factory=list)
    wire: Wire = field(init=False)

    def __post_init__(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: self.faults.append(told))
        assert self.toy.transport.entrance.enter("ipv4:127.0.0.1") is None
        connection = Counting(self.toy.transport)
        self.wire = Wire(connection)
        connection.connection_made(self.wire)

    async def turns(self) -> None:
        """Until nothing happens any more by itself."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def take(self, data: bytes) -> None:
        connection = self.wire.connection
        while data and not self.wire.closing:
            room = connection.get_buffer(len(data))
            part, data = data[: len(room)], data[len(room) :]
            room[: len(part)] = part
            connection.buffer_updated(len(part))
            await self.turns()
        await self.turns()

    async def look(self) -> None:
        """What its calls do not keep, the client may send anew."""
        play("room", self)
        await self.turns()
        connection = self.wire.connection
        if self.wire.closing or connection._greeting is not None:
            return
        assert connection.lent == connection.kept()
        # An engine says so once it is half of the window (nghttp2).
        assert connection.windows()[1] + connection.lent >= connection._window.size // 2

    async def end(self) -> None:
        """The client goes away; nothing may be left of it."""
        await self.look()
        self.wire.close()
        await self.turns()
        toy = self.toy
        assert not self.faults, self.faults
        assert not toy.transport.connections
        assert not toy.transport.entrance.in_all
        assert not toy.transport.unread.in_all
        assert not toy.transport.windows.in_all
        assert not toy.transport.streams
        assert not (toy.transport.uploads.in_all)
        assert not (toy.transport.uploads._waiting)
        assert not toy.counts.streams_open.total()
        assert not toy.transport._marked
        assert all(stream.closed for stream in toy.streams)
        connection = self.wire.connection
        assert not connection.lent
        assert not (connection._calls)
        assert not (connection._wanting)
        assert not (connection._later)
        assert not (connection._blocked)
        assert not (connection._ending)
        assert not (connection._life._timers)
        assert asyncio.all_tasks() == {asyncio.current_task()}


def run(steps: Callable[[Harness], Any], limits: Limits = LIMITS) -> None:
    async def whole() -> None:
        harness = Harness(made(limits))
        await steps(harness)
        await harness.end()

    uvloop.run(whole())


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


def block(fields: Iterable[HeaderField]) -> bytes:
    """Header fields as HPACK has them where nothing is indexed; none is longer than 126 bytes."""
    return b"".join(
        b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in fields
    )


def head(path: str, more: Sequence[HeaderField] = ()) -> list[HeaderField]:
    return [*asking(path), GRPC, *more]


def play(step: str, harness: Harness) -> None:
    """What happens on our side meanwhile."""
    toy, connection = harness.toy, harness.wire.connection
    if step in {"say", "end", "later"}:
        for watching in toy.streams:
            if not watching.closed:
                watching.later += step == "later"
                watching.say(b"end" if step == "end" else b"told" * 500)
    elif harness.wire.closing:
        return
    elif step == "full":
        harness.wire.full = True
        connection.pause_writing()
    elif step == "room":
        harness.wire.full = False
        connection.resume_writing()
    elif step == "drain":
        toy.transport.end_streams(2, RpcError(Code.UNAVAILABLE, "drained"))
    else:
        connection.go_away()
