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
from vmsvc_grpc.server.tls.layer import TlsLayer
from vmsvc_grpc.server.transport import Listener
from vmsvc_grpc.server.transport.http2_bounds import Entrance
from vmsvc_grpc.server.transport.http2_farewell import (
    farewell,
    plain_answer,
)
from vmsvc_grpc.server.transport.http2_handshakes import HandshakeTurns
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
    read_buffer: memoryview


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
        self.handshake_s = server.limits.handshake_s
        self.read_buffer = server.read_buffer
        self._listening: dict[socket.socket, asyncio.TimerHandle | None] = {}
        self._beginning: set[asyncio.Task[None]] = set()
        self._shaking: dict[TlsLayer, Begun] = {}
        self._handshakes = HandshakeTurns(server.loop)

    @property
    def beginning(self) -> int:
        """How many connections have been accepted, and have yet to agree on TLS."""
        return len(self._beginning) + len(self._shaking)

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
        for layer in list(self._shaking):
            layer.abort()

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
        layer: TlsLayer | None = None
        if listener.tls is not None:
            layer = TlsLayer(self, client, listener.tls, made)
            self._shaking[layer] = made
        connected = False
        try:
            await self._server.loop.connect_accepted_socket(lambda: layer or made, accepted)
            connected = True
        except OSError:  # The client went away.
            pass
        finally:
            if layer is None:
                self._leave_unless_begun(made, client)
            elif not connected:
                self.is_over(layer)
            if not connected:
                with contextlib.suppress(OSError):
                    accepted.close()

    # What layers of TLS call.

    def line_up(self, layer: TlsLayer) -> None:
        """Have a layer take its step in its client's turn."""
        self._handshakes.line_up(layer)

    def plain_answer(self, begun: bytes) -> bytes:
        """For a client that uses no TLS where it has to."""
        return plain_answer(begun)

    def is_late(self) -> None:
        """Count a handshake that has taken too long."""
        self._server.sessions.count_refusal("handshake_s")

    def is_over(self, layer: TlsLayer) -> None:
        """Note that a handshake has come to an end. May be called twice."""
        made = self._shaking.pop(layer, None)
        if made is not None:
            self._leave_unless_begun(made, layer.client)

    def _leave_unless_begun(self, made: Begun, client: str) -> None:
        if not made.begun:
            self._server.entrance.leave(client)


def _send_away(accepted: socket.socket, answer: bytes) -> None:
    """Answer a client whose connection is to be closed now."""
    with contextlib.suppress(OSError):
        accepted.send(answer)
        # Closing a socket with unread bytes resets it: the client may lose our answer.
        accepted.recv(_READ_BYTES)
