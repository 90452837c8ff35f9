"""The gRPC server in this process, over a cache that a test changes by events."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2_grpc

from tests.confidential import leaked
from tests.unit.leavings import leavings
from tests.unit.server.endpoint_service.watching import Reader, Told, emptied, synced_cache
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc.v1 import endpoint_service_pb2_grpc as api
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Event
from vmsvc_grpc.model.objects import Object
from vmsvc_grpc.server import session
from vmsvc_grpc.server.access.gate import Gate
from vmsvc_grpc.server.call import RpcError
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.listen import Server
from vmsvc_grpc.server.session import Sessions
from vmsvc_grpc.server.transport import Listener, MakeTransport, Transport
from vmsvc_grpc.server.transport.grpc_aio import GrpcAio
from vmsvc_grpc.server.transport.http2 import Http2

PATIENCE_S = 30.0
"""How long a test waits for what must come. A machine under load is slow, not wrong."""

WATCH = "/vmsvc.v1.EndpointService/WatchEndpoints"

# A reader that stalls has little in flight with these, so that it stalls soon.
SMALL_WINDOW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535))


TRANSPORTS: dict[str, MakeTransport] = {"http2": Http2, "grpcio": GrpcAio}
"""The transports by the names that `--transport` knows."""

used = ["http2"]
"""The name of the one that servers are made with; the fixture `transport` sets it."""


def make_transport(sessions: Sessions, limits: Limits) -> Transport:
    """The transport that this test is about."""
    return TRANSPORTS[used[0]](sessions, limits)


async def until(condition: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds; fails, showing it, if it does not in time."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - it is nobody's event
            await asyncio.sleep(0.005)


@dataclass
class Watch:
    """One WatchEndpoints call over the wire."""

    call: grpc.aio.UnaryStreamCall[bytes, bytes]
    reader: Reader

    async def read(self) -> Told:
        """The next message, in short. Raises AioRpcError where the call ends."""
        async with asyncio.timeout(PATIENCE_S):
            raw = await self.call.read()
        assert isinstance(raw, bytes), "a watch never ends with OK by itself"
        return self.reader.take(raw)

    async def until_synced(self) -> list[Told]:
        """Every message up to `synced`, in short."""
        told = [await self.read()]
        while told[-1][0] != "synced":
            told.append(await self.read())
        return told

    async def until_version(self, service: str, version: int) -> int:
        """Read until the client holds that version; how many messages that took."""
        count = 0
        while self.reader.versions.get(service, 0) < version:
            await self.read()
            count += 1
        return count

    async def ending(self) -> grpc.aio.AioRpcError:
        """How the call ends; what is still told before that is read."""
        while True:
            try:
                await self.read()
            except grpc.aio.AioRpcError as error:
                return error


@dataclass
class Serving:
    """A running server, its cache, and clients of it."""

    cache: Cache
    server: Server
    address: str
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    @property
    def counts(self) -> ServerCounts:
        """What the server counts."""
        return self.server.counts

    @property
    def streams_open(self) -> int:
        """How many streams the server holds open."""
        return self.counts.streams_open.total()

    def apply(self, *events: Event) -> None:
        """Change the cache."""
        for event in events:
            self.cache.apply(event)

    def channel(self, *options: tuple[str, Any]) -> grpc.aio.Channel:
        """A channel with a connection of its own, closed when the test ends."""
        own = ("grpc.use_local_subchannel_pool", 1)
        channel = grpc.aio.insecure_channel(self.address, options=[own, *options])
        self.channels.append(channel)
        return channel

    def stub(self) -> Any:
        """A stub on a channel of its own."""
        return api.EndpointServiceStub(self.channel())

    def health(self) -> Any:
        """A stub of grpc.health.v1 on a channel of its own."""
        return health_pb2_grpc.HealthStub(self.channel())  # type: ignore[no-untyped-call] # none

    def watch(
        self, request: pb.WatchEndpointsRequest, channel: grpc.aio.Channel | None = None
    ) -> Watch:
        """Open a watch; nothing is read yet."""
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        method = (channel or self.channel()).unary_stream(WATCH)
        revisions = {watched.service: watched.revision for watched in request.services}
        return Watch(method(request.SerializeToString()), Reader(revisions=revisions))

    async def close(self) -> None:
        """Close every channel."""
        await asyncio.gather(*(channel.close() for channel in self.channels))


@contextmanager
def statuses_without_secrets() -> Iterator[None]:
    """Fails in the end if any call within it ended with words that have a secret of a test."""
    told: list[str] = []
    status_of = session.status_of

    def noted(error: RpcError) -> session.Status:
        status = status_of(error)
        told.append(status.message)
        told.append(status.details.decode("latin-1"))
        return status

    session.status_of = noted
    try:
        yield
    finally:
        session.status_of = status_of
    assert not leaked("\n".join(told))


@asynccontextmanager
async def serving(
    *objects: Object,
    cache: Cache | None = None,
    limits: Limits | None = None,
    gate: Gate | None = None,
    tls: Callable[[], ssl.SSLContext] | None = None,
) -> AsyncIterator[Serving]:
    """A server on a free port, over a cache that has listed these objects, or `cache`.

    With `gate`, its listener is guarded. `tls` offers HTTP/2 by ALPN.

    When the block ends, nothing may be left of any call: no stream, no topic, no task.
    """
    tasks = asyncio.all_tasks()
    cache = synced_cache(*objects) if cache is None else cache
    listener = Listener("127.0.0.1:0", tls, guarded=gate is not None)
    server = Server(cache, [listener], make_transport, limits, gate=gate)
    (address,) = await server.start()
    running = Serving(cache, server, address)
    try:
        with statuses_without_secrets():
            yield running
        await running.close()
        await until(lambda: not running.streams_open)
        emptied(cache)
        assert (server.names.names, server.names.name_bytes) == (0, 0)
        # Another server over this cache, that a test has just stopped, lets go a moment later.
        await until(lambda: not leavings(cache))
    finally:
        await running.close()
        await server.stop()
    await until(lambda: not asyncio.all_tasks() - tasks - {asyncio.current_task()})


def detail(error: grpc.aio.AioRpcError, kind: type[Message]) -> Any:
    """The one detail of an error, which must be of that kind."""
    metadata = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    (packed,) = status.details
    unpacked = kind()
    assert packed.Unpack(unpacked)
    return unpacked
