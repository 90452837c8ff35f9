"""What a client talks to: an address, and behind it a server that does what a case says.

The server is a real one of gRPC; the way to it is ours, so that connections can be cut, or freeze.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import Self, TypeAlias

import grpc
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from tests.client_conformance.case_pb2 import End
from vmsvc.v1 import endpoint_service_pb2 as pb

_CHUNK_BYTES = 65_536

# With no time to linger, a socket that is closed resets its connection.
_RESET = struct.pack("ii", 1, 0)

_Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]


class Stream:
    """One call of WatchEndpoints, as the server has it. `taken`: messages that the client took."""

    def __init__(self, request: pb.WatchEndpointsRequest, token: str) -> None:
        self.request = request
        self.token = token
        self.opened_at = time.monotonic()
        self.over = asyncio.Event()
        self.taken = 0
        self._to_send: asyncio.Queue[bytes | End] = asyncio.Queue()

    def send(self, message: bytes) -> None:
        """Sent in order, each once the one before is taken. Never waits."""
        self._to_send.put_nowait(message)

    def end(self, end: End) -> None:
        """End the stream after all that is to be sent."""
        self._to_send.put_nowait(end)

    def withdraw(self) -> None:
        """Do not send what has not been taken."""
        while not self._to_send.empty():
            self._to_send.get_nowait()

    async def run(self, context: _Context) -> None:
        """Send what there is to send until the stream ends."""
        try:
            while not isinstance(following := await self._to_send.get(), End):
                await context.write(following)
                self.taken += 1
            await _end(context, following)
        finally:
            self.over.set()


async def _end(context: _Context, end: End) -> None:
    code = grpc.StatusCode[end.code]
    if code is grpc.StatusCode.OK:
        return
    status = Status(code=code_pb2.Code.Value(code.name), message=end.message)
    if end.HasField("retry_delay"):
        status.details.add().Pack(RetryInfo(retry_delay=end.retry_delay))
    await context.abort(
        code, end.message, (("grpc-status-details-bin", status.SerializeToString()),)
    )


class Server:
    """A gRPC server of the method WatchEndpoints, on a free port of loopback."""

    def __init__(self, streams: asyncio.Queue[Stream]) -> None:
        """Streams that are opened are put into `streams`."""
        self._streams = streams
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        # Bytes go in and out, so that they may be wrong.
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_stream_rpc_method_handler(
            self._watch, None, None
        )
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("vmsvc.v1.EndpointService", {_METHOD: method})]
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    async def start(self) -> Self:
        await self._server.start()
        return self

    async def stop(self, grace_s: float | None = None) -> None:
        """End it; with `grace_s`, say goodbye first and wait so long for streams to end."""
        await self._server.stop(grace_s)

    async def _watch(self, request: bytes, context: _Context) -> None:
        metadata = context.invocation_metadata() or ()
        shown = dict(iter(metadata)).get("authorization", "")
        token = str(shown).removeprefix("Bearer ")
        stream = Stream(pb.WatchEndpointsRequest.FromString(request), token)
        self._streams.put_nowait(stream)
        await stream.run(context)


_METHOD = "WatchEndpoints"


class Way:
    """An address of loopback, and what becomes of connections to it: they go on to a server."""

    def __init__(self) -> None:
        self._to: int | None = None
        self._mute = False
        self._unanswered: set[asyncio.StreamWriter] = set()
        self._connections: set[Connection] = set()
        self._frozen: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener
        self._listener.close()
        self.lead_to(None)
        self.cut()
        for connection in self._frozen:
            connection.cut()
        await asyncio.gather(*self._tasks)

    @property
    def address(self) -> str:
        assert self._listener
        return f"127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    def lead_to(self, port: int | None, *, mute: bool = False) -> None:
        """Where new connections go. None: they are reset at once, or are kept and get no answer."""
        self._to, self._mute = port, mute

    def cut(self) -> None:
        """Reset the connections."""
        while self._unanswered:
            _reset(self._unanswered.pop())
        while self._connections:
            self._connections.pop().cut()

    def freeze(self) -> None:
        """Pass nothing on over the connections; only the server's ends of them are closed."""
        for connection in self._connections:
            connection.freeze()
        self._frozen |= self._connections
        self._connections.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mute:
            self._unanswered.add(writer)
            return
        if self._to is None:
            _reset(writer)
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        connection = Connection(reader, writer, there, back)
        self._connections.add(connection)
        task = asyncio.create_task(connection.run())
        self._tasks.add(task)
        await task
        self._tasks.discard(task)
        self._connections.discard(connection)


class Connection:
    """A client's connection, and ours to the server, bytes of each going to the other."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        self._client, self._server = (reader, writer), (there, back)
        self._frozen = False
        self._cut = asyncio.Event()

    async def run(self) -> None:
        """Until one side ends, or it is cut."""
        passing = [
            asyncio.create_task(_pass_on(self._client[0], self._server[1])),
            asyncio.create_task(_pass_on(self._server[0], self._client[1])),
        ]
        await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)
        self._server[1].close()
        if self._frozen:
            await self._cut.wait()
        _reset(self._client[1])

    def cut(self) -> None:
        self._cut.set()
        for _, writer in (self._client, self._server):
            _reset(writer)

    def freeze(self) -> None:
        self._frozen = True
        _reset(self._server[1])


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(_CHUNK_BYTES):
            target.write(data)
            await target.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that the other side has it reset; what is unsent is not sent."""
    socket_ = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        socket_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


class World:
    """The server of one case, at an address that stays the same."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._server: Server | None = None
        self._leaving: list[asyncio.Task[None]] = []
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()
        """Those that the client has opened, in order."""

    @property
    def address(self) -> str:
        return self._way.address

    async def start(self) -> None:
        """A new server takes connections."""
        self._server = await Server(self.streams).start()
        self._way.lead_to(self._server.port)

    async def stop(self, *, mute: bool = False) -> None:
        """The server goes; there is none, or what takes connections is mute."""
        self._way.lead_to(None, mute=mute)
        self._way.cut()
        if self._server:
            await self._server.stop()

    async def drain(self, patience_s: float) -> None:
        """The server says goodbye, and has another one in its place. Its streams go on."""
        leaving = self._server
        assert leaving
        await self.start()
        self._leaving.append(asyncio.create_task(leaving.stop(patience_s)))

    def cut(self) -> None:
        self._way.cut()

    def freeze(self) -> None:
        self._way.freeze()

    async def end(self) -> None:
        await self.stop()
        await asyncio.gather(*self._leaving)


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    """A world with a server."""
    async with Way() as way:
        made = World(way)
        await made.start()
        try:
            yield made
        finally:
            await made.end()


def large(service: str, version: int, count: int) -> bytes:
    """A snapshot with `count` endpoints, some 80 bytes each."""
    endpoints = [_endpoint(number) for number in range(count)]
    whole = pb.EndpointSet(service=service, version=version, endpoints=endpoints)
    whole.revision = str(version)
    return pb.WatchEndpointsResponse(snapshot=whole).SerializeToString()


def _endpoint(number: int) -> pb.Endpoint:
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    name = f"a-virtual-machine-with-a-name-of-usual-length-{number}"
    return pb.Endpoint(address=address, ready=True, vm_name=name, vm_uid=f"uid-{number}")
