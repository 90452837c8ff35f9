"""The resources of xDS: each made once for all streams, with a version that replicas share.

A resource refers to the next by its own name: listener, route configuration, cluster and
load assignment of `web.shop:80` are all called so. Listeners, routes and clusters follow
from the name alone; only load assignments change with endpoints.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.core.v3.base_pb2 import Locality
from envoy.config.core.v3.config_source_pb2 import ApiVersion, ConfigSource
from envoy.config.core.v3.health_check_pb2 import HealthStatus
from envoy.config.endpoint.v3.endpoint_components_pb2 import LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.api_listener_pb2 import ApiListener
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.descriptor import FileDescriptor

from vmsvc_grpc.cache.topic import Publication
from vmsvc_grpc.model.endpoints import Endpoint, EndpointSet
from vmsvc_grpc.model.objects import ServicePort
from vmsvc_grpc.server.counts import Counts
from vmsvc_grpc.server.xds_names import port_of, reference

_Message: TypeAlias = Any
"""A message of Envoy's API, which come without types."""

# Four for each of 20,000 services, as a wildcard's response has all of a type each time. At
# some 1 KB each that is 80 MB, of those that are asked for.
_STATIC_RESOURCES_MAX = 80_000

_SOCKET_PROTOCOLS = {"TCP": SocketAddress.TCP, "UDP": SocketAddress.UDP}


class TypeUrl(Enum):
    """The types of resource that we have; the value is the type URL."""

    CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    ENDPOINT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
    ROUTE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

    @property
    def label(self) -> str:
        """Its short name, for counts and logs: `Cluster`."""
        return self.value.rpartition(".")[2]


class Resource(NamedTuple):
    """One resource, encoded.

    `version` is a digest of the content, 32 hex digits. `sotw` and `delta` are the field
    `resources` of a DiscoveryResponse and of a DeltaDiscoveryResponse with it alone: put
    one after the other, after the response's other fields, they are a response with all.
    """

    name: str
    version: str
    sotw: bytes
    delta: bytes


class Resources:
    """Makes each resource at most once for each state that it shows."""

    def __init__(self, counts: Counts) -> None:
        """Counts what it makes in `counts.xds_encodings`."""
        self._counts = counts
        self._static = lru_cache(maxsize=_STATIC_RESOURCES_MAX)(self._made_static)

    def static(self, type_url: TypeUrl, name: str) -> Resource:
        """The listener, route configuration or cluster of a name, whether it is served or not.

        Of an ENDPOINT: the load assignment without endpoints.
        """
        return self._static(type_url, name)

    def endpoints(self, publication: Publication, name: str) -> Resource | None:
        """The load assignment of a name of the publication's service; None if it has none."""
        kept = publication.encoded
        if (version := kept.get(f"xds version {name}")) is None:
            resource = self._made_endpoints(publication.state, name)
            if resource is not None:
                kept[f"xds version {name}"] = resource.version.encode()
                kept[f"xds sotw {name}"] = resource.sotw
                kept[f"xds delta {name}"] = resource.delta
            return resource
        return Resource(name, version.decode(), kept[f"xds sotw {name}"], kept[f"xds delta {name}"])

    def _made_static(self, type_url: TypeUrl, name: str) -> Resource:
        return self._encoded(type_url, name, _STATIC[type_url](name))

    def _made_endpoints(self, state: object, name: str) -> Resource | None:
        if not isinstance(state, EndpointSet) or (asked := reference(name)) is None:
            return None
        if (port := port_of(state.ports, asked.port)) is None:
            return None
        message = load_assignment(name, port, state.endpoints)
        return self._encoded(TypeUrl.ENDPOINT, name, message)

    def _encoded(self, type_url: TypeUrl, name: str, message: _Message) -> Resource:
        self._counts.xds_encodings[type_url.label] += 1
        content = message.SerializeToString(deterministic=True)
        packed = PackedMessage(type_url=type_url.value, value=content)
        version = hashlib.blake2b(
            packed.SerializeToString(deterministic=True), digest_size=16
        ).hexdigest()
        named = discovery_pb2.Resource(name=name, version=version, resource=packed)
        return Resource(
            name,
            version,
            discovery_pb2.DiscoveryResponse(resources=[packed]).SerializeToString(),
            discovery_pb2.DeltaDiscoveryResponse(resources=[named]).SerializeToString(),
        )


def listener(name: str) -> _Message:
    """The API listener of a gRPC target: an HttpConnectionManager with its routes by ADS."""
    manager = hcm.HttpConnectionManager(
        stat_prefix=name,
        rds=hcm.Rds(route_config_name=name, config_source=_ads()),
        http_filters=[hcm.HttpFilter(name="router", typed_config=_packed(Router()))],
    )
    return Listener(name=name, api_listener=ApiListener(api_listener=_packed(manager)))


def route_configuration(name: str) -> _Message:
    """All requests to the cluster of the same name.

    Its domains are the name, which is a gRPC target's authority, and any other, as a
    client may give its calls an authority of their own.
    """
    host = VirtualHost(name=name, domains=[name, "*"])
    route = host.routes.add()
    route.match.prefix = ""  # Everything. Set it must be, and so it is in a oneof.
    route.route.cluster = name
    return RouteConfiguration(name=name, virtual_hosts=[host])


def cluster(name: str) -> _Message:
    """A cluster whose load assignment comes by ADS under the same name."""
    return Cluster(
        name=name,
        type=Cluster.EDS,
        eds_cluster_config=Cluster.EdsClusterConfig(eds_config=_ads()),
        lb_policy=Cluster.ROUND_ROBIN,
    )


def load_assignment(name: str, port: ServicePort, endpoints: Iterable[Endpoint]) -> _Message:
    """A ClusterLoadAssignment: a locality for each zone, sorted; without endpoints, none.

    A VM is one endpoint, with its other address, if it has two, as an additional one. An
    address occurs once in all, as gRPC refuses what repeats one: a ready VM has it before
    one that is not, then the lower uid. A locality weighs as much as its healthy
    endpoints, and never nothing: clients drop one without weight.
    """
    zones: dict[str, list[_Message]] = defaultdict(list)
    for addresses in _machines(endpoints):
        zones[addresses[0].zone].append(_lb_endpoint(addresses, port))
    return ClusterLoadAssignment(
        cluster_name=name,
        endpoints=[_locality(zone, members) for zone, members in sorted(zones.items())],
    )


def _machines(endpoints: Iterable[Endpoint]) -> Iterator[Sequence[Endpoint]]:
    """The addresses of each VM, IPv4 first, every address once; in the order of addresses."""
    holders: dict[str, Endpoint] = {}
    for endpoint in endpoints:
        holder = holders.setdefault(endpoint.address, endpoint)
        if (not endpoint.ready, endpoint.vm_uid) < (not holder.ready, holder.vm_uid):
            holders[endpoint.address] = endpoint
    machines: dict[tuple[str, bool], list[Endpoint]] = defaultdict(list)
    for endpoint in holders.values():
        machines[endpoint.vm_uid, endpoint.ready].append(endpoint)
    for addresses in machines.values():
        yield sorted(addresses, key=lambda e: (":" in e.address, e.address))


def _lb_endpoint(addresses: Sequence[Endpoint], port: ServicePort) -> _Message:
    first, *others = addresses
    status = HealthStatus.HEALTHY if first.ready else HealthStatus.UNHEALTHY
    member = LbEndpoint(health_status=status)
    member.endpoint.address.CopyFrom(_address(first.address, port))
    for other in others:
        member.endpoint.additional_addresses.add().address.CopyFrom(_address(other.address, port))
    return member


def _address(address: str, port: ServicePort) -> _Message:
    return Address(
        socket_address=SocketAddress(
            protocol=_SOCKET_PROTOCOLS[port.protocol], address=address, port_value=port.target_port
        )
    )


def _locality(zone: str, members: Sequence[_Message]) -> _Message:
    healthy = sum(member.health_status == HealthStatus.HEALTHY for member in members)
    locality = LocalityLbEndpoints(locality=Locality(zone=zone), lb_endpoints=members)
    locality.load_balancing_weight.value = max(1, healthy)
    return locality


def _empty(name: str) -> _Message:
    return ClusterLoadAssignment(cluster_name=name)


def _ads() -> _Message:
    source = ConfigSource(resource_api_version=ApiVersion.V3)
    source.ads.SetInParent()
    return source


def _packed(message: _Message) -> PackedMessage:
    packed = PackedMessage()
    packed.Pack(message, deterministic=True)
    return packed


_STATIC = {
    TypeUrl.LISTENER: listener,
    TypeUrl.ROUTE: route_configuration,
    TypeUrl.CLUSTER: cluster,
    TypeUrl.ENDPOINT: _empty,
}


def files() -> Iterator[FileDescriptor]:
    """The files of all messages that a resource may hold, packed ones too."""
    for message in (Cluster, ClusterLoadAssignment, Listener, RouteConfiguration):
        yield message.DESCRIPTOR.file
    yield from (hcm.DESCRIPTOR, Router.DESCRIPTOR.file)
