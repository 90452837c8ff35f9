"""Resources of xDS: what is in them, and how often they are made."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from envoy.service.discovery.v3 import discovery_pb2 as pb

from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from tests.unit.server.xds.client import CDS, EDS, LDS, RDS, unpacked
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.xds.resources import Resources, response

NAME = "web.shop:80"


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
        version_info="80000000000000000000000000000005", type_url=CDS.value, nonce=f"C{nonce}"
    )
    delta = pb.DeltaDiscoveryResponse(
        system_version_info="0" * 32,
        type_url=CDS.value,
        nonce=f"C{nonce}",
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


@pytest.mark.parametrize("name", ["a.b:1", "x" * 150, "xdstp://ä"])
def test_each_is_written_as_protobuf_writes_it(name: str) -> None:
    resources = Resources(ServerCounts())
    for type_url in (CDS, EDS, LDS, RDS):
        made = resources.empty(name) if type_url is EDS else resources.static(type_url, name)
        response = pb.DiscoveryResponse.FromString(made.sotw)
        assert response.SerializeToString() == made.sotw
        (packed,) = response.resources
        assert unpacked(packed)[0] == name
        delta = pb.DeltaDiscoveryResponse.FromString(made.delta)
        assert delta.SerializeToString() == made.delta
        ((shown, version, of_delta),) = ((r.name, r.version, r.resource) for r in delta.resources)
        assert (shown, version, of_delta) == (name, made.version, packed)


def test_names_of_nothing_have_nothing_forgotten_and_are_made_without_a_cluster() -> None:
    """1,000 streams that name 2,000 absent services each threw out what all others share."""
    counts = ServerCounts()
    resources = Resources(counts)
    shared = resources.static(CDS, NAME)
    kept = resources._static.cache_info().currsize
    assert len({resources.empty(f"absent-{n}.shop:80").digest for n in range(1_000)}) == 1_000
    assert resources._static.cache_info().currsize == kept
    assert resources.static(CDS, NAME) is shared
    assert counts.xds_encodings == {CDS.label: 1, EDS.label: 1_000}


def test_no_endpoints_are_the_same_whether_the_service_exists_or_not() -> None:
    cache = synced_cache(service(WEB, spec()))
    resources = Resources(ServerCounts())
    served = resources.endpoints(cache.state(WEB, FilterClass.READY_ONLY), NAME, "80")
    assert served == resources.empty(NAME)
