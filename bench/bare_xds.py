"""A bare grpc.aio that broadcasts xDS: the same bytes, and each ACK read and left alone.

What the transport costs where a client acknowledges each message. It knows endpoints by
the first name that a client asks for, in delta form, and nothing else of xDS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import uvloop
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2

from bench import dataset
from bench.bare import broadcast
from bench.serving import allow_connections, flags

_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_TYPE = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
_HEALTHY = 1


class _Topic:
    """A service's load assignment, encoded as its newest response but for the nonce."""

    def __init__(self, service: int, addresses: list[str]) -> None:
        self.name = f"{dataset.service_name(service)}.{dataset.NAMESPACE}:{dataset.PORT}"
        self.version = 0
        self.response = b""
        self.waiting: list[asyncio.Future[None]] = []
        self._addresses = addresses
        self.change(0, addresses[0])

    def change(self, number: int, address: str) -> None:
        self._addresses[number] = address
        self.version += 1
        assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name=self.name)
        locality = assignment.endpoints.add()
        locality.locality.zone = dataset.ZONE
        locality.load_balancing_weight.value = len(self._addresses)
        for each in self._addresses:
            endpoint = locality.lb_endpoints.add(health_status=_HEALTHY)
            endpoint.endpoint.address.socket_address.address = each
            endpoint.endpoint.address.socket_address.port_value = dataset.TARGET_PORT
        response = discovery_pb2.DeltaDiscoveryResponse(type_url=_TYPE)
        resource = response.resources.add(name=self.name, version=f"{self.version:032x}")
        resource.resource.Pack(assignment)
        self.response = response.SerializeToString()
        for future in self.waiting:
            if not future.done():
                future.set_result(None)
        self.waiting = []


async def _read_acks(context: Any) -> None:
    while await context.read() is not grpc.aio.EOF:
        pass


async def _send(topic: _Topic, context: Any) -> None:
    loop = asyncio.get_running_loop()
    told = 0
    while True:
        if topic.version == told:
            future = loop.create_future()
            topic.waiting.append(future)
            await future
        told = topic.version
        nonce = discovery_pb2.DeltaDiscoveryResponse(nonce=str(told)).SerializeToString()
        await context.write(topic.response + nonce)


async def _serve() -> None:
    given = flags(__doc__ or "")
    data = given.data
    topics: list[_Topic] = []
    for service in range(data.services):
        seqs = range(service * data.endpoints, (service + 1) * data.endpoints)
        topics.append(_Topic(service, [dataset.address(seq) for seq in seqs]))
    by_name = {topic.name: topic for topic in topics}

    async def follow(_requests: Any, context: Any) -> None:
        first = discovery_pb2.DeltaDiscoveryRequest.FromString(await context.read())
        [name] = first.resource_names_subscribe
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_send(by_name[name], context))
            await _read_acks(context)
            sending.cancel()

    def change(seq: int) -> Callable[[], object]:
        service, number = data.place(seq)
        return partial(topics[service].change, number, dataset.address(seq))

    handler: Any = grpc.stream_stream_rpc_method_handler(follow)
    await broadcast(given, _SERVICE, {"DeltaAggregatedResources": handler}, change)


if __name__ == "__main__":
    allow_connections()
    uvloop.run(_serve())
