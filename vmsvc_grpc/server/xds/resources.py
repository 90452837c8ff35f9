"""The resources of xDS: each made once for all streams, with a version that replicas share.

A resource refers to the next by its own name: listener, route configuration, cluster and load
assignment of `web.shop:80` all have that name. Listeners, routes and clusters follow
from the name alone; only load assignments change with endpoints.
"""

from __future__ import annotations

import hashlib
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache, partial
from itertools import count
from typing import Any, NamedTuple, TypeAlias

from envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from envoy.config.cluster.v3.cluster_pb2 import Cluster, UpstreamConnectionOptions
from envoy.config.core.v3.address_pb2 import TcpKeepalive
from envoy.config.core.v3.base_pb2 import RoutingPriority
from envoy.config.core.v3.config_source_pb2 import ApiVersion, ConfigSource
from envoy.config.core.v3.protocol_pb2 import Http1ProtocolOptions, Http2ProtocolOptions
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.api_listener_pb2 import ApiListener
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from envoy.service.discovery.v3 import discovery_pb2
from envoy.type.v3.percent_pb2 import Percent
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from vmsvc_grpc.cache.topic import Publication
from vmsvc_grpc.model.endpoints import EndpointSet
from vmsvc_grpc.model.objects import ServicePort
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.encoding import bytes_field
from vmsvc_grpc.server.xds.assignments import (
    AT_ONCE,
    Localities,
    forget_members,
    load_assignment,
    no_endpoints,
    steps,
)
from vmsvc_grpc.server.xds.bodies import SHARED_FROM, Bodies, BodyReader
from vmsvc_grpc.server.xds.names import canonical_names, ports_by_text

_Message: TypeAlias = Any
"""A message of Envoy's API, which come without types."""

# Four for each of 20,000 services, of those that exist and are asked for: clusters, and what
# gRPC's clients want. At some 1 KB each that is 80 MB.
_STATIC_RESOURCES_MAX = 80_000

# A cluster has 330, a load assignment of 5,000 VMs 125,000, which takes some 20 ms.
_LOOK_BYTES = 1_024

_HALF_BITS = 64  # Of a digest.


class TypeUrl(StrEnum):
    """The types of resource that we serve; the value is the type URL."""

    CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    ENDPOINT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
    ROUTE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

    def __init__(self, url: str) -> None:
        self.label = url.rpartition(".")[2]
        """Its short name, for counts and logs: `Cluster`."""
        self.letter = self.name[0]
        """What its nonces begin with: `C`. No other type has it."""


class Resource(NamedTuple):
    """One resource, encoded.

    `digest` is a number of 128 bits that follows from the content, and for a load assignment also
    from the cluster's digest. `sotw` and `delta` are the field `resources` of a DiscoveryResponse
    and of a DeltaDiscoveryResponse with this resource alone. Joined after the other fields of a
    response, they form a response with all of them.
    """

    name: str
    digest: int
    sotw: bytes
    delta: bytes

    @property
    def more_looks(self) -> int:
        """How many looks at others making it, or sending it, is worth beside its own."""
        return len(self.delta) // _LOOK_BYTES

    @property
    def version(self) -> str:
        """What clients of deltas know it by."""
        return resource_version(self.digest)


def resource_version(digest: int) -> str:
    """A resource's digest as clients of deltas see it: 11 characters, of its first half.

    A client that comes back says this of everything that it holds, in one request.
    """
    return b2a_base64((digest >> _HALF_BITS).to_bytes(8), newline=False)[:11].decode()


def version_text(digest: int) -> str:
    """A sum of digests as the version of a response: 32 hex digits."""
    return f"{digest:032x}"


# The field `type_url` of a response, which is the same in both forms.
_TYPES = {
    type_url: discovery_pb2.DiscoveryResponse(type_url=type_url.value).SerializeToString()
    for type_url in TypeUrl
}


# The beginning of an Any of each type.
_PACKED_TYPES = {
    type_url: PackedMessage(type_url=type_url.value).SerializeToString() for type_url in TypeUrl
}

_DIGEST_BYTES = 16


def _number(message: _Message, name: str) -> int:
    return int(message.DESCRIPTOR.fields_by_name[name].number)


_CLUSTER_NAME = _number(Cluster, "name")
_VALUE = _number(PackedMessage, "value")
_RESOURCES = _number(discovery_pb2.DiscoveryResponse, "resources")
_DELTA_RESOURCES = _number(discovery_pb2.DeltaDiscoveryResponse, "resources")
_NAME = _number(discovery_pb2.Resource, "name")
_VERSION = _number(discovery_pb2.Resource, "version")
_RESOURCE = _number(discovery_pb2.Resource, "resource")


def response(
    type_url: TypeUrl,
    digest: int,
    nonce: int,
    parts: Sequence[bytes | memoryview],
    removed: Sequence[str] = (),
) -> bytes:
    """A response of either form, encoded; `removed` is for a DeltaDiscoveryResponse alone.

    Its nonce is a number after the letter of the type, so that it is no other type's. Only what
    differs between streams is written here: version and nonce, which are the fields 1 and 5 in
    both forms. Version, type and parts are put in front of one another as they are.
    """
    # A field is its number and kind (1 << 3 | 2 for a text), its length, and its content.
    size = 1 + len(str(nonce))
    head = b"\x0a\x20%032x\x2a%c%c%d" % (digest, size, ord(type_url.letter), nonce)
    if removed:
        gone = discovery_pb2.DeltaDiscoveryResponse(removed_resources=removed).SerializeToString()
        parts = (*parts, gone)
    return b"".join((head, _TYPES[type_url], *parts))


class Message(NamedTuple):
    """A response with one resource, and the version that it says: a sum of digests."""

    digest: int
    nonce: int
    encoded: bytes


class Resources:
    """Makes each resource at most once a state.

    `nonces` are those of all responses: each stream's rise, and streams can share responses.
    """

    def __init__(self, counts: ServerCounts, shared_from: int = SHARED_FROM) -> None:
        """Counts what it makes in `counts.xds_encodings`.

        All clusters, or listeners, of a stream are shared if they are as many as `shared_from`.
        """
        self._counts = counts
        self.nonces = count(1)
        self._static = lru_cache(maxsize=_STATIC_RESOURCES_MAX)(self._made_static)
        self._bodies = {
            type_url: Bodies(
                partial(self._part, type_url),
                partial(response, type_url),
                partial(self._count_body, type_url),
                shared_from,
            )
            for type_url in _CONTENTS
        }

    def static(self, type_url: TypeUrl, name: str) -> Resource:
        """The listener, route configuration or cluster of a name, whether it is served or not."""
        return self._static(type_url, name)

    def empty(self, name: str) -> Resource:
        """The load assignment of a name without endpoints, whether it is served or not.

        It is not kept: any client can name what does not exist, as often as it likes, and would
        displace what all streams share.
        """
        cluster = _digest(_packed(TypeUrl.CLUSTER, self._content(TypeUrl.CLUSTER, name)))
        return self._assignment(name, no_endpoints(name), cluster)

    def endpoints(self, publication: Publication, name: str, port_text: str) -> Resource | None:
        """The load assignment of a name of the publication's service; None if it has none.

        `port_text` is the port that the name refers to, as the name says it.
        """
        kept = publication.encoded
        key = f"xds {name}"
        resource: Resource | None = kept.get(key)
        if resource is None:
            resource = self._made_endpoints(publication, name, port_text)
            if resource is not None:
                kept[key] = resource
        return resource

    def encoded(self, publication: Publication, name: str) -> Resource | None:
        """The load assignment of a name, if it has been encoded for this publication."""
        resource: Resource | None = publication.encoded.get(f"xds {name}")
        return resource

    def message(
        self, publication: Publication, resource: Resource, digest: int, after: int, *, delta: bool
    ) -> Message:
        """A response with one load assignment, whose nonce is above `after`.

        Mostly it is one object for all streams that are sent it: those that follow the same.
        """
        key = f"{'xds-delta' if delta else 'xds-sotw'} {resource.name}"
        kept: Message | None = publication.encoded.get(key)
        if kept is None or kept.digest != digest or kept.nonce <= after:
            nonce = next(self.nonces)
            part = resource.delta if delta else resource.sotw
            message = response(TypeUrl.ENDPOINT, digest, nonce, (part,))
            kept = Message(digest, nonce, message)
            publication.encoded[key] = kept
        return kept

    def steps(self, publication: Publication, name: str, port_text: str) -> Iterator[None]:
        """The steps after which `endpoints` has little to do, shared by all who take them.

        None for a service of some hundred endpoints, or once they have been taken.
        """
        if f"xds {name}" in publication.encoded:
            return iter(())
        port = self.port(publication, port_text)
        return iter(()) if port is None else steps(port, self._localities(publication))

    def is_large(self, publication: Publication) -> bool:
        """Whether the load assignments of the publication's service are encoded in `steps`."""
        state = publication.state
        return isinstance(state, EndpointSet) and len(state.endpoints) > AT_ONCE

    def forget_names(self) -> None:
        """Drop what follows from names alone, and VMs as they are encoded: all is made anew."""
        self._static.cache_clear()
        forget_members()

    def forget(self, publication: Publication) -> None:
        """Drop what is encoded of a publication."""
        kept = publication.encoded
        others = {key: each for key, each in kept.items() if not key.startswith("xds")}
        kept.clear()  # A dict that was full is as large when it is empty.
        kept.update(others)

    def all_of(self, type_url: TypeUrl) -> BodyReader:
        """A reader for a stream that is sent all listeners, or all clusters, each time."""
        return BodyReader(self._bodies[type_url])

    def names(self, publication: Publication) -> Mapping[str, None]:
        """The names that a wildcard covers of the publication's service, by its ports."""
        kept: Mapping[str, None] | None = publication.encoded.get("xds names")
        if kept is None:
            state = publication.state
            ports = state.ports if isinstance(state, EndpointSet) else ()
            kept = dict.fromkeys(canonical_names(state.service, ports))
            publication.encoded["xds names"] = kept
        return kept

    def port(self, publication: Publication, text: str) -> ServicePort | None:
        """The port of the publication's service that a name's text refers to; None if none."""
        kept: Mapping[str, ServicePort] | None = publication.encoded.get("xds ports")
        if kept is None:
            state = publication.state
            kept = ports_by_text(state.ports) if isinstance(state, EndpointSet) else {}
            publication.encoded["xds ports"] = kept
        return kept.get(text)

    def _part(self, type_url: TypeUrl, name: str) -> bytes:
        return self.static(type_url, name).sotw

    def _count_body(self, type_url: TypeUrl) -> None:
        self._counts.xds_encodings[f"all {type_url.label}"] += 1

    def _made_static(self, type_url: TypeUrl, name: str) -> Resource:
        packed = _packed(type_url, self._content(type_url, name))
        return self._encoded(type_url, name, packed, _digest(packed))

    def _content(self, type_url: TypeUrl, name: str) -> bytes:
        return _CONTENTS[type_url](name)

    def _made_endpoints(
        self, publication: Publication, name: str, port_text: str
    ) -> Resource | None:
        if (port := self.port(publication, port_text)) is None:
            return None
        cluster = self.static(TypeUrl.CLUSTER, name).digest
        content = load_assignment(name, port, self._localities(publication))
        self._counts.deliveries.made(publication.version)
        return self._assignment(name, content, cluster)

    def _assignment(self, name: str, content: bytes, cluster: int) -> Resource:
        """A load assignment, for a cluster with this digest.

        An Envoy that reconnects says which load assignments it holds. An assignment that it got for
        another release's cluster does not count: a changed cluster waits for its endpoints, even
        unchanged ones.
        """
        packed = _packed(TypeUrl.ENDPOINT, content)
        digest = _digest(packed + cluster.to_bytes(_DIGEST_BYTES))
        return self._encoded(TypeUrl.ENDPOINT, name, packed, digest)

    def _localities(self, publication: Publication) -> Localities:
        """The VMs by locality, which are the same for all ports of a service."""
        kept: Localities | None = publication.encoded.get("xds localities")
        if kept is None:
            assert isinstance(publication.state, EndpointSet), "what has a port has endpoints"
            kept = publication.encoded["xds localities"] = Localities(publication.state.endpoints)
        return kept

    def _encoded(self, type_url: TypeUrl, name: str, packed: bytes, digest: int) -> Resource:
        self._counts.xds_encodings[type_url.label] += 1
        named = (
            bytes_field(_VERSION, resource_version(digest).encode()),
            bytes_field(_RESOURCE, packed),
            bytes_field(_NAME, name.encode()),
        )
        return Resource(
            name,
            digest,
            bytes_field(_RESOURCES, packed),
            bytes_field(_DELTA_RESOURCES, b"".join(named)),
        )


def _packed(type_url: TypeUrl, content: bytes) -> bytes:
    """A message as an Any, encoded."""
    return _PACKED_TYPES[type_url] + bytes_field(_VALUE, content)


def _digest(encoded: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=_DIGEST_BYTES).digest(), "big")


def listener(name: str) -> _Message:
    """The API listener of a gRPC target: an HttpConnectionManager with its routes by ADS."""
    manager = hcm.HttpConnectionManager(
        stat_prefix=name,
        rds=hcm.Rds(route_config_name=name, config_source=_ads()),
        http_filters=[hcm.HttpFilter(name="router", typed_config=_any(Router()))],
    )
    return Listener(name=name, api_listener=ApiListener(api_listener=_any(manager)))


def route_configuration(name: str) -> _Message:
    """All requests to the cluster of the same name.

    Its domains are the name, which is the authority of a gRPC target, and any other, as a client
    may set another authority for its calls.
    """
    host = VirtualHost(name=name, domains=[name, "*"])
    route = host.routes.add()
    route.match.prefix = ""  # Matches everything. Must be set, as part of a oneof.
    route.route.cluster = name
    # Envoy's defaults are made for short requests: they end a stream after 15 s, or after 5 quiet
    # minutes. The caller decides how long a call may take.
    route.route.timeout.SetInParent()
    route.route.idle_timeout.SetInParent()
    # Only requests that have not reached a VM are retried: it may be down before we know it.
    route.route.retry_policy.retry_on = "connect-failure,refused-stream"
    return RouteConfiguration(name=name, virtual_hosts=[host])


def _ads() -> _Message:
    source = ConfigSource(resource_api_version=ApiVersion.V3)
    source.ads.SetInParent()
    return source


def _any(message: _Message) -> PackedMessage:
    packed = PackedMessage()
    packed.Pack(message, deterministic=True)
    return packed


# VMs that are not ready get no requests, however few are left; by default all VMs get requests once
# less than half are healthy. And changes apply at once; by default, changes of health wait for up
# to 1 s.
_LB_CONFIG = Cluster.CommonLbConfig(
    healthy_panic_threshold=Percent(), update_merge_window=Duration()
)

# The default is 1,024 requests at once, which a service of long streams soon has; for gRPC too.
_MOST = UInt32Value(value=(1 << 32) - 1)
_UNLIMITED = CircuitBreakers(
    thresholds=[
        CircuitBreakers.Thresholds(
            priority=priority,
            max_connections=_MOST,
            max_pending_requests=_MOST,
            max_requests=_MOST,
            max_retries=_MOST,
        )
        for priority in (RoutingPriority.DEFAULT, RoutingPriority.HIGH)
    ]
)

# A VM that is turned off does not close its connections: keepalive finds them dead in 90 s.
_CONNECTION = UpstreamConnectionOptions(
    tcp_keepalive=TcpKeepalive(
        keepalive_time=UInt32Value(value=60),
        keepalive_interval=UInt32Value(value=10),
        keepalive_probes=UInt32Value(value=3),
    )
)

# HTTP/1.1 and HTTP/2, and so gRPC, each forwarded to the VM as it came from the client.
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_AS_DOWNSTREAM = _any(
    HttpProtocolOptions(
        use_downstream_protocol_config=HttpProtocolOptions.UseDownstreamHttpConfig(
            http_protocol_options=Http1ProtocolOptions(),
            http2_protocol_options=Http2ProtocolOptions(),
        )
    )
)

# A cluster whose load assignment comes by ADS under the same name. All else is Envoy's default; ADR
# 34 has the review of each.
_AFTER_NAME: bytes = Cluster(
    type=Cluster.EDS,
    eds_cluster_config=Cluster.EdsClusterConfig(eds_config=_ads()),
    lb_policy=Cluster.ROUND_ROBIN,
    common_lb_config=_LB_CONFIG,
    circuit_breakers=_UNLIMITED,
    upstream_connection_options=_CONNECTION,
    typed_extension_protocol_options={_HTTP: _AS_DOWNSTREAM},
).SerializeToString(deterministic=True)


def cluster(name: str) -> bytes:
    """A Cluster whose load assignment comes by ADS under the same name, encoded."""
    return bytes_field(_CLUSTER_NAME, name.encode()) + _AFTER_NAME


def _encoding(message: Callable[[str], _Message]) -> Callable[[str], bytes]:
    return lambda name: message(name).SerializeToString(deterministic=True)


_CONTENTS: dict[TypeUrl, Callable[[str], bytes]] = {
    TypeUrl.LISTENER: _encoding(listener),
    TypeUrl.ROUTE: _encoding(route_configuration),
    TypeUrl.CLUSTER: cluster,
}


def files() -> Iterator[FileDescriptor]:
    """The files of all messages that a resource may hold, packed ones too."""
    for message in (Cluster, ClusterLoadAssignment, Listener, RouteConfiguration):
        yield message.DESCRIPTOR.file
    yield from (hcm.DESCRIPTOR, Router.DESCRIPTOR.file, HttpProtocolOptions.DESCRIPTOR.file)
