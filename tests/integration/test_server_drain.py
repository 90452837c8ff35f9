"""How the server stops: health first, then the streams, one after another."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.integration.serving import SMALL_WINDOW, Serving, Watch, serving, until
from tests.unit.objects import service, vm
from tests.unit.server.endpoint_service.watching import key, request
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.server.limits import Limits

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def opened(running: Serving, count: int) -> list[Watch]:
    """That many watches on a few connections, each told all there is."""
    channels = [running.channel() for _ in range(5)]
    watches = [running.watch(request("shop/web"), channels[n % 5]) for n in range(count)]
    await asyncio.gather(*(watch.until_synced() for watch in watches))
    return watches


async def test_a_hundred_streams_end_one_after_another_within_the_drain_time() -> None:
    drain_s = 1.0
    async with serving(service(), vm("a", "10.0.0.1")) as running:
        watches = await opened(running, 100)
        ended: list[float] = []

        async def until_it_ends(watch: Watch) -> grpc.aio.AioRpcError:
            error = await watch.ending()
            ended.append(time.monotonic() - begun)
            return error

        begun = time.monotonic()
        endings = [asyncio.create_task(until_it_ends(watch)) for watch in watches]
        await running.server.drain(drain_s)
        took_s = time.monotonic() - begun
        for error in await asyncio.gather(*endings):
            assert error.code() is UNAVAILABLE
            assert "another replica" in (error.details() or "")
        assert running.counts.drained == 100
        assert 0.8 * drain_s < took_s < drain_s + 1.0
        # A slope and no wall: at no time do many go at once.
        assert max(after - before for before, after in pairwise(ended)) < 0.5 * drain_s
        assert len([at for at in ended if at < 0.5 * drain_s]) in range(25, 65)


async def test_while_it_drains_health_is_down_and_nobody_new_is_let_in() -> None:
    async with serving(service()) as running:
        watches = await opened(running, 2)
        channel, health, stub = running.channel(), running.health(), running.stub()
        await health.Check(health_pb2.HealthCheckRequest())
        draining = asyncio.create_task(running.server.drain(1.0))
        await until(lambda: running.counts.drained == 1)
        checked = await health.Check(health_pb2.HealthCheckRequest())
        assert checked.status == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ResolveEndpoints(pb.ResolveEndpointsRequest(service="shop/web"))
        assert refused.value.code() is UNAVAILABLE
        assert (await running.watch(request("shop/web"), channel).ending()).code() is UNAVAILABLE
        # Who is still there is served as before.
        running.apply(Apply(vm("a", "10.0.0.1")))
        told = [await watch.ending() for watch in watches]
        assert {error.code() for error in told} == {UNAVAILABLE}
        assert sum("a" in str(watch.reader.held) for watch in watches) >= 1
        await draining


async def test_a_drain_is_over_as_soon_as_no_stream_is_left() -> None:
    async with serving(service()) as running:
        (watch,) = await opened(running, 1)
        begun = time.monotonic()
        draining = asyncio.create_task(running.server.drain(60.0))
        watch.call.cancel()
        await draining
        assert time.monotonic() - begun < 10.0
        assert running.counts.drained == 0


async def test_a_client_that_does_not_read_does_not_hold_up_the_drain() -> None:
    """linkerd2 #14621: stop and send waited for one another."""
    many = [vm(f"v{i}", f"10.0.{i // 250}.{i % 250 + 1}") for i in range(2000)]
    limits = Limits(stop_grace_s=0.3)
    async with serving(service(), *many, limits=limits) as running:
        stalled = [
            running.watch(request("shop/web"), running.channel(*SMALL_WINDOW)) for _ in range(3)
        ]
        (reading,) = await opened(running, 1)
        await until(lambda: running.streams_open == 4)
        begun = time.monotonic()
        draining = asyncio.create_task(running.server.drain(0.5))
        assert (await reading.ending()).code() is UNAVAILABLE
        await draining
        assert time.monotonic() - begun < 5.0
        assert running.counts.drained == 4
        assert running.streams_open == 0
        for watch in stalled:
            assert (await watch.ending()).code() is UNAVAILABLE


async def test_a_drain_can_be_given_up_for_a_stop() -> None:
    async with serving(service(), service(key("shop/db"))) as running:
        watches = await opened(running, 3)
        draining = asyncio.create_task(running.server.drain(60.0))
        await asyncio.sleep(0.1)
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        await running.server.stop()
        for watch in watches:
            assert (await watch.ending()).code() is UNAVAILABLE
        await running.server.stop()
