"""Resources of xDS: what is in them, and how often they are made."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from envoy.config.core.v3.address_pb2 import SocketAddress
from envoy.config.core.v3.health_check_pb2 import HealthStatus
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from envoy.service.discovery.v3 import discovery_pb2 as pb

from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from tests.unit.server.xds.client import CDS, EDS, LDS, RDS, addresses, unpacked
from vmsvc_grpc.model.endpoints import Endpoint, FilterClass
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import ServicePort
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.xds.resources import Resources, load_assignment, localities, response

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
    return load_assignment(NAME, port, localities(sorted(endpoints)))


def resource(type_url: Any) -> Any:
    packed = pb.DiscoveryResponse.FromString(Resources(ServerCounts()).static(type_url, NAME).sotw)
    return unpacked(packed.resources[0])[1]


def test_a_listener_has_its_routes_by_ads_and_the_router_last() -> None:
    manager = hcm.HttpConnectionManager()
    assert resource(LDS).api_listener.api_listener.Unpack(manager)
    assert manager.rds.route_config_name == NAME
    assert manager.rds.config_source.HasField("ads")
    assert manager.http_filters[-1].typed_config.Is(Router.DESCRIPTOR)
    assert len({f.name for f in manager.http_filters}) == len(manager.http_filters)


def test_routes_send_everything_of_the_authority_to_the_cluster() -> None:
    (host,) = resource(RDS).virtual_hosts
    assert NAME in host.domains
    (route,) = host.routes
    assert route.match.WhichOneof("path_specifier") == "prefix"
    assert route.match.prefix == ""
    assert route.route.cluster == NAME


def test_a_cluster_has_its_endpoints_by_ads() -> None:
    cluster = resource(CDS)
    assert cluster.type == cluster.EDS
    assert cluster.lb_policy == cluster.ROUND_ROBIN
    assert cluster.eds_cluster_config.eds_config.HasField("ads")
    assert cluster.eds_cluster_config.eds_config.resource_api_version == 2


def test_a_cluster_sends_nothing_to_vms_that_are_not_ready_and_follows_its_clients() -> None:
    """ADR 34 has the choice of each field; Envoy's default where it is not set."""
    cluster = resource(CDS)
    assert {field.name for field, _ in cluster.ListFields()} == {
        "name",
        "type",
        "eds_cluster_config",
        "common_lb_config",
        "circuit_breakers",
        "upstream_connection_options",
        "typed_extension_protocol_options",
    }
    config = cluster.common_lb_config
    assert config.HasField("healthy_panic_threshold")
    assert config.healthy_panic_threshold.value == 0
    assert config.HasField("update_merge_window")
    assert config.update_merge_window.ToTimedelta() == timedelta(0)
    thresholds = cluster.circuit_breakers.thresholds
    assert [one.priority for one in thresholds] == [0, 1]
    assert {one.max_requests.value for one in thresholds} == {2**32 - 1}
    options = HttpProtocolOptions()
    (packed,) = cluster.typed_extension_protocol_options.values()
    assert packed.Unpack(options)
    followed = options.use_downstream_protocol_config
    assert followed.HasField("http_protocol_options")
    assert followed.HasField("http2_protocol_options")


def test_a_route_cuts_no_stream_and_tries_again_only_what_reached_no_vm() -> None:
    action = resource(RDS).virtual_hosts[0].routes[0].route
    for limit in ("timeout", "idle_timeout"):
        assert action.HasField(limit)
        assert getattr(action, limit).ToTimedelta() == timedelta(0)
    assert action.retry_policy.retry_on == "connect-failure,refused-stream"


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


def test_each_is_made_once_and_versions_follow_content() -> None:
    counts = ServerCounts()
    resources = Resources(counts)
    cache = synced_cache(service(WEB, spec()), vm("a", "10.0.0.1"))

    def now() -> Any:
        return resources.endpoints(cache.state(WEB, FilterClass.READY_ONLY), NAME, "80")

    first = now()
    assert now() == first
    assert resources.static(CDS, NAME) is resources.static(CDS, NAME)
    assert counts.xds_encodings == {EDS.label: 1, CDS.label: 1}
    cache.apply(Apply(vm("a", "10.0.0.2")))
    assert now().version != first.version
    cache.apply(Apply(vm("a", "10.0.0.1")))
    assert now() == first
    other = synced_cache(vm("a", "10.0.0.1"), service(WEB, spec()))
    again = Resources(ServerCounts()).endpoints(
        other.state(WEB, FilterClass.READY_ONLY), NAME, "80"
    )
    assert again == first


@pytest.mark.parametrize("nonce", [1, 9, 10, 12_345_678_901])
def test_the_parts_of_several_are_one_response(nonce: int) -> None:
    resources = Resources(ServerCounts())
    parts = [resources.static(CDS, name) for name in ("a.b:1", "c.d:2")]
    sotw = pb.DiscoveryResponse(
        version_info="80000000000000000000000000000005", type_url=CDS.value, nonce=str(nonce)
    )
    delta = pb.DeltaDiscoveryResponse(
        system_version_info="0" * 32,
        type_url=CDS.value,
        nonce=str(nonce),
        removed_resources=["e.f:3", "g.h:4"],
    )
    for part in parts:
        sotw.MergeFromString(part.sotw)
        delta.MergeFromString(part.delta)
    assert [unpacked(packed)[0] for packed in sotw.resources] == ["a.b:1", "c.d:2"]
    assert [(r.name, r.version) for r in delta.resources] == [(p.name, p.version) for p in parts]
    made = response(CDS, 2**127 + 5, nonce, [part.sotw for part in parts])
    assert pb.DiscoveryResponse.FromString(made) == sotw
    made = response(CDS, 0, nonce, [part.delta for part in parts], ["e.f:3", "g.h:4"])
    assert pb.DeltaDiscoveryResponse.FromString(made) == delta


def test_addresses_are_in_the_one_form_that_clients_read() -> None:
    """Endpoints may hold others; a client that cannot read one refuses the whole assignment."""
    odd = (endpoint("010.0.00.1"), endpoint("::ffff:10.0.0.2"), endpoint("2001:DB8::0001"))
    made = assignment(*odd)
    sockets = [m.endpoint.address.socket_address for e in made.endpoints for m in e.lb_endpoints]
    assert sorted(s.address for s in sockets) == ["10.0.0.1", "10.0.0.2", "2001:db8::1"]
