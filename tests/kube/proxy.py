"""A network between a client and a server that a test can break: cut, black hole, nobody there.

Owns the connections through it, and knows nothing of what they carry.
"""

import asyncio
import contextlib
from enum import Enum
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65536


class Network(Enum):
    """What becomes of bytes and of new connections."""

    UP = "up"
    BLACK_HOLE = "black hole"
    """What is sent vanishes. Connections stay open, and new ones are taken, without an answer."""
    DOWN = "down"
    """New connections are reset."""


class Proxy:
    """Forwards connections to a port of 127.0.0.1, as long as the network is up.

    Use it as an async context manager, on one event loop.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._network = Network.UP
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._listening: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._listening is not None
        self._listening.close()
        await self._end_connections()

    @property
    def connections(self) -> int:
        """How many connections clients have open, dead ones included."""
        return len(self._connections)

    async def break_off(self, network: Network) -> None:
        """Makes the network so. DOWN ends all connections, too."""
        self._network = network
        if network is Network.DOWN:
            await self._end_connections()

    async def mend(self) -> None:
        """New connections work. Those that went through a black hole stay dead, and open."""
        self._network = Network.UP

    async def lead_to(self, target_port: int) -> None:
        """Resets all connections; new ones lead to another server."""
        self._target_port = target_port
        await self._end_connections()

    async def cut(self) -> None:
        """Resets all connections; new ones work."""
        await self._end_connections()

    async def _end_connections(self) -> None:
        ending = dict(self._connections)
        for writer, task in ending.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*ending.values(), return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[writer] = task
        try:
            if self._network is Network.UP:
                await self._forward(reader, writer)
            elif self._network is Network.BLACK_HOLE:
                await _swallow(reader)
        except (OSError, asyncio.CancelledError):
            pass  # Whoever broke it off knows.
        finally:
            del self._connections[writer]
            await _reset(writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        ways = [(reader, there_writer), (there_reader, writer)]
        tasks = [asyncio.create_task(self._pump(*way)) for way in ways]
        try:
            # Either end may close; then the other is closed, too.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # At once: who cuts all connections now cancels the waiting below.
            there_writer.transport.abort()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await _reset(there_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if self._network is Network.BLACK_HOLE:
                # From here on nothing may pass any more: bytes are missing.
                await _swallow(reader)
                await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()


async def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection at once; it is gone when this returns."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _swallow(reader: asyncio.StreamReader) -> None:
    while await reader.read(_CHUNK_BYTES):
        pass
