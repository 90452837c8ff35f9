"""Load assignments: what of a service's VMs is in them, and how it is written."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.core.v3.address_pb2 import SocketAddress
from envoy.config.core.v3.health_check_pb2 import HealthStatus
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from tests.unit.counting import counted_calls
from tests.unit.server.xds.client import addresses
from vmsvc_grpc.model.endpoints import Endpoint
from vmsvc_grpc.model.objects import ServicePort
from vmsvc_grpc.server.xds.assignments import Localities, load_assignment

NAME = "web.shop:80"
HTTP = ServicePort("http", "TCP", 80, 9376)
UDP = ServicePort("dns", "UDP", 53, 5353)


def endpoint(
    address: str,
    uid: str = "",
    *,
    ready: bool = True,
    zone: str = "",
    region: str = "",
    secondary: bool = False,
) -> Endpoint:
    return Endpoint(address, uid or f"uid-{address}", ready, "vm", zone, region, secondary)


def assignment(*endpoints: Endpoint, port: ServicePort = HTTP) -> Any:
    content = load_assignment(NAME, port, Localities(sorted(endpoints)))
    return ClusterLoadAssignment.FromString(content)


def test_a_region_is_part_of_its_locality() -> None:
    made = assignment(
        endpoint("10.0.0.1", zone="a", region="west"),
        endpoint("10.0.0.2", zone="a", region="east"),
        endpoint("10.0.0.3", zone="a"),
        endpoint("10.0.0.4", zone="a", region="west"),
    )
    shown = [(e.locality.region, e.locality.zone, len(e.lb_endpoints)) for e in made.endpoints]
    assert shown == [("", "a", 1), ("east", "a", 1), ("west", "a", 2)]


@pytest.mark.parametrize(
    ("first", "second"),
    [("10.0.0.1", "fd00::1"), ("fd00::1", "10.0.0.1")],
    ids=["IPv4 first", "IPv6 first"],
)
def test_the_address_of_the_services_primary_family_comes_first(first: str, second: str) -> None:
    made = assignment(
        endpoint(first, "uid"), endpoint(second, "uid", secondary=True), endpoint("10.9.9.9", "z")
    )
    (locality,) = made.endpoints
    member = next(m.endpoint for m in locality.lb_endpoints if m.endpoint.additional_addresses)
    (additional,) = member.additional_addresses
    assert member.address.socket_address.address == first
    assert additional.address.socket_address.address == second


def test_a_zone_is_a_locality_that_weighs_as_much_as_its_endpoints() -> None:
    made = assignment(
        endpoint("10.0.0.1", zone="b"),
        endpoint("10.0.0.2", zone="a"),
        endpoint("10.0.0.3", zone="b"),
    )
    shown = [(e.locality.zone, e.load_balancing_weight.value, e.priority) for e in made.endpoints]
    assert shown == [("a", 1, 0), ("b", 2, 0)]
    assert all(e.HasField("locality") for e in assignment(endpoint("10.0.0.1")).endpoints)


def test_one_that_is_not_ready_is_unhealthy_and_its_locality_keeps_a_weight() -> None:
    (locality,) = assignment(endpoint("10.0.0.1", ready=False)).endpoints
    assert locality.lb_endpoints[0].health_status == HealthStatus.UNHEALTHY
    assert locality.load_balancing_weight.value == 1


@pytest.mark.parametrize(
    ("endpoints", "kept"),
    [
        pytest.param(
            [endpoint("10.0.0.1", "a", ready=False), endpoint("10.0.0.1", "b")],
            [("10.0.0.1:9376", HealthStatus.HEALTHY)],
            id="ready over not ready",
        ),
        pytest.param(
            [endpoint("10.0.0.1", "a"), endpoint("10.0.0.1", "b", ready=False)],
            [("10.0.0.1:9376", HealthStatus.HEALTHY)],
            id="ready over not ready, the other way",
        ),
        pytest.param(
            [endpoint("10.0.0.1", "b", zone="b"), endpoint("10.0.0.1", "a", zone="a")],
            [("10.0.0.1:9376", HealthStatus.HEALTHY)],
            id="once, in two zones too",
        ),
        pytest.param(
            [endpoint("2001:DB8:0:0::1", "a"), endpoint("2001:db8::1", "b")],
            [("2001:db8::1:9376", HealthStatus.HEALTHY)],
            id="once, written in two ways too",
        ),
    ],
)
def test_an_address_comes_once(endpoints: list[Endpoint], kept: list[tuple[str, int]]) -> None:
    made = assignment(*endpoints)
    members = [member for locality in made.endpoints for member in locality.lb_endpoints]
    healths = [member.health_status for member in members]
    assert list(zip(addresses(made), healths, strict=True)) == kept


def test_a_dual_stack_vm_is_one_endpoint_with_an_additional_address() -> None:
    made = assignment(endpoint("10.0.0.1", "a"), endpoint("2001:db8::1", "a"))
    ((member,),) = (locality.lb_endpoints for locality in made.endpoints)
    assert member.endpoint.address.socket_address.address == "10.0.0.1"
    (other,) = member.endpoint.additional_addresses
    assert other.address.socket_address.address == "2001:db8::1"
    assert other.address.socket_address.port_value == 9376


def test_an_additional_address_comes_once_too() -> None:
    made = assignment(
        endpoint("10.0.0.1", "a"), endpoint("2001:db8::1", "a"), endpoint("2001:db8::1", "b")
    )
    ((member,),) = (locality.lb_endpoints for locality in made.endpoints)
    assert len(member.endpoint.additional_addresses) == 1


def test_udp_is_said() -> None:
    ((member,),) = (e.lb_endpoints for e in assignment(endpoint("10.0.0.1"), port=UDP).endpoints)
    assert member.endpoint.address.socket_address.protocol == 1
    assert member.endpoint.address.socket_address.port_value == 5353


@pytest.mark.parametrize("port", [1, 127, 128, 9376, 16_383, 16_384, 65_535])
@pytest.mark.parametrize("ready", [True, False])
def test_each_address_has_the_port_however_many_bytes_it_takes(port: int, ready: bool) -> None:
    both = endpoint("10.0.0.1", "a", ready=ready), endpoint("2001:db8::1", "a", ready=ready)
    for given in (both[:1], both[1:], both):
        (locality,) = assignment(*given, port=ServicePort("p", "UDP", 1, port)).endpoints
        (member,) = locality.lb_endpoints
        first, *others = (
            member.endpoint.address,
            *(of.address for of in member.endpoint.additional_addresses),
        )
        assert len(others) == len(given) - 1
        assert {of.socket_address.port_value for of in (first, *others)} == {port}
        assert {of.socket_address.protocol for of in (first, *others)} == {SocketAddress.UDP}
        assert [of.socket_address.address for of in (first, *others)] == [e.address for e in given]


def test_without_endpoints_there_is_an_empty_assignment() -> None:
    made = assignment()
    assert made.cluster_name == NAME
    assert not made.endpoints


def test_addresses_are_in_the_one_form_that_clients_read() -> None:
    """Endpoints may hold others; a client that cannot read one refuses the whole assignment."""
    odd = (endpoint("010.0.00.1"), endpoint("::ffff:10.0.0.2"), endpoint("2001:DB8::0001"))
    made = assignment(*odd)
    sockets = [m.endpoint.address.socket_address for e in made.endpoints for m in e.lb_endpoints]
    assert sorted(s.address for s in sockets) == ["10.0.0.1", "10.0.0.2", "2001:db8::1"]


@pytest.mark.parametrize("port", [HTTP, UDP, ServicePort("", "UDP", 1, 7)])
def test_it_is_written_as_protobuf_writes_it(port: ServicePort) -> None:
    """So replicas of other releases, which may write another way, have the same versions."""
    given = sorted(
        [
            endpoint("10.0.0.1", "a", zone="a"),
            endpoint("2001:db8::1", "a", zone="a"),
            *(endpoint(f"10.1.0.{n}", zone="b" * n, ready=n % 2 > 0) for n in range(200)),
        ]
    )
    name = "a-name-that-takes-more-than-127-bytes." * 4
    content = load_assignment(name, port, Localities(given))
    message: Any = ClusterLoadAssignment.FromString(content)
    assert message.cluster_name == name
    assert len(message.endpoints) == 201
    assert message.SerializeToString(deterministic=True) == content


def test_vms_are_looked_at_once_for_all_ports() -> None:
    located = Localities([endpoint(f"10.0.{n // 250}.{n % 250}") for n in range(1_000)])
    with counted_calls() as calls:
        load_assignment(NAME, ServicePort("", "TCP", 1, 8_080), located)
    for_one = calls[0]
    with counted_calls() as calls:
        for number in range(100):
            load_assignment(NAME, ServicePort("", "TCP", 1, 9_000 + number), located)
    assert calls[0] < for_one
