"""The connections of the HTTP port: bounded in number and in time, and all ended at the end.

The HTTP library waits for the rest of a request for as long as a client likes. Probes must be
answered whatever other clients do, so each connection gets one answer, and one time limit for all
of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import cast


class HttpConnections:
    """Makes the protocol of each connection that is accepted. One event loop owns it."""

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

    def __call__(self) -> asyncio.Protocol:
        """The protocol of one more connection."""
        return _HttpConnection(self, self._make())

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

    def left(self, connection: _HttpConnection) -> None:
        """Note a closed connection."""
        self._open.pop(connection, None)

    def close(self) -> None:
        """Let each connection end once it has sent the answer that it has begun."""
        for connection in self._open:
            connection.transport.close()

    def abort(self) -> None:
        """End all remaining connections now."""
        for connection in list(self._open):
            connection.transport.abort()

    def _refuse(self, connection: _HttpConnection, setting: str) -> None:
        self._refusals[setting] += 1
        self.left(connection)
        connection.transport.abort()


class _HttpConnection(asyncio.Protocol):
    """Passes everything to a protocol that speaks HTTP, and limits the time."""

    transport: asyncio.Transport

    def __init__(self, connections: HttpConnections, inner: asyncio.Protocol) -> None:
        self._connections = connections
        self._inner = inner
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one by its methods, and not by its class.
        self.transport = cast(asyncio.Transport, transport)
        self._timer = self._connections.entered(self)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._connections.left(self)
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
