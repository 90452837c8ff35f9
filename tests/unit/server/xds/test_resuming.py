"""Clients of deltas that come back with all that they hold: their requests are not too large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2 as pb

from tests.unit.server.xds.client import CDS, EDS, node
from vmsvc_grpc.server.fields import counted, shape_of
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds.resources import TypeUrl, resource_version

LIMITS = Limits()
SHAPE = shape_of(pb.DeltaDiscoveryRequest.DESCRIPTOR)
# An Envoy lists its extensions with what it says of itself: some hundred KB.
NODE = node("envoy", "x" * 128 * 1024)


def resuming(type_url: TypeUrl, held: Sequence[str], asked: Sequence[str]) -> bytes:
    """The first request of a stream, of a client that holds these."""
    request: Any = pb.DeltaDiscoveryRequest(type_url=type_url.value, node=NODE)
    request.resource_names_subscribe.extend(asked)
    for number, name in enumerate(held):
        request.initial_resource_versions[name] = resource_version((number + 1) << 100)
    return bytes(request.SerializeToString())


def names(count: int) -> list[str]:
    return [f"service-{n // 4:05}.name-space:{8080 + n % 4}" for n in range(count)]


@pytest.mark.parametrize(
    ("type_url", "count", "by_name"),
    [
        pytest.param(CDS, 80_000, False, id="all clusters of 20,000 services with four ports"),
        pytest.param(EDS, LIMITS.xds_resources_max, True, id="as many as may be asked for"),
    ],
)
def test_by_default_all_that_a_client_may_hold_fits(
    type_url: TypeUrl, count: int, by_name: bool
) -> None:
    held = names(count)
    assert len(held[0]) == 29
    request = resuming(type_url, held, held if by_name else [])
    assert len(request) <= LIMITS.message_bytes_max
    *_, fields = counted(request, SHAPE)
    assert fields <= LIMITS.request_fields_max


@pytest.mark.parametrize("digest", [0, 1, 1 << 63, 1 << 64, (1 << 128) - 1])
def test_a_version_has_11_characters(digest: int) -> None:
    assert len(resource_version(digest)) == 11
