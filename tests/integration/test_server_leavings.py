"""What ended calls and connections leave: nothing that only the garbage collector would free.

It does not look at what has lived long (ADR 41), so that would stay for ever.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.integration.serving import WATCH, Serving, serving, until
from tests.integration.test_xds_server import ADS, NAME, Stream
from tests.unit.objects import service, vm
from tests.unit.server.xds.client import CDS, EDS
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.model.events import Apply

RESOLVE = "/vmsvc.v1.EndpointService/ResolveEndpoints"

_OURS = ("vmsvc_grpc.server.", "vmsvc_grpc.cache.changes.")

Open = Callable[[Serving, grpc.aio.Channel], Awaitable[object]]


def ours() -> Counter[str]:
    """The server's objects that were made since the freeze and could be part of a cycle."""
    names = (f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    return Counter(name for name in names if name.startswith(_OURS))


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Nothing but counts of references frees anything."""
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


async def watch_all(running: Serving, channel: grpc.aio.Channel) -> object:
    watch = running.watch(pb.WatchEndpointsRequest(all_services=True), channel)
    await watch.until_synced()
    running.apply(Apply(vm("b", f"10.0.0.{running.cache.counts.events % 250}")))
    await watch.read()
    return watch


async def watch_one(running: Serving, channel: grpc.aio.Channel) -> object:
    wanted = [pb.WatchedService(service="shop/web"), pb.WatchedService(service="shop/none")]
    watch = running.watch(pb.WatchEndpointsRequest(services=wanted), channel)
    await watch.until_synced()
    return watch


async def ads(running: Serving, channel: grpc.aio.Channel) -> object:
    stream = Stream(channel, f"/{ADS}/StreamAggregatedResources")
    await stream.ask(CDS)
    await stream.read()
    await stream.ask(EDS, NAME)
    await stream.read()
    return stream


async def health(_running: Serving, channel: grpc.aio.Channel) -> object:
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
    method = channel.unary_stream("/grpc.health.v1.Health/Watch")
    call = method(health_pb2.HealthCheckRequest().SerializeToString())
    await call.read()
    return call


async def refused(_running: Serving, channel: grpc.aio.Channel) -> object:
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(WATCH)
    call = method(b"\xff")
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
    return call


async def not_found(_running: Serving, channel: grpc.aio.Channel) -> object:
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(RESOLVE)
    call = method(pb.ResolveEndpointsRequest(service="shop/none").SerializeToString())
    with pytest.raises(grpc.aio.AioRpcError):
        await call
    return call


def cancel(call: Any) -> None:
    getattr(call, "call", call).cancel()


@pytest.mark.parametrize("opened", [watch_all, watch_one, ads, health, refused, not_found])
@pytest.mark.parametrize("cancelled", [False, True], ids=["connection lost", "cancelled"])
async def test_a_stream_that_has_ended_leaves_no_cycle(opened: Open, cancelled: bool) -> None:
    async with serving(service(), vm("a", "10.0.0.1")) as running:
        await opened(running, running.channel())  # So that all that is made once is there.
        await running.close()
        await until(lambda: not running.streams_open)
        gc.freeze()
        for _ in range(3):
            channel = running.channel()
            call = await opened(running, channel)
            assert ours() or opened in (refused, not_found), "a stream is seen"
            if cancelled:
                cancel(call)
                await until(lambda: not running.streams_open)
            del call  # While it is there, its connection may stay.
            await channel.close()
            running.channels.clear()
        await until(lambda: not ours())
