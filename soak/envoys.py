"""What an Envoy says and holds on a stream of ADS: all clusters and their endpoints. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3 import discovery_pb2 as pb
from google.protobuf.message import Message

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
CDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
EDS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


class Envoy(Protocol):
    """An Envoy on one stream after another; what it holds it keeps from one to the next."""

    path: str

    def begin(self) -> Iterator[bytes]:
        """What it sends first on a new stream."""

    def take(self, message: bytes) -> Iterator[bytes]:
        """What it sends after a response."""

    def endpoints(self) -> Mapping[str, frozenset[str]]:
        """The addresses that it would send requests to, by cluster."""


class DeltaEnvoy:
    """In deltas."""

    path = f"{ADS}/DeltaAggregatedResources"

    def __init__(self, name: str) -> None:
        self._name = name
        self._versions: dict[str, dict[str, str]] = {CDS: {}, EDS: {}}
        self._assigned: dict[str, bytes] = {}

    def begin(self) -> Iterator[bytes]:
        """All clusters, and the endpoints of those that it holds."""
        clusters = self._request(CDS, initial_resource_versions=self._versions[CDS])
        clusters.node.id = self._name
        yield clusters.SerializeToString()
        if names := list(self._versions[CDS]):
            held = self._versions[EDS]
            yield self._request(
                EDS, resource_names_subscribe=names, initial_resource_versions=held
            ).SerializeToString()

    def take(self, message: bytes) -> Iterator[bytes]:
        """Acknowledge; of new clusters, ask for the endpoints."""
        response = pb.DeltaDiscoveryResponse.FromString(message)
        held = self._versions[response.type_url]
        come = [each.name for each in response.resources if each.name not in held]
        gone = [name for name in response.removed_resources if held.pop(name, None) is not None]
        held |= {each.name: each.version for each in response.resources}
        if response.type_url == EDS:
            self._assigned |= {each.name: each.resource.value for each in response.resources}
        for name in gone:
            self._assigned.pop(name, None)
        yield self._request(response.type_url, response_nonce=response.nonce).SerializeToString()
        if response.type_url == CDS and (come or gone):
            for name in gone:
                self._versions[EDS].pop(name, None)
            yield self._request(
                EDS, resource_names_subscribe=come, resource_names_unsubscribe=gone
            ).SerializeToString()

    def endpoints(self) -> Mapping[str, frozenset[str]]:
        """Of each cluster that it holds."""
        return _endpoints(self._versions[CDS], self._assigned)

    @staticmethod
    def _request(type_url: str, **fields: Any) -> pb.DeltaDiscoveryRequest:
        return pb.DeltaDiscoveryRequest(type_url=type_url, **fields)


class WholeEnvoy:
    """As the state of the world."""

    path = f"{ADS}/StreamAggregatedResources"

    def __init__(self, name: str) -> None:
        self._name = name
        self._clusters: set[str] = set()
        self._assigned: dict[str, bytes] = {}
        self._answered: dict[str, tuple[str, str]] = {}

    def begin(self) -> Iterator[bytes]:
        """All clusters; and the endpoints of those that it holds."""
        # A nonce is of one stream, a version of all.
        self._answered = {of: (version, "") for of, (version, _) in self._answered.items()}
        yield self._request(CDS)
        if self._clusters:
            yield self._request(EDS)

    def take(self, message: bytes) -> Iterator[bytes]:
        """Acknowledge; of other clusters than before, ask for the endpoints."""
        response = pb.DiscoveryResponse.FromString(message)
        self._answered[response.type_url] = (response.version_info, response.nonce)
        if response.type_url == EDS:
            for each in response.resources:
                name = ClusterLoadAssignment.FromString(each.value).cluster_name
                self._assigned[name] = each.value
            yield self._request(EDS)
            return
        before, self._clusters = self._clusters, {_name(each.value) for each in response.resources}
        yield self._request(CDS)
        if before != self._clusters:
            self._assigned = {n: v for n, v in self._assigned.items() if n in self._clusters}
            yield self._request(EDS)

    def endpoints(self) -> Mapping[str, frozenset[str]]:
        """Of each cluster that it holds."""
        return _endpoints(self._clusters, self._assigned)

    def _request(self, type_url: str) -> bytes:
        version, nonce = self._answered.get(type_url, ("", ""))
        request = pb.DiscoveryRequest(
            type_url=type_url,
            version_info=version,
            response_nonce=nonce,
            resource_names=sorted(self._clusters) if type_url == EDS else (),
        )
        request.node.id = self._name
        return bytes(request.SerializeToString())


def _name(cluster: bytes) -> str:
    return str(Cluster.FromString(cluster).name)


def _endpoints(
    clusters: Iterable[str], assigned: Mapping[str, bytes]
) -> Mapping[str, frozenset[str]]:
    return {name: _addresses(assigned.get(name, b"")) for name in clusters}


def _addresses(assignment: bytes) -> frozenset[str]:
    found: Message = ClusterLoadAssignment.FromString(assignment)
    assert isinstance(found, ClusterLoadAssignment)
    return frozenset(
        each.endpoint.address.socket_address.address
        for locality in found.endpoints
        for each in locality.lb_endpoints
    )
