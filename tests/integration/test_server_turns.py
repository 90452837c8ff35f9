"""In which order everybody is served who wants something at the same time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from time import perf_counter

import grpc
import pytest

from tests.integration import many_events, serving
from tests.integration.serving import PATIENCE_S, until
from tests.integration.test_server_transport import Toy, running
from vmsvc_grpc.server.call import LATER, Later

_STREAMS, _CONNECTIONS, _SLICE_S = 1_000, 200, 0.001


def test_many_events_of_grpc_come_in_few_turns_of_the_event_loop() -> None:
    """Beyond some 280 at a time they came one a turn, and whoever looked something up waited."""
    script = [sys.executable, "-m", many_events.__name__]
    turns = int(subprocess.check_output(script, timeout=PATIENCE_S))
    assert turns < many_events.STREAMS / 4


@pytest.mark.parametrize("name", serving.TRANSPORTS)
async def test_a_look_up_does_not_wait_for_everybody_who_has_much_to_do(name: str) -> None:
    """100 Envoys wanted slice after slice, and a look-up waited for one slice of each: 0.6 s."""
    serving.used[0] = name  # Reset by the fixture `transport`.
    slices, busy = 0, False

    def works() -> bytes | Later | None:
        nonlocal slices
        if not busy:
            return None
        slices += 1
        until_s = perf_counter() + _SLICE_S
        while perf_counter() < until_s:
            pass
        return LATER

    toy = Toy(says=works)
    async with running(toy) as server, AsyncExitStack() as stack:
        own = [("grpc.use_local_subchannel_pool", 1)]
        connections = [
            await stack.enter_async_context(grpc.aio.insecure_channel(server.address, options=own))
            for _ in range(_CONNECTIONS)
        ]
        await server.unary()
        calls = [
            replace(server, channel=connections[number % _CONNECTIONS]).server()
            for number in range(_STREAMS)
        ]
        await asyncio.gather(*(call.initial_metadata() for call in calls))
        busy = True
        for wake in toy.wakes:
            wake()
        await until(lambda: slices > _STREAMS)
        before = slices
        async with asyncio.timeout(PATIENCE_S):
            await server.unary()
        waited, busy = slices - before, False
        for call in calls:
            call.cancel()
    assert waited < _STREAMS / 2
