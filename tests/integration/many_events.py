"""400 streams of grpc.aio are sent a message at the same time: in how many turns of the event loop?

A process of its own, as all of a process is woken in the same way. Server and client are both
here, so that is 800 events and more. A turn lasts a little, as in a process with work to do.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import grpc
import uvloop

from tests.integration import serving
from tests.integration.test_server_transport import Toy, running
from vmsvc_grpc.server.call import Call, Wake

STREAMS = 400

_TURN_S = 0.002


class _Announcing(Toy):
    """Each of its streams has one message, once there is news."""

    news = False

    def opened(self, call: Call, wake: Wake) -> Toy:
        super().opened(call, wake)
        left = [b"news"]
        return Toy(says=lambda: left.pop() if self.news and left else None, happened=self.happened)


async def turns_taken() -> int:
    """How many turns it took until each client had its message."""
    turn = 0

    async def tick() -> None:
        nonlocal turn
        while True:
            turn += 1
            time.sleep(_TURN_S)  # noqa: ASYNC251 - it holds the loop, as work does.
            await asyncio.sleep(0)

    toy = _Announcing()
    async with running(toy) as server:
        calls = [server.server() for _ in range(STREAMS)]
        await asyncio.gather(*(call.initial_metadata() for call in calls))
        reads = [asyncio.ensure_future(call.read()) for call in calls]
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0)
        toy.news, began = True, turn
        for wake in toy.wakes:
            wake()
        await asyncio.gather(*reads)
        took = turn - began
        ticking.cancel()
        for call in calls:
            call.cancel()
            with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                await call.code()
    return took


if __name__ == "__main__":
    serving.used[0] = "grpcio"
    print(uvloop.run(turns_taken()))
