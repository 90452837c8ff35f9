"""A bare grpc.aio broadcast of the same bytes: what the transport costs, and nothing else.

It knows services by name and no other request. A stream is behind by one version, and gets
the shared delta, or by more, and gets the shared snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import uvloop

from bench import dataset
from bench.serving import Change, Flags, allow_connections, flags, obey
from vmsvc.v1 import endpoint_service_pb2 as pb

_SYNCED = pb.WatchEndpointsResponse(synced=pb.Synced()).SerializeToString()

# Those of our server without which 10,000 streams would not even connect.
_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 4_000),
    ("grpc.server.max_pending_requests", 50_000),
    ("grpc.server.max_pending_requests_hard_limit", 50_000),
]


@dataclass
class _Topic:
    """A service: its endpoints, what was encoded of its newest version, and who waits."""

    name: str
    endpoints: list[pb.Endpoint]
    version: int = 1
    delta: bytes = b""
    waiting: list[asyncio.Future[None]] = field(default_factory=list)
    _snapshot: bytes = b""

    def change(self, number: int, endpoint: pb.Endpoint) -> None:
        removed = self.endpoints[number]
        self.endpoints[number] = endpoint
        self.version += 1
        self._snapshot = b""
        delta = pb.Delta(
            service=self.name,
            version=self.version,
            revision=f"{self.version:032x}",
            removed=[pb.EndpointKey(address=removed.address, vm_uid=removed.vm_uid)],
            upserted=[endpoint],
        )
        self.delta = pb.WatchEndpointsResponse(delta=delta).SerializeToString()
        for future in self.waiting:
            if not future.done():
                future.set_result(None)
        self.waiting = []

    @property
    def snapshot(self) -> bytes:
        if not self._snapshot:
            endpoint_set = pb.EndpointSet(
                service=self.name,
                version=self.version,
                revision=f"{self.version:032x}",
                ports=[pb.Port(name="http", port=80, target_port=8080, protocol="TCP")],
                endpoints=self.endpoints,
            )
            message = pb.WatchEndpointsResponse(snapshot=endpoint_set)
            self._snapshot = message.SerializeToString()
        return self._snapshot


def _endpoint(service: int, number: int, seq: int) -> pb.Endpoint:
    return pb.Endpoint(
        address=dataset.address(seq),
        ready=True,
        vm_name=dataset.vm_name(service, number),
        vm_uid=dataset.vm_uid(service, number),
        zone=dataset.ZONE,
    )


async def _watch(topic: _Topic, context: Any) -> None:
    loop = asyncio.get_running_loop()
    told = topic.version
    await context.write(topic.snapshot)
    await context.write(_SYNCED)
    while True:
        if topic.version == told:
            future = loop.create_future()
            topic.waiting.append(future)
            await future
        behind, told = topic.version - told, topic.version
        await context.write(topic.delta if behind == 1 else topic.snapshot)


async def _serve() -> None:
    given = flags(__doc__ or "")
    data = given.data
    topics: list[_Topic] = []
    for service in range(data.services):
        seqs = range(service * data.endpoints, (service + 1) * data.endpoints)
        endpoints = [_endpoint(service, number, seq) for number, seq in enumerate(seqs)]
        topics.append(_Topic(f"{dataset.NAMESPACE}/{dataset.service_name(service)}", endpoints))
    by_name = {topic.name: topic for topic in topics}

    async def watch(request: bytes, context: Any) -> None:
        [asked] = pb.WatchEndpointsRequest.FromString(request).services
        await _watch(by_name[asked.service], context)

    def change(seq: int) -> Callable[[], object]:
        service, number = data.place(seq)
        return partial(topics[service].change, number, _endpoint(service, number, seq))

    handler: Any = grpc.unary_stream_rpc_method_handler(watch)
    await broadcast(given, "vmsvc.v1.EndpointService", {"WatchEndpoints": handler}, change)


async def broadcast(given: Flags, service: str, handlers: dict[str, Any], change: Change) -> None:
    """Serve one service on a bare grpc.aio, and make the changes that are asked for."""
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port(given.listen)
    await server.start()
    try:
        await obey(f"127.0.0.1:{port}", given.data, change)
    finally:
        await server.stop(0)


if __name__ == "__main__":
    allow_connections()
    uvloop.run(_serve())
