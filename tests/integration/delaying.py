"""A proxy on loopback that passes bytes on late: a server that is far away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CHUNK_BYTES = 65_536


@asynccontextmanager
async def delaying(address: str, delay_s: float) -> AsyncIterator[str]:
    """The address of a proxy to `address` that delays each byte by `delay_s`, either way."""
    host, _, port = address.rpartition(":")
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.create_task(_pass_on(source, target, delay_s))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, delay_s: float
) -> None:
    """Bytes go on when they are old enough; what comes meanwhile does not wait for them."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def write() -> None:
        while True:
            at, data = await queue.get()
            await asyncio.sleep(at - loop.time())
            if not data:
                return
            target.write(data)
            await target.drain()

    writing = asyncio.create_task(write())
    try:
        while data := await source.read(_CHUNK_BYTES):
            queue.put_nowait((loop.time() + delay_s, data))
        queue.put_nowait((loop.time() + delay_s, b""))
        await writing
    except ConnectionError:
        pass  # One side has gone, and so does the other.
    finally:
        writing.cancel()
        target.close()
