"""A request that is too long costs what it asks for, and never its stream: not on grpc.aio."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2 as pb

from tests.integration.serving import serving, until
from tests.integration.test_xds_server import NAME, ads
from tests.unit.objects import service, vm
from tests.unit.server.xds.client import CDS, EDS, node
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.transport.http2 import Http2

MOST = 100_000


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
