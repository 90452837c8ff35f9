"""Envoys, as far as a server can tell: what they ask for, acknowledge and hold.

Each has a connection and an aggregated stream of its own, follows all clusters by the wildcard
that Envoy sends, and asks for the endpoints of each. In the state of the world it says all
their names each time; as deltas, those that are new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Protocol

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2

CLUSTERS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"

# Connections of one process to one address would share one otherwise.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))


class _Names:
    """Names as those of endpoints are asked for, encoded once for all who ask for the same."""

    def __init__(self) -> None:
        self._encoded: dict[tuple[str, ...], bytes] = {}

    def request(self, names: Iterable[str]) -> bytes:
        """A part of a request in the state of the world."""
        key = tuple(names)
        if key not in self._encoded:
            request = discovery_pb2.DiscoveryRequest(resource_names=key)
            self._encoded[key] = request.SerializeToString()
        return self._encoded[key]


class _Protocol(Protocol):
    """One form of the protocol: what is sent first, and in answer to a response."""

    clusters: set[str]
    assigned: set[str]

    def first(self, node: base_pb2.Node) -> bytes: ...

    def answers(self, response: bytes) -> Iterable[bytes]: ...


class _Sotw:
    """The state of the world."""

    method = f"{_ADS}/StreamAggregatedResources"

    def __init__(self, names: _Names) -> None:
        self.clusters: set[str] = set()
        self.assigned: set[str] = set()
        self._names = names
        self._endpoints: Any = None  # The last response with endpoints.

    def first(self, node: base_pb2.Node) -> bytes:
        """The wildcard."""
        request = discovery_pb2.DiscoveryRequest(type_url=CLUSTERS, node=node)
        return bytes(request.SerializeToString())

    def answers(self, response: bytes) -> Iterable[bytes]:
        """An ACK; after clusters, also the names whose endpoints are wanted now."""
        told = discovery_pb2.DiscoveryResponse.FromString(response)
        if told.type_url == CLUSTERS:
            before, self.clusters = self.clusters, {_cluster(r.value) for r in told.resources}
            self.assigned &= self.clusters
            yield _ack(told)
            if self.clusters != before:
                yield self._ask_for_endpoints()
        else:
            self.assigned.update(_assignment(resource.value) for resource in told.resources)
            self._endpoints = told
            yield self._ask_for_endpoints()

    def _ask_for_endpoints(self) -> bytes:
        asked = discovery_pb2.DiscoveryRequest(type_url=ENDPOINTS)
        if self._endpoints is not None:
            asked.version_info = self._endpoints.version_info
            asked.response_nonce = self._endpoints.nonce
        return bytes(asked.SerializeToString()) + self._names.request(sorted(self.clusters))


class _Delta:
    """Deltas."""

    method = f"{_ADS}/DeltaAggregatedResources"

    def __init__(self, _names: _Names) -> None:
        self.clusters: set[str] = set()
        self.assigned: set[str] = set()

    def first(self, node: base_pb2.Node) -> bytes:
        """The wildcard."""
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTERS, node=node)
        return bytes(request.SerializeToString())

    def answers(self, response: bytes) -> Iterable[bytes]:
        """An ACK; after clusters, also which endpoints are wanted now, and which no more."""
        told = discovery_pb2.DeltaDiscoveryResponse.FromString(response)
        ack = discovery_pb2.DeltaDiscoveryRequest(type_url=told.type_url, response_nonce=told.nonce)
        yield ack.SerializeToString()
        names = {resource.name for resource in told.resources}
        if told.type_url == ENDPOINTS:
            self.assigned |= names & self.clusters
            return
        new, gone = names - self.clusters, self.clusters & set(told.removed_resources)
        self.clusters = (self.clusters | new) - gone
        self.assigned -= gone
        if new or gone:
            asked = discovery_pb2.DeltaDiscoveryRequest(
                type_url=ENDPOINTS,
                resource_names_subscribe=sorted(new),
                resource_names_unsubscribe=sorted(gone),
            )
            yield asked.SerializeToString()


class Envoys:
    """So many of them, every second one speaking deltas."""

    def __init__(self, target: str, count: int) -> None:
        """They connect once `run` does."""
        names = _Names()
        forms: tuple[Any, Any] = (_Sotw, _Delta)
        self._envoys = [_Envoy(target, n, forms[n % 2](names)) for n in range(count)]

    async def run(self) -> None:
        """Connect all at once and follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for envoy in self._envoys:
                tasks.create_task(envoy.run())

    def warm(self, clusters: int) -> bool:
        """Whether each has that many clusters or more, and the endpoints of each."""
        return all(
            len(e.protocol.clusters) >= clusters and e.protocol.assigned >= e.protocol.clusters
            for e in self._envoys
        )

    @property
    def ended(self) -> list[str]:
        """How streams have ended that the server or the network has ended."""
        return [envoy.ended for envoy in self._envoys if envoy.ended]


class _Envoy:
    def __init__(self, target: str, number: int, protocol: Any) -> None:
        self.protocol: _Protocol = protocol
        self.ended = ""
        self._target = target
        self._method: str = protocol.method
        self._node = base_pb2.Node(id=f"envoy-{number}", user_agent_name="envoy")

    async def run(self) -> None:
        """Follow, on one stream."""
        async with grpc.aio.insecure_channel(self._target, options=_OPTIONS) as channel:
            stream: Any = channel.stream_stream(self._method)()
            try:
                await stream.write(self.protocol.first(self._node))
                while (response := await stream.read()) is not grpc.aio.EOF:
                    for answer in self.protocol.answers(response):
                        await stream.write(answer)
                self.ended = str(await stream.code())
            except grpc.aio.AioRpcError as error:
                self.ended = f"{error.code()}: {error.details()}"


def _ack(told: Any) -> bytes:
    ack = discovery_pb2.DiscoveryRequest(
        type_url=told.type_url, version_info=told.version_info, response_nonce=told.nonce
    )
    return bytes(ack.SerializeToString())


# All are sent the same.
@lru_cache(maxsize=65_536)
def _cluster(value: bytes) -> str:
    cluster = cluster_pb2.Cluster.FromString(value)
    return str(cluster.eds_cluster_config.service_name or cluster.name)


@lru_cache(maxsize=65_536)
def _assignment(value: bytes) -> str:
    return str(endpoint_pb2.ClusterLoadAssignment.FromString(value).cluster_name)
