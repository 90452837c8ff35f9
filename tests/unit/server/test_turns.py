"""Long work in slices: one slice a turn of the event loop, whoever does it."""

from __future__ import annotations

import asyncio

from vmsvc_grpc.server.transport.turns import Turns


async def test_slices_of_many_streams_never_share_a_turn() -> None:
    turns, loop = Turns(), asyncio.get_running_loop()
    log: list[str] = []

    def tick() -> None:
        log.append("turn")
        loop.call_soon(tick)

    async def works(name: str, slices: int) -> None:
        for _ in range(slices):
            await turns.next()
            log.append(name)

    loop.call_soon(tick)
    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(works(name, 3))
    assert "".join(name for name in log if name != "turn") == "abcabcabc"
    between = [log[i : i + 2] for i in range(len(log) - 1)]
    assert all("turn" in pair for pair in between), "others had a turn between two slices"


async def test_who_is_cancelled_leaves_its_turn_to_the_next() -> None:
    turns = Turns()
    first, second = (asyncio.ensure_future(turns.next()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait_for(second, 5)
    assert first.cancelled()
    await asyncio.wait_for(turns.next(), 5)
