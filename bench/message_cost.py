"""`python -m bench.message_cost`: what a message costs our server on libnghttp2, in one process.

Clients are played here, over loopback, and the CPU that they take is not counted. They open the
connection's window and ping whenever data have come, as grpc-go's do. So seconds show what a change
of the server gains.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import uvloop
from ngh2 import Configuration, Connection, Role, events

from bench import dataset
from bench.dataset import DataSet
from bench.serving import allow_connections
from bench.subject import filled
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Kind
from vmsvc_grpc.model.parse import parse_json
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.listen import Server
from vmsvc_grpc.server.transport import Listener, grpc_wire
from vmsvc_grpc.server.transport.http2 import Http2

_HEADERS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/vmsvc.v1.EndpointService/WatchEndpoints"),
    (b":authority", b"bench"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
]

# All clients come from one address.
_LIMITS = Limits(streams_per_client_max=100_000, connections_per_client_max=100_000)

# Written before each change, so that the server finds the CPU's caches as others have left them.
_NOISE_BYTES = 64 << 20

# More than comes in a run: the engine sends no update of the connection's window by itself.
_WINDOW_BYTES = 1 << 30

_UPDATE_HEAD = b"\0\0\x04\x08\0\0\0\0\0"
_PING = b"\0\0\x08\x06\0\0\0\0\0measured"

_OPENING_ROUNDS = 30
_WARM_UP = 4


class _Client:
    """One connection of streams, without an event loop."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._engine = Connection(Role.CLIENT, Configuration())
        self._engine.initiate_connection()
        self._engine.set_local_window_size(_WINDOW_BYTES)
        self._came_bytes = 0

    def watch(self, service: str) -> None:
        request = pb.WatchEndpointsRequest(services=[pb.WatchedService(service=service)])
        stream = self._engine.send_request(_HEADERS)
        framed = grpc_wire.framed(request.SerializeToString())
        self._engine.send_data(stream, framed, end_stream=True)

    def write(self) -> None:
        if data := self._engine.data_to_send():
            self._socket.send(data)

    def read(self) -> int:
        """Take in what has come; how many messages."""
        count = 0
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except BlockingIOError:
                return count
            if not data:
                raise ConnectionError("the server has closed the connection")
            self._engine.receive_data(data)
            self._came_bytes += len(data)
            count += sum(isinstance(each, events.DataReceived) for each in self._engine.events())

    def answer(self) -> int:
        """The same, and if any has come, open the window by as much, and ping."""
        self._came_bytes = 0
        if count := self.read():
            self._socket.send(_UPDATE_HEAD + self._came_bytes.to_bytes(4, "big") + _PING)
        return count

    def close(self) -> None:
        self._socket.close()


@dataclass
class _Cost:
    """CPU a message, in µs, of each change."""

    publish: list[float] = field(default_factory=list)
    send: list[float] = field(default_factory=list)
    pings: list[float] = field(default_factory=list)

    def medians(self) -> dict[str, float]:
        each = {name: statistics.median(got) for name, got in vars(self).items()}
        return {
            f"{name}_us": round(us, 2) for name, us in {**each, "sum": sum(each.values())}.items()
        }


async def _turns(count: int = 4) -> float:
    """Let the server work; the CPU that this process has used by then."""
    for _ in range(count):
        await asyncio.sleep(0)
    return time.process_time()


async def _opened(address: str, given: argparse.Namespace) -> Sequence[_Client]:
    clients = []
    for number in range(given.connections):
        clients.append(client := _Client(address))
        for stream in range(number, given.streams, given.connections):
            service = dataset.service_name(stream % given.services)
            client.watch(f"{dataset.NAMESPACE}/{service}")
        client.write()
        await _turns()
    for _ in range(_OPENING_ROUNDS):
        await _turns(_OPENING_ROUNDS)
        for client in clients:
            client.read()
            client.write()
    return clients


async def _measured(
    cache: Cache, data: DataSet, clients: Sequence[_Client], given: argparse.Namespace
) -> _Cost:
    cost = _Cost()
    noise = bytearray(_NOISE_BYTES if given.cold else 0)
    for number in range(_WARM_UP + given.changes):
        seq = data.first_seq + number
        change = Apply(parse_json(Kind.VIRTUAL_MACHINE, dataset.vm_json(*data.place(seq), seq)))
        noise[:] = bytes(len(noise))
        began = await _turns()
        cache.apply(change)
        published = time.process_time()
        sent = await _turns()
        got = sum(client.answer() for client in clients)
        noise[:] = bytes(len(noise))
        answering = time.process_time()
        answered = await _turns()
        for client in clients:
            client.read()
        if number >= _WARM_UP:
            cost.publish.append((published - began) / got * 1e6)
            cost.send.append((sent - published) / got * 1e6)
            cost.pings.append((answered - answering) / got * 1e6)
    return cost


async def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.message_cost", description=__doc__)
    for name, default in (("services", 1), ("endpoints", 100), ("connections", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--changes", type=int, default=60)
    parser.add_argument("--cold", action="store_true", help="with the CPU's caches cleared")
    given = parser.parse_args()
    data = DataSet(given.services, given.endpoints)
    cache = filled(data)
    server = Server(cache, [Listener("127.0.0.1:0")], Http2, _LIMITS)
    (address,) = await server.start()
    clients = await _opened(address, given)
    print(json.dumps((await _measured(cache, data, clients, given)).medians()))
    for client in clients:
        client.close()
    await server.stop()


if __name__ == "__main__":
    allow_connections()
    uvloop.run(_main())
