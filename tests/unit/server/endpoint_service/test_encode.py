"""Messages of a publication: what they say, and that each is made once."""

from __future__ import annotations

import pytest

from tests.unit.objects import APP_WEB, WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.topic import Publication, Topic
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Probe, Readiness, ServicePort
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.endpoint_service.encode import SYNCED, Encoder

A = vm("a", "10.0.0.1", zone="z1")
B = vm("b", "10.0.0.2", probe=Probe.TCP_SOCKET, ready=Readiness.FALSE)
PORTS = (ServicePort("http", "TCP", 80, 9376), ServicePort("dns", "UDP", 53, 5353))


class Listener:
    def wake(self, topic: Topic) -> None:
        pass


@pytest.fixture
def cache() -> Cache:
    return synced_cache(service(given=spec(APP_WEB, ports=PORTS)), A, B)


def publication(cache: Cache) -> Publication:
    return cache.subscribe(WEB, FilterClass.ALL, Listener()).current


def decoded(raw: bytes) -> pb.WatchEndpointsResponse:
    return pb.WatchEndpointsResponse.FromString(raw)


def test_a_snapshot_holds_everything_in_order(cache: Cache) -> None:
    now = publication(cache)
    told = decoded(Encoder(ServerCounts()).snapshot(now)).snapshot
    assert told == pb.EndpointSet(
        service="shop/web",
        version=now.version,
        revision=told.revision,
        ports=[
            pb.Port(name="http", port=80, target_port=9376, protocol="TCP"),
            pb.Port(name="dns", port=53, target_port=5353, protocol="UDP"),
        ],
        endpoints=[
            pb.Endpoint(address="10.0.0.1", ready=True, vm_name="a", vm_uid="uid-a", zone="z1"),
            pb.Endpoint(address="10.0.0.2", ready=False, vm_name="b", vm_uid="uid-b"),
        ],
    )
    assert len(told.revision) == 32


def test_a_snapshot_is_a_look_ups_response_too(cache: Cache) -> None:
    raw = Encoder(ServerCounts()).snapshot(publication(cache))
    response = pb.ResolveEndpointsResponse.FromString(raw)
    assert response.endpoint_set == decoded(raw).snapshot
    assert response.SerializeToString() == raw


def test_a_delta_says_what_went_what_came_and_ports_only_if_they_changed(cache: Cache) -> None:
    encoder = Encoder(ServerCounts())
    cache.apply(Apply(vm("a", "10.0.0.9", zone="z1")))
    now = publication(cache)
    assert decoded(encoder.delta(now)).delta == pb.Delta(
        service="shop/web",
        version=now.version,
        revision=decoded(encoder.snapshot(now)).snapshot.revision,
        removed=[pb.EndpointKey(address="10.0.0.1", vm_uid="uid-a")],
        upserted=[
            pb.Endpoint(address="10.0.0.9", ready=True, vm_name="a", vm_uid="uid-a", zone="z1")
        ],
    )
    cache.apply(Apply(service(given=spec(APP_WEB, ports=()))))
    told = decoded(encoder.delta(publication(cache))).delta
    assert told.ports_changed
    assert [len(told.ports), len(told.removed), len(told.upserted)] == [0, 0, 0]


def test_current_and_absent(cache: Cache) -> None:
    encoder = Encoder(ServerCounts())
    now = publication(cache)
    revision = decoded(encoder.snapshot(now)).snapshot.revision
    current = pb.Current(service="shop/web", version=now.version, revision=revision)
    assert decoded(encoder.current(now)).current == current
    cache.apply(Apply(service(given=spec(APP_WEB, ports=PORTS), deleting=True)))
    assert decoded(encoder.absent(publication(cache))).absent == pb.Absent(
        service="shop/web",
        reason=pb.Absent.REASON_NOT_FOUND,
        message="VirtualMachineService shop/web is being deleted",
    )
    assert decoded(SYNCED).WhichOneof("event") == "synced"


def test_each_message_is_made_once_for_all_readers(cache: Cache) -> None:
    counts = ServerCounts()
    encoder = Encoder(counts)
    cache.apply(Apply(vm("a", "10.0.0.9")))
    for _ in range(1000):
        now = publication(cache)
        for encoded in (encoder.snapshot, encoder.delta, encoder.current):
            assert encoded(now) is encoded(now)
    assert counts.encodings == {"snapshot": 1, "delta": 1, "current": 1}
