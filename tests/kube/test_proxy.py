"""The proxy itself: whatever it is told, and whenever, it leaves no connection behind."""

import asyncio
import gc

import pytest

from tests.kube.proxy import Proxy

DEADLINE_S = 20


@pytest.mark.parametrize("turns", range(12))
async def test_connections_that_end_while_they_are_cut_are_gone(turns: int) -> None:
    """At every turn of the event loop on which that may meet; one left behind would warn."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        ended.set()

    async with (
        asyncio.timeout(DEADLINE_S),
        await asyncio.start_server(serve, "127.0.0.1", 0) as server,
        Proxy(server.sockets[0].getsockname()[1]) as proxy,
    ):
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"there")
        while not proxy.connections:  # noqa: ASYNC110 - a poll with a deadline
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()
        for _ in range(turns):
            await asyncio.sleep(0)
        await proxy.cut()
        await ended.wait()
    gc.collect()
