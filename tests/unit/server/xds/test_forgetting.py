"""What is encoded for xDS is dropped once nobody has followed anything for a while."""

from __future__ import annotations

import asyncio

import pytest
from envoy.service.discovery.v3 import discovery_pb2 as pb

from tests.unit.objects import vm
from tests.unit.server.xds.client import CDS, EDS
from tests.unit.server.xds.test_refusal_lines import xds
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.server.call import LATER, Call, StreamMethod
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds import service as xds_service
from vmsvc_grpc.server.xds.service import Xds
from vmsvc_grpc.server.xds.stream import XdsStream


def followed(server: Xds) -> XdsStream:
    """A stream that has been sent everything."""
    (method,) = (m for m in server.methods() if m.path.endswith("/DeltaAggregatedResources"))
    assert isinstance(method, StreamMethod)
    stream = method.open(Call("ipv4:192.0.2.1:1"), lambda: None)
    assert isinstance(stream, XdsStream)
    for type_url in (CDS, EDS):
        stream.receive(pb.DeltaDiscoveryRequest(type_url=type_url.value).SerializeToString())
    while (message := stream.next_message()) is not None:
        assert message is LATER or isinstance(message, bytes)
    return stream


def encoded(server: Xds) -> int:
    """How much is kept encoded."""
    cache, resources = server._shared.cache, server._shared.resources
    states = (cache.state(key, each) for key in cache.services for each in FilterClass)
    kept = sum(key.startswith("xds") for state in states for key in state.encoded)
    return kept + resources._static.cache_info().currsize


async def test_what_is_encoded_goes_a_while_after_the_last_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """10,000 services, once followed by anybody, left 60 MiB for as long as nothing changed."""
    monkeypatch.setattr(xds_service, "_KEPT_S", 0.0)
    server = xds(Limits())
    server._shared.cache.apply(Apply(vm("a", "10.0.0.1")))
    streams = [followed(server), followed(server)]
    assert encoded(server)
    streams.pop().close()
    await asyncio.sleep(0)
    assert server._forgetting is None, "there is another"
    assert encoded(server)
    streams.pop().close()
    async with asyncio.timeout(30):
        while encoded(server):  # noqa: ASYNC110 - it is nobody's event
            await asyncio.sleep(0)
    followed(server).close()
    assert encoded(server), "it is made anew"


async def test_what_is_encoded_stays_for_a_client_that_comes_back() -> None:
    server = xds(Limits())
    server._shared.cache.apply(Apply(vm("a", "10.0.0.1")))
    followed(server).close()
    made = encoded(server)
    assert made
    assert server._forgetting is not None
    timer = server._forgetting
    stream = followed(server)
    assert timer.cancelled()
    server.forget()
    assert encoded(server) == made
    stream.close()
