"""A request that is too long costs what it asks for, and never its stream: not on grpc.aio."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2 as pb

from tests.integration.envoy import bootstrap, envoy, on_demand
from tests.integration.serving import serving, until
from tests.integration.test_xds_envoy import world
from tests.integration.test_xds_server import NAME, ads
from tests.unit.objects import service, spec, vm
from tests.unit.server.xds.client import CDS, EDS, node
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Key, ServicePort
from vmsvc_grpc.server.call import Code
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.listen import Server
from vmsvc_grpc.server.transport import Listener
from vmsvc_grpc.server.transport.http2 import Http2

MOST = 100_000
LONG = "x" * 500
TOO_MANY = 220


def too_long(form: str, type_url: str) -> Any:
    """Some names that are very long, as an HTTP client can have an Envoy ask for any cluster."""
    names = ["x" * 40_000] * 30
    if form == "Stream":
        return pb.DiscoveryRequest(type_url=type_url, resource_names=names, node=node("envoy"))
    return pb.DeltaDiscoveryRequest(
        type_url=type_url, resource_names_subscribe=names, node=node("envoy")
    )


@pytest.mark.parametrize("form", ["Stream", "Delta"])
@pytest.mark.parametrize("unknown", [False, True], ids=["clusters", "unknown type"])
async def test_a_request_that_is_too_long_is_dropped_and_its_stream_goes_on(
    form: str, unknown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """An on-demand Envoy says all its names when it comes back: it was cut off for good."""
    caplog.set_level(logging.WARNING)
    limits = Limits(message_bytes_max=MOST)
    async with serving(service(), vm("a", "10.0.0.1"), limits=limits) as running:
        stream = ads(running, form)
        large = too_long(form, "type.googleapis.com/a.Secret" if unknown else CDS.value)
        if form == "Stream":
            small: Any = pb.DiscoveryRequest(type_url=EDS.value, resource_names=[NAME])
        else:
            small = pb.DeltaDiscoveryRequest(type_url=EDS.value, resource_names_subscribe=[NAME])
        small.node.CopyFrom(node("envoy"))
        for request in (large, large, small, large):
            await stream.send(request)
        assert len((await stream.read()).resources) == 1
        await until(lambda: running.counts.refusals["message_bytes_max"] == 3)
        transport = running.server._transport
        assert isinstance(transport, Http2)
        await until(lambda: not transport.uploads.in_all)
        assert not stream.call.done()
        assert running.counts.request_bytes < MOST, "none of it was read"
    lines = [record.message for record in caplog.records]
    assert all("(message_bytes_max) and is dropped" in line for line in lines), lines


async def test_an_envoy_with_more_names_than_a_request_may_have_comes_back(tmp_path: Path) -> None:
    """It keeps its clusters, and is sent what it asks for next."""
    limits = Limits(message_bytes_max=MOST)
    async with world() as here, AsyncExitStack() as stack:
        first = Server(here.running.cache, [Listener("127.0.0.1:0")], Http2, limits=limits)
        (address,) = await first.start()
        config = on_demand(bootstrap([address], "DELTA_GRPC"))
        proxy = await stack.enter_async_context(envoy(config, tmp_path))
        await proxy.answers("a", "b")
        assert TOO_MANY * len(LONG) > MOST
        for number in range(TOO_MANY):
            assert await proxy.call_raw(f"{LONG}{number}") == 503
        await first.stop()
        second = Server(here.running.cache, [Listener(address)], Http2, limits=limits)
        assert await second.start() == (address,)
        await until(lambda: second.counts.refusals["message_bytes_max"])
        here.vm("c")
        await proxy.answers("a", "b", "c")
        ports = (ServicePort("http", "TCP", 80, here.machines.port),)
        here.running.apply(Apply(service(Key("shop", "none"), spec(ports=ports))))
        await proxy.answers("a", "b", "c", cluster="none.shop:80")
        calls = second.counts.calls
        assert not [path for path, code in calls if code is not Code.OK], "no stream has ended"
        await stack.aclose()
        await until(lambda: not second.counts.streams_open.total())
        await second.stop()
