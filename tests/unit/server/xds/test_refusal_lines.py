"""The log lines of NACKs: for each content one, and for each client some a minute."""

from __future__ import annotations

import pytest
from envoy.service.discovery.v3 import discovery_pb2 as pb

from tests.unit.objects import service
from tests.unit.server.endpoint_service.watching import synced_cache
from tests.unit.server.xds.client import CDS, node
from vmsvc_grpc.server.call import LATER, Call, StreamMethod
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.followed import FollowedNames
from vmsvc_grpc.server.leaving import Leaving
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds.following import XdsScope
from vmsvc_grpc.server.xds.names import CLUSTER_LOCAL
from vmsvc_grpc.server.xds.service import Xds


def xds(limits: Limits) -> Xds:
    counts = ServerCounts()
    return Xds(
        synced_cache(service()),
        XdsScope.ALL,
        CLUSTER_LOCAL,
        limits,
        counts,
        names=FollowedNames(limits, counts.refusals),
        leaving=Leaving(),
    )


def refuse(server: Xds, client: str, words: str) -> None:
    """Open a stream as a client, take what comes, refuse it, and close."""
    (method,) = (m for m in server.methods() if m.path.endswith("/StreamAggregatedResources"))
    assert isinstance(method, StreamMethod)
    stream = method.open(Call(f"ipv4:{client}:1"), lambda: None)
    asked = pb.DiscoveryRequest(type_url=CDS.value, node=node())
    stream.receive(asked.SerializeToString())
    while (message := stream.next_message()) is LATER:
        pass
    assert isinstance(message, bytes)
    asked.response_nonce = pb.DiscoveryResponse.FromString(message).nonce
    asked.error_detail.message = words
    stream.receive(asked.SerializeToString())
    stream.close()


async def test_what_was_left_out_of_one_clients_lines_is_in_anothers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = xds(Limits(client_lines_per_minute_max=2))
    for words in ("one", "two", "three"):
        refuse(server, "192.0.2.1", words)
    for words in ("one", "three", "three"):
        refuse(server, "192.0.2.2", words)
    said = [record.message.rpartition(": ")[2] for record in caplog.records]
    assert said == ["'one'", "'two'", "'three'"]
