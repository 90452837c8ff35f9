"""gRPC by hand on libnghttp2: a client that may stop reading, vanish, and come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import ngh2
from ngh2 import ErrorCode, Setting, events

from vmsvc_grpc.server.transport.grpc_wire import Messages, framed

# A stream's window: what a client that does not read is sent, and no more.
_WINDOW_BYTES = 65_535

Take = Callable[[int, bytes], None]
"""Takes a message of a call."""


class Connection(asyncio.Protocol):
    """One connection. What comes goes to `take`; `over` is called once, when it is lost."""

    def __init__(self, authority: str, token: str, take: Take, over: Callable[[], None]) -> None:
        self._authority = authority
        self._token = token
        self._take = take
        self._over = over
        self._engine = ngh2.Connection(
            ngh2.Role.CLIENT, ngh2.Configuration(auto_window_update=True)
        )
        self._engine.initiate_connection({Setting.INITIAL_WINDOW_SIZE: _WINDOW_BYTES})
        self._messages: dict[int, Messages] = {}
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to talk."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._write()

    def connection_lost(self, _error: Exception | None) -> None:
        """It is gone, whoever ended it."""
        self._transport = None
        self._over()

    def data_received(self, data: bytes) -> None:
        """Take in what the server has written; a call that it has ended ends the connection."""
        try:
            self._engine.receive_data(data)
            for event in self._engine.events():
                if isinstance(event, events.DataReceived) and event.stream_id in self._messages:
                    self._read(event.stream_id, event.data)
                elif isinstance(event, events.StreamClosed) and event.stream_id in self._messages:
                    del self._messages[event.stream_id]
                    self.abort()
            self._write()
        except ngh2.ConnectionStateError:
            self.abort()

    def call(self, path: str) -> int:
        """Begin a call; its number."""
        head = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", self._authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        ]
        if self._token:
            head.append((b"authorization", f"Bearer {self._token}".encode()))
        stream = int(self._engine.send_request(head))
        self._messages[stream] = Messages("identity", lambda _length: None, many=True)
        return stream

    def send(self, stream: int, message: bytes, *, end: bool = False) -> None:
        """Send a message of a call that is open, perhaps its last."""
        if stream in self._messages:
            self._engine.send_data(stream, framed(message), end_stream=end)
            self._write()

    def cancel(self, stream: int) -> None:
        """End a call as a client does that has lost interest."""
        if self._messages.pop(stream, None) is not None:
            self._engine.reset_stream(stream, ErrorCode.CANCEL)
            self._write()

    def stall(self) -> None:
        """Read nothing more from the socket."""
        if self._transport is not None:
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def abort(self) -> None:
        """Vanish without a word."""
        if self._transport is not None:
            self._transport.abort()

    def _read(self, stream: int, data: bytes) -> None:
        messages = self._messages[stream]
        messages.feed(data)
        while (message := messages.take()) is not None:
            self._take(stream, message)

    def _write(self) -> None:
        with suppress(ngh2.ConnectionStateError):
            data = self._engine.data_to_send()
            if data and self._transport is not None:
                self._transport.write(data)
