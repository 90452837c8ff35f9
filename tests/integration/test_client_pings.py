"""Clients that ping often are served: raw HTTP/2, as a client library paces its own pings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.integration.serving import PATIENCE_S, WATCH, serving
from tests.unit.objects import service, vm
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.server.limits import Limits

# RFC 9113. A frame is 3 bytes of length, type, flags, 4 bytes of stream, and its content.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY = 0, 1, 4, 6, 7
_ACK = _END_STREAM = 1
_END_HEADERS = 4

INTERVAL_S = 0.1


class Connection:
    """A connection without a client library: those do not ping as often as they are told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        writer.write(_PREFACE)
        self._write(_SETTINGS)

    def _write(self, kind: int, content: bytes = b"", flags: int = 0, stream: int = 0) -> None:
        head = len(content).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4)
        self._writer.write(head + content)

    def call(self, path: str, request: bytes) -> None:
        """Begin a call; its stream stays open."""
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "x",
            "content-type": "application/grpc",
            "te": "trailers",
        }
        # RFC 7541: a literal header that is not indexed, name and value each with its length.
        block = b"".join(
            b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
            for name, value in headers.items()
        )
        self._write(_HEADERS, block, _END_HEADERS, stream=1)
        self._write(_DATA, b"\0" + len(request).to_bytes(4) + request, _END_STREAM, stream=1)

    async def until(self, kind: int, flags: int | None = None) -> bytes:
        """The content of the next frame of a kind; fails if the server says goodbye before."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                head = await self._reader.readexactly(9)
                content = await self._reader.readexactly(int.from_bytes(head[:3]))
                if head[3] == kind and flags in (None, head[4]):
                    return content
                assert head[3] != _GOAWAY, content
                if head[3] == _SETTINGS and not head[4]:
                    self._write(_SETTINGS, flags=_ACK)

    async def ping(self, count: int, every_s: float = 0) -> None:
        """Ping so many times, and wait for each answer."""
        for number in range(count):
            self._write(_PING, number.to_bytes(8))
            assert await self.until(_PING, _ACK) == number.to_bytes(8)
            await asyncio.sleep(every_s)


@asynccontextmanager
async def connection(*, idle: bool, limits: Limits) -> AsyncIterator[Connection]:
    """A connection with nothing on it, or with a watch that has told all there is."""
    async with serving(service(), vm("a", "10.0.0.1"), limits=limits) as running:
        host, _, port = running.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        made = Connection(reader, writer)
        await made.until(_SETTINGS)
        if not idle:
            request = pb.WatchEndpointsRequest(all_services=True)
            made.call(WATCH, request.SerializeToString())
            for _ in ("snapshot", "synced"):
                await made.until(_DATA)
        try:
            yield made
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@pytest.mark.parametrize("idle", [True, False], ids=["an idle connection", "a quiet stream"])
async def test_a_client_that_pings_no_more_often_than_it_may_is_served(idle: bool) -> None:
    """Three pings too many end a connection: gRPC forgives two."""
    limits = Limits(client_ping_interval_min_s=INTERVAL_S)
    async with connection(idle=idle, limits=limits) as made:
        await made.ping(8, 2 * INTERVAL_S)  # As Go's 10 s are twice our default.


@pytest.mark.parametrize("idle", [True, False], ids=["an idle connection", "a quiet stream"])
async def test_a_client_that_pings_without_end_is_disconnected(idle: bool) -> None:
    async with connection(idle=idle, limits=Limits()) as made:
        with pytest.raises(AssertionError, match="too_many_pings"):
            await made.ping(8)


def test_pings_at_the_smallest_interval_of_go_may_be_late_by_half_of_it() -> None:
    assert Limits().client_ping_interval_min_s == 10 / 2
