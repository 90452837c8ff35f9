"""A port that speaks HTTP with bounded resources: what probes and the page have in common."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from vmsvc_grpc.server import addresses
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.http.connections import HttpConnections
from vmsvc_grpc.server.limits import Limits

# As asyncio's own servers have it.
_BACKLOG = 100

# What the system may receive for a connection with TLS before we read it (Linux takes it twice):
# asyncio decrypts all of it at once, and records that say nothing (KeyUpdate) take 6 us for each 27
# bytes. A request has less.
_RECEIVE_BYTES = 4 * 1024

# Nobody reads a body, but a client that is cut off while it sends one may lose the answer.
_BODY_S = 1.0


class HttpPort:
    """Listens on one address, with or without TLS, and answers one request a connection."""

    def __init__(
        self,
        application: web.Application,
        limits: Limits,
        counts: ServerCounts,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """`application` has the routes. Counts in `counts` connections ended at a limit.

        With `tls`, which gives the context for a handshake that begins now, every client uses TLS.
        """
        application.on_response_prepare.append(_once)
        self._application = application
        self._limits = limits
        self._counts = counts
        self._tls = tls
        self._runner: web.AppRunner | None = None
        self._connections: HttpConnections | None = None
        self._listening: list[asyncio.Server] = []

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, a free one for 0.

        Raises OSError if the address cannot be bound.
        """
        logger = logging.getLogger(__name__)
        logger.addFilter(_is_about_us)
        self._runner = web.AppRunner(
            self._application,
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,  # Nobody waits for an answer that has nobody to go to.
            logger=logger,
            lingering_time=_BODY_S,
            auto_decompress=False,  # Nobody reads a body, and a small one can expand to gigabytes.
            shutdown_timeout=self._limits.stop_grace_s,
        )
        await self._runner.setup()
        assert self._runner.server is not None, "it has been set up"
        self._connections = HttpConnections(
            self._runner.server,
            connections_max=self._limits.http_connections_max,
            request_s=self._limits.http_request_s,
            refusals=self._counts.refusals,
        )
        loop = asyncio.get_running_loop()
        for listening in addresses.bound(host, port):
            port = int(listening.getsockname()[1])
            if self._tls is None:
                self._listening.append(await loop.create_server(self._connections, sock=listening))
            else:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
                listening.listen(_BACKLOG)
                self._connections.accept(listening, self._tls)
        return port

    def hold(self, request: web.Request) -> None:
        """Let the connection of a request last: its handler bounds it from now on."""
        if self._connections is not None and request.transport is not None:
            self._connections.hold(request.transport)

    async def stop(self) -> None:
        """Stop listening, send what has been begun, and end all connections."""
        for listening in self._listening:
            listening.close()
        if self._connections is not None:
            await self._connections.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._connections is not None:
            self._connections.abort()


async def _once(_request: web.Request, response: web.StreamResponse) -> None:
    """Have a connection end with its answer: its one time limit is for one request.

    A middleware would not see the answers to what a client expects, such as 417.
    """
    response.force_close()
    # By now the HTTP library has chosen this field, for an answer that keeps its connection.
    response.headers["Connection"] = "close"


def _is_about_us(record: logging.LogRecord) -> bool:
    """Whether a line of the HTTP library is not about a client that speaks no HTTP, or has gone."""
    error = record.exc_info[1] if record.exc_info else None
    # The second is about a body, which the library reads to its end after the answer.
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)
