"""How connections to an API server are made and ended, where aiohttp and uvloop leave that open.

Knows nothing about a request, except whether it is still to be sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler

# `connection_lost` is called a turn or two of the event loop after a connection was dropped. uvloop
# never calls it for a connection that it closed while it was being made.
_LOST_S = 1.0


class NotSent(Exception):  # noqa: N818 - not an error: it was not to be sent.
    """`may_send` returned False once there was a connection; nothing was sent over it."""


MAY_SEND: ContextVar[Callable[[], bool]] = ContextVar("may_send")
"""Called once there is a connection for a request, right before it is sent."""


class Connector(aiohttp.TCPConnector):
    """Makes connections for requests that are still to be sent, and tracks each until it is lost.

    So none is left open at the end. Otherwise two kinds would stay open. One is a connection whose
    answer was not read to its end: aiohttp closes it in the background, as TLS requires, and waits
    for the other end, which may have vanished. The other is a connection whose handshake was just
    complete when connecting was cancelled: uvloop keeps it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # aiohttp has no other hook for a new connection; a test makes sure that this one works.
        self._factory = cast("partial[ResponseHandler]", partial(_Protocol, self))
        self._transports: dict[_Protocol, asyncio.Transport] = {}
        self._lost = asyncio.Event()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own signature
    ) -> aiohttp.connector.Connection:
        """A connection for a request. Raises NotSent if the request is not to be sent any more."""
        connection = await super().connect(req, traces, timeout)
        if not MAY_SEND.get(lambda: True)():
            connection.close()
            raise NotSent
        return connection

    def made(self, protocol: _Protocol, transport: asyncio.BaseTransport) -> None:
        """A connection was made."""
        # By its class, uvloop's is none.
        self._transports[protocol] = cast("asyncio.Transport", transport)

    def lost(self, protocol: _Protocol) -> None:
        """A connection was lost."""
        self._transports.pop(protocol, None)
        self._lost.set()

    async def close(self, *, abort_ssl: bool = False) -> None:
        """End all connections; waits for them, but no longer than a second."""
        await super().close(abort_ssl=abort_ssl)
        for transport in self._transports.values():
            transport.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOST_S):
                while self._transports:
                    self._lost.clear()
                    await self._lost.wait()


class _Protocol(ResponseHandler):
    """A connection that reports to its connector."""

    def __init__(self, connector: Connector) -> None:
        super().__init__(asyncio.get_running_loop())
        self._connector = connector

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connector.made(self, transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._connector.lost(self)


async def abort(response: aiohttp.ClientResponse) -> None:
    """Drop the connection of an answer that is not read to its end, and wait until it is gone.

    Closing it would notify the other end, and wait for its answer in the background. The other
    end may have gone for ever, and our event loop may end first.
    """
    protocol = response.connection.protocol if response.connection else None
    if protocol is not None:
        closed = protocol.closed
        protocol.abort()
        if closed is not None:
            with contextlib.suppress(aiohttp.ClientError):
                await closed


_sockets: ContextVar[list[socket.socket]] = ContextVar("_sockets")


def noted_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket for aiohttp to connect, within `sockets_handed_over`."""
    family, type_, protocol, *_ = address
    made = socket.socket(family, type_, protocol)
    _sockets.get().append(made)
    return made


@contextlib.contextmanager
def sockets_handed_over() -> Iterator[None]:
    """Detaches the sockets that are made within, so that only the event loop owns them.

    aiohttp hands Python's sockets to uvloop, which closes them. If the other end resets a
    connection at once, uvloop does so before it knows of Python's socket. That one then closes the
    same descriptor a second time, which may meanwhile belong to another connection, or to the event
    loop itself. (uvloop 0.23; its issue 738 is of this kind.)
    """
    made: list[socket.socket] = []
    token = _sockets.set(made)
    try:
        yield
    finally:
        _sockets.reset(token)
        for each in made:
            each.detach()
