"""The connections of the HTTP port: bounded in number and in time, and all ended at the end.

The HTTP library waits for the rest of a request for as long as a client likes. Probes must be
answered whatever other clients do, so each connection gets one answer, and one time limit for all
of it. With TLS, a connection counts from when it is accepted: its handshake is in that limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import cast

from vmsvc_grpc.logs.about import about
from vmsvc_grpc.server.tls.hello import Handshakes

# So many are accepted in one turn of the event loop; the system keeps the others waiting.
_ACCEPTS_A_TURN = 32

# How long to wait when the system has no room for another socket: as asyncio's own servers do.
_NO_ROOM_S = 1.0

_log = logging.getLogger(__name__)


class HttpConnections:
    """Makes the protocol of each connection that is accepted. One event loop owns it."""

    _handshakes: Handshakes

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        *,
        connections_max: int,
        request_s: float,
        refusals: Counter[str],
    ) -> None:
        """`make` makes a protocol for HTTP. Counts ended connections in `refusals`, by setting."""
        self._make = make
        self._connections_max = connections_max
        self._request_s = request_s
        self._refusals = refusals
        self._open: dict[_HttpConnection, None] = {}  # The oldest first.
        self._held: dict[_HttpConnection, None] = {}
        self._accepting: dict[socket.socket, asyncio.TimerHandle | None] = {}
        self._shaking: set[asyncio.Task[None]] = set()

    def __call__(self) -> asyncio.Protocol:
        """The protocol of one more connection."""
        return _HttpConnection(self, self._make())

    def accept(self, listening: socket.socket, tls: Callable[[], ssl.SSLContext]) -> None:
        """Accept connections with TLS on a socket that listens, until `close`.

        `tls` gives the context for a handshake that begins now.
        """
        listening.setblocking(False)
        self._handshakes = Handshakes(asyncio.get_running_loop())
        self._look(listening, tls)

    def _look(self, listening: socket.socket, tls: Callable[[], ssl.SSLContext]) -> None:
        loop = asyncio.get_running_loop()
        self._accepting[listening] = None
        loop.add_reader(listening, self._accept, listening, tls)

    def _accept(self, listening: socket.socket, tls: Callable[[], ssl.SSLContext]) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                extra = about(reason="CannotAccept", error=error)
                _log.warning("cannot accept a connection for HTTP: %s", error, extra=extra)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                pause = loop.call_later(_NO_ROOM_S, self._look, listening, tls)
                self._accepting[listening] = pause
                return
            accepted.setblocking(False)
            connection = _HttpConnection(self, self._make())
            # The connection's own time limit, which is counted, comes before that of asyncio.
            limit_s = 2 * self._request_s
            begun = connection.shake_hands(accepted, tls, self._handshakes, limit_s)
            task = asyncio.create_task(begun)
            connection.shaking = task
            self._shaking.add(task)
            task.add_done_callback(self._shaking.discard)

    def entered(self, connection: _HttpConnection) -> asyncio.TimerHandle:
        """Note an open connection; returns the timer that ends it.

        If there are too many, the oldest is ended: a request is answered within milliseconds, so
        the oldest connection waits for something else.
        """
        if len(self._open) >= self._connections_max:
            self._refuse(next(iter(self._open)), "http_connections_max")
        self._open[connection] = None
        loop = asyncio.get_running_loop()
        return loop.call_later(self._request_s, self._refuse, connection, "http_request_s")

    def hold(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection of a transport last, and count it no more: its owner bounds it."""
        for connection in self._open:
            if connection.lasts(transport):
                del self._open[connection]
                self._held[connection] = None
                return

    def left(self, connection: _HttpConnection) -> None:
        """Note a closed connection."""
        self._open.pop(connection, None)
        self._held.pop(connection, None)

    async def close(self) -> None:
        """Accept no more, and let each connection end once it has sent what it has begun to."""
        for listening, pause in self._accepting.items():
            if pause is not None:
                pause.cancel()
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        self._accepting.clear()
        await asyncio.sleep(0)  # Those that were accepted just now begin, so that they can end.
        for connection in list(self._open):
            connection.close()
        if self._shaking:
            await asyncio.wait(self._shaking)

    def abort(self) -> None:
        """End all remaining connections now."""
        for connection in (*self._open, *self._held):
            connection.abort()

    def _refuse(self, connection: _HttpConnection, setting: str) -> None:
        self._refusals[setting] += 1
        self.left(connection)
        connection.abort()


class _HttpConnection(asyncio.Protocol):
    """Passes everything to a protocol that speaks HTTP, and limits the time."""

    def __init__(self, connections: HttpConnections, inner: asyncio.Protocol) -> None:
        self._connections = connections
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.shaking: asyncio.Task[None] | None = None

    async def shake_hands(
        self,
        accepted: socket.socket,
        tls: Callable[[], ssl.SSLContext],
        handshakes: Handshakes,
        handshake_s: float,
    ) -> None:
        """Begin with TLS. Cancel it to end the connection."""
        self._timer = self._connections.entered(self)
        try:
            # The client may go away, or not speak TLS as we do.
            with contextlib.suppress(OSError):
                await handshakes.ready(accepted)
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: self, accepted, ssl=tls(), ssl_handshake_timeout=handshake_s
                )
        finally:
            self.shaking = None
            if self._transport is None:
                self._leave()
                accepted.close()

    def lasts(self, transport: asyncio.BaseTransport) -> bool:
        """Whether it is the connection of a transport, and so has no time limit any more."""
        if self._transport is not transport:
            return False
        assert self._timer is not None, "it has one from its beginning"
        self._timer.cancel()
        return True

    def close(self) -> None:
        """End it once it has sent the answer that it has begun."""
        if self._transport is not None:
            self._transport.close()
        else:
            self.abort()

    def abort(self) -> None:
        """End it now."""
        if self._transport is not None:
            self._transport.abort()
        elif self.shaking is not None:
            self.shaking.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one by its methods, and not by its class.
        self._transport = cast(asyncio.Transport, transport)
        if self._timer is None:
            self._timer = self._connections.entered(self)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._inner.connection_lost(exc)

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._connections.left(self)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
