"""The beginning of connections under TLS: who may begin, and how long it may take.

What comes after it is a connection like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from vmsvc_grpc.server.admission import client_of
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import Sessions
from vmsvc_grpc.server.transport.http2_bounds import Entrance
from vmsvc_grpc.server.transport.sockets import peer_of

_ALPN = "h2"

# When the system has no room for one more socket, as asyncio's own servers wait.
_NO_ROOM_S = 1.0

_log = logging.getLogger(__name__)


def speaks_h2(transport: asyncio.BaseTransport) -> bool:
    """Whether the client has agreed to HTTP/2, or is not under TLS."""
    tls = transport.get_extra_info("ssl_object")
    return tls is None or tls.selected_alpn_protocol() == _ALPN


class TlsServer(Protocol):
    """The server that connections begin at."""

    loop: asyncio.AbstractEventLoop
    limits: Limits
    sessions: Sessions
    entrance: Entrance


class Begun(asyncio.Protocol):
    """A connection that leaves the entrance by itself once it has `begun`."""

    __slots__ = ()

    begun: bool


class Handshakes:
    """Accepts connections, and agrees with each on TLS. They count from when they are accepted."""

    def __init__(
        self, server: TlsServer, context: ssl.SSLContext, make: Callable[[], Begun]
    ) -> None:
        """`make` makes what a connection is after it.

        `context` is made to offer HTTP/2, and nothing else (RFC 9113, 3.2).
        """
        self._server = server
        self._context = context
        self._context.set_alpn_protocols([_ALPN])
        self._make = make
        self._accepting: list[asyncio.Task[None]] = []
        self._agreeing: set[asyncio.Task[None]] = set()

    def listen(self, listening: socket.socket) -> None:
        """Accept what comes there, until `close`."""
        listening.setblocking(False)
        self._accepting.append(self._server.loop.create_task(self._accept(listening)))

    async def close(self) -> None:
        """Accept no more, and break off what has not come to an end."""
        if tasks := [*self._accepting, *self._agreeing]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        self._accepting.clear()

    async def _accept(self, listening: socket.socket) -> None:
        with listening:
            while True:
                try:
                    accepted, address = await self._server.loop.sock_accept(listening)
                except OSError as error:
                    _log.warning("cannot accept a connection: %s", error)
                    await asyncio.sleep(_NO_ROOM_S)
                    continue
                client = client_of(peer_of(address[:2]))
                if (limit := self._server.entrance.enter(client)) is not None:
                    self._server.sessions.count_refusal(limit)
                    accepted.close()
                    continue
                task = self._server.loop.create_task(self._agree(accepted, client))
                self._agreeing.add(task)
                task.add_done_callback(self._agreeing.discard)

    async def _agree(self, accepted: socket.socket, client: str) -> None:
        made = self._make()
        try:
            await self._server.loop.connect_accepted_socket(
                lambda: made,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=self._server.limits.handshake_s,
            )
        except ConnectionAbortedError:  # What is said when the time is over.
            self._server.sessions.count_refusal("handshake_s")
        except OSError:  # The client went away, or does not speak TLS as we do.
            pass
        finally:
            if not made.begun:
                self._server.entrance.leave(client)
                with contextlib.suppress(OSError):
                    accepted.close()
