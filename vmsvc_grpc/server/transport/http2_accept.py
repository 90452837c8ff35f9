"""How connections begin: which are accepted, how many in one turn, and how long TLS may take.

After that, a connection with TLS is like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Protocol

from vmsvc_grpc.logs.about import about
from vmsvc_grpc.server.admission import client_of
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import Sessions
from vmsvc_grpc.server.tls.hello import Handshakes, begins_tls
from vmsvc_grpc.server.transport import Listener
from vmsvc_grpc.server.transport.http2_bounds import Entrance
from vmsvc_grpc.server.transport.http2_farewell import (
    farewell,
    plain_answer,
)
from vmsvc_grpc.server.transport.sockets import peer_of

ACCEPTS_A_TURN = 32
"""Connections that are accepted at one address in one turn of the event loop: 3 ms of work. The
system keeps the others waiting."""

# Clients that may wait to be accepted: as many as come back at once after a restart.
_BACKLOG = 4096

# So many bytes are read from a socket before it is closed.
_READ_BYTES = 4096

_ALPN = "h2"

# How long to wait when the system has no room for another socket: as asyncio's own servers do.
_NO_ROOM_S = 1.0

_log = logging.getLogger(__name__)


def speaks_h2(transport: asyncio.BaseTransport) -> bool:
    """Whether the client agreed to HTTP/2 (by ALPN), or does not use TLS."""
    tls = transport.get_extra_info("ssl_object")
    return tls is None or tls.selected_alpn_protocol() == _ALPN


class AcceptingServer(Protocol):
    """What accepting uses of its server."""

    loop: asyncio.AbstractEventLoop
    limits: Limits
    sessions: Sessions
    entrance: Entrance


class Begun(asyncio.BufferedProtocol):
    """A connection. Once it has `begun`, it leaves the entrance by itself when it ends."""

    __slots__ = ()

    begun: bool


class Accepting:
    """Accepts connections, some in each turn of the event loop, and begins them.

    A connection counts once it is accepted: a client at its bound is sent away then.
    """

    def __init__(
        self,
        server: AcceptingServer,
        make: Callable[[Listener], Begun],
    ) -> None:
        """`make` makes the protocol of a connection at a listener, for after its handshake."""
        self._server = server
        self._make = make
        self._listening: dict[socket.socket, asyncio.TimerHandle | None] = {}
        self._beginning: set[asyncio.Task[None]] = set()
        self._handshakes = Handshakes(server.loop)

    def listen(self, listening: socket.socket, listener: Listener) -> None:
        """Accept connections on the socket of a listener, until `close` closes it."""
        listening.setblocking(False)
        listening.listen(_BACKLOG)
        self._look(listening, listener)

    async def close(self) -> None:
        """Accept no more connections, and break off those that have not begun."""
        for listening, pause in self._listening.items():
            if pause is not None:
                pause.cancel()
            self._server.loop.remove_reader(listening)
            listening.close()
        self._listening.clear()
        if self._beginning:
            for task in self._beginning:
                task.cancel()
            await asyncio.wait(self._beginning)

    def _look(self, listening: socket.socket, listener: Listener) -> None:
        self._listening[listening] = None
        self._server.loop.add_reader(listening, self._accept, listening, listener)

    def _accept(self, listening: socket.socket, listener: Listener) -> None:
        """Accept some of the connections that wait; the others have another turn."""
        for _ in range(ACCEPTS_A_TURN):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                extra = about(reason="CannotAccept", error=error)
                _log.warning("cannot accept a connection: %s", error, extra=extra)
                loop = self._server.loop
                loop.remove_reader(listening)
                pause = loop.call_later(_NO_ROOM_S, self._look, listening, listener)
                self._listening[listening] = pause
                return
            accepted.setblocking(False)
            self._enter(accepted, client_of(peer_of(address[:2])), listener)

    def _enter(self, accepted: socket.socket, client: str, listener: Listener) -> None:
        if (limit := self._server.entrance.enter(client)) is not None:
            self._server.sessions.count_refusal(limit)
            with accepted:
                if listener.tls is None:
                    _send_away(accepted, farewell(limit))
            return
        task = self._server.loop.create_task(self._begin(accepted, client, listener))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _begin(self, accepted: socket.socket, client: str, listener: Listener) -> None:
        made = self._make(listener)
        loop = self._server.loop
        try:
            if listener.tls is None:
                await loop.connect_accepted_socket(lambda: made, accepted)
                return
            began = loop.time()
            handshake_s = self._server.limits.handshake_s
            first = await asyncio.wait_for(self._handshakes.ready(accepted), handshake_s)
            if first and not begins_tls(first):
                _send_away(accepted, plain_answer(first))
            elif left_s := max(0.0, began + handshake_s - loop.time()):
                await loop.connect_accepted_socket(
                    lambda: made, accepted, ssl=listener.tls(), ssl_handshake_timeout=left_s
                )
        except (TimeoutError, ConnectionAbortedError):  # asyncio raises the second for TLS.
            self._server.sessions.count_refusal("handshake_s")
        except OSError:  # The client went away, or does not speak TLS as we do.
            pass
        finally:
            if not made.begun:
                self._server.entrance.leave(client)
                with contextlib.suppress(OSError):
                    accepted.close()


def _send_away(accepted: socket.socket, answer: bytes) -> None:
    """Answer a client whose connection is to be closed now."""
    with contextlib.suppress(OSError):
        accepted.send(answer)
        # Closing a socket with unread bytes resets it: the client may lose our answer.
        accepted.recv(_READ_BYTES)
