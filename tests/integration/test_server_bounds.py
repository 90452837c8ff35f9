"""Bad requests from one client: what they cost, and that another one's look-ups are answered."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2 as discovery

from tests.integration.raw_http2 import END_STREAM, Header, RawClient, close_all, message
from tests.integration.serving import PATIENCE_S, Serving, serving, until
from tests.unit.objects import service, vm
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.server.call import Code
from vmsvc_grpc.server.limits import Limits

SERVICE = "/vmsvc.v1.EndpointService"
RESOLVE, WATCH = f"{SERVICE}/ResolveEndpoints", f"{SERVICE}/WatchEndpoints"
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
METHODS = (RESOLVE, WATCH, ADS, HEALTH_WATCH, REFLECTION)

EDS_URL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

MIB = 1024 * 1024
LOOK_UP = pb.ResolveEndpointsRequest(service="shop/web").SerializeToString()


@dataclass
class Other:
    """A client that does nothing wrong: it looks up a service, one call after the other."""

    answered: int = 0

    async def look_up(self, running: Serving) -> None:
        stub = running.stub()
        while True:
            async with asyncio.timeout(PATIENCE_S):
                response = await stub.ResolveEndpoints(
                    pb.ResolveEndpointsRequest(service="shop/web")
                )
            assert len(response.endpoint_set.endpoints) == 1
            self.answered += 1
            await asyncio.sleep(0)

    async def more(self) -> None:
        """Wait until it was answered ten times more."""
        enough = self.answered + 10
        await until(lambda: self.answered >= enough)


@asynccontextmanager
async def beside_another(limits: Limits | None = None) -> AsyncIterator[tuple[Serving, Other]]:
    """A server, and a client of it whose look-ups are answered all the while, or this fails."""
    async with serving(service(), vm("a", "10.0.0.1"), limits=limits) as running:
        other = Other()
        looking = asyncio.create_task(other.look_up(running))
        await other.more()
        try:
            yield running, other
            await other.more()
            assert not looking.done(), "no look-up has failed"
        finally:
            looking.cancel()
            await asyncio.wait((looking,))


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What has been logged, but by grpc.aio's client of a test whose event loop is closed."""
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if "PollerCompletionQueue._handle_events" not in line]


def lookup_bytes(running: Serving, other: Other) -> range:
    """How many bytes the other's look-ups were read as, as far as it can be told from here."""
    return range(len(LOOK_UP) * other.answered, len(LOOK_UP) * (other.answered + 1) + 1)


BOMBS = {"zeros": b"\0\0", "32 million empty messages": b"\x0a\0"}


@cache
def bomb(what: str) -> bytes:
    """64 MiB in some 63 KB."""
    return gzip.compress(BOMBS[what] * (32 * MIB))


@pytest.mark.parametrize("what", BOMBS)
@pytest.mark.parametrize("path", METHODS)
async def test_compressed_requests_are_refused_before_a_byte_of_them_is_read(
    what: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with beside_another() as (running, other):
        client = await RawClient.connect(running.address)
        await client.settle()
        for encoding in ("gzip", "deflate", "gzip"):
            stream = client.open(path, [("grpc-encoding", encoding)])
            await client.send(stream, message(bomb(what), compressed=True))
            assert await client.status(stream) == Code.UNIMPLEMENTED
        stream = client.open(RESOLVE)
        await client.send(stream, message(LOOK_UP))
        assert await client.status(stream) == Code.OK, "the connection goes on"
        accepted = [fields.get(b"grpc-accept-encoding") for fields in client.fields.values()]
        assert set(accepted) <= {b"identity", None}
        assert b"identity" in accepted
        await other.more()
        assert running.counts.request_bytes in lookup_bytes(running, Other(other.answered + 1))
        await client.close()
    assert not logged(caplog)


@pytest.mark.parametrize("path", [path for path in METHODS if path != ADS])
async def test_a_request_that_says_it_is_too_large_is_refused_at_its_length(path: str) -> None:
    """Of xDS it is dropped, and its stream goes on: see `test_xds_dropped`."""
    async with beside_another() as (running, other):
        client = await RawClient.connect(running.address)
        await client.settle()
        for _ in range(30):
            before = client.sent_bytes
            stream = client.open(path)
            await client.send(stream, message(bytes(59 * MIB)), end=False)
            assert await client.status(stream) == Code.RESOURCE_EXHAUSTED
            assert client.sent_bytes - before <= MIB, "it is not read to its end"
        await other.more()
        assert running.counts.request_bytes in lookup_bytes(running, other)
        await client.close()


@pytest.mark.parametrize("path", [RESOLVE, HEALTH_WATCH, REFLECTION])
async def test_a_method_that_names_one_thing_reads_64_kib(path: str) -> None:
    async with beside_another() as (running, _other):
        client = await RawClient.connect(running.address)
        await client.settle()
        stream = client.open(path)
        await client.send(stream, message(bytes(64 * 1024 + 1)))
        assert await client.status(stream) == Code.RESOURCE_EXHAUSTED
        assert b"one_name_bytes_max" in (client.answer(stream) or {})[b"grpc-message"]
        assert running.counts.refusals == {"one_name_bytes_max": 1}
        await client.close()


REFUSALS = (Code.UNKNOWN, Code.INVALID_ARGUMENT, Code.INTERNAL, Code.UNIMPLEMENTED)
ENDINGS = (Code.OK, *REFUSALS)
STRANGE: dict[str, Sequence[Header]] = {
    "bytes in an ASCII header": [("x-note", b"\xff\xfe\x80")],
    "Latin-1": [("x-note", "caf\xe9".encode("latin-1"))],
    "a zero": [("x-note", b"a\0b")],
    "a user agent": [("user-agent", b"\xc3\x28\xff")],
    "an authority": [("host", b"\xff")],
    "a content type": [("content-type", b"application/grpc\xff")],
    "the same key twice": [("x-note", b"\xff"), ("x-note", b"\xfe")],
    "a token": [("authorization", b"Bearer \xff")],
    "base64 that is none": [("x-note-bin", b"!!!!")],
    "half of a base64 group": [("x-note-bin", b"abcde")],
    "a key of bytes": [(b"x-\xff", b"a")],
    "a key in capitals": [("X-NOTE", b"a")],
    "a time limit that is none": [("grpc-timeout", b"\xff")],
    "an encoding that is none": [("grpc-encoding", b"\xff")],
    "a trace that is none": [("grpc-trace-bin", b"\xff\xff")],
}
_ALWAYS_REFUSED = {"a key of bytes", "a key in capitals", "a time limit that is none"}
# By libnghttp2, what is malformed (RFC 9113, 8.2.1 and 8.3.1), and by us what is no type of gRPC's;
# metadata that nobody reads is not decoded. gRPC's core decodes all, and takes the others.
REFUSED = {
    "http2": _ALWAYS_REFUSED | {"a zero", "an authority", "a content type"},
    "grpcio": _ALWAYS_REFUSED
    | {
        "base64 that is none",
        "half of a base64 group",
        "an encoding that is none",
        "a trace that is none",
    },
}


@pytest.mark.parametrize("path", [*METHODS, "/no.Such/Method"])
async def test_metadata_that_is_not_text_is_nobodys_error_but_its_calls(
    path: str, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with beside_another() as (running, other):
        client = await RawClient.connect(running.address)
        await client.settle()
        for what, headers in STRANGE.items():
            stream = client.open(path, headers)
            await client.send(stream, message(LOOK_UP if path == RESOLVE else b""))
            if what in REFUSED[transport]:
                assert await client.status(stream) in REFUSALS, what
            elif path == RESOLVE:
                assert await client.status(stream) == Code.OK, what
            elif path == HEALTH_WATCH:
                await client.settle()
                assert client.answer(stream) is None, f"{what}: it goes on"
            else:
                assert await client.status(stream) in ENDINGS, what
            assert not client.ended
        await other.more()
        await client.close()
    assert not logged(caplog)


PATHS = [
    b"/\xff",
    b"\xff",
    b"/vmsvc.v1.EndpointService/\xc3\x28",
    "/caf\xe9",
    "",
    "/",
    b"/a\0b",
    "/x" * 3000,
]


@pytest.mark.parametrize("path", PATHS, ids=repr)
async def test_a_path_that_is_not_text_ends_its_call_alone(
    path: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """grpc.aio stopped serving: it reads the path on the task that takes all calls."""
    async with beside_another() as (running, other):
        for _ in range(3):
            client = await RawClient.connect(running.address)
            await client.settle()
            stream = client.open(path, flags=END_STREAM)
            assert await client.status(stream) in (Code.UNIMPLEMENTED, Code.INTERNAL)
            await other.more()
            await client.close()
        fresh = running.stub()
        await fresh.ResolveEndpoints(pb.ResolveEndpointsRequest(service="shop/web"))
    assert not logged(caplog)


async def test_calls_of_methods_that_there_are_not_are_counted_as_one() -> None:
    async with beside_another() as (running, _other):
        client = await RawClient.connect(running.address)
        await client.settle()
        for number in range(50):
            stream = client.open(f"/no.Such/M{number}", flags=END_STREAM)
            assert await client.status(stream) == Code.UNIMPLEMENTED
        assert running.counts.calls["(unknown)", Code.UNIMPLEMENTED] == 50
        await client.close()


@pytest.mark.parametrize("path", [*METHODS, "/no.Such/Method"])
async def test_calls_that_are_reset_at_once_leave_nothing(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with beside_another() as (running, other):
        client = await RawClient.connect(running.address)
        await client.settle()
        for _ in range(1000):
            stream = client.open(path)
            client.reset(stream)
        await client.writer.drain()
        await other.more()
        # Calls of a method are taken in order: once this one is heard, all those were taken.
        last = client.open(path)
        await client.send(last, message(b""))
        await client.heard(last)
        await client.close()
    assert not logged(caplog)


async def test_connections_beyond_their_bound_are_closed_and_others_go_on() -> None:
    async with beside_another(Limits(connections_max=4)) as (running, other):
        clients = [await RawClient.connect(running.address) for _ in range(3)]
        for client in clients:
            await client.settle()
            assert not client.ended
        for _ in range(20):
            beyond = await RawClient.connect(running.address)
            await beyond.until_ended()
            await beyond.close()
        await other.more()
        await clients[0].close()
        while True:  # gRPC takes a moment to notice.
            again = await RawClient.connect(running.address)
            await again.settle()
            if not again.ended:
                break
            await again.close()
        stream = again.open(RESOLVE)
        await again.send(stream, message(LOOK_UP))
        assert await again.status(stream) == Code.OK
        await close_all([again, *clients])


async def test_connections_that_say_nothing_are_closed() -> None:
    async with beside_another(Limits(connections_max=4, handshake_s=0.5)) as (running, other):
        silent = [await RawClient.connect(running.address, preface=False) for _ in range(3)]
        for client in silent:
            await client.until_ended()
            await client.close()
        await other.more()
        again = await RawClient.connect(running.address)
        await again.settle()
        assert not again.ended
        await again.close()


def names(number: int, count: int) -> list[str]:
    return [f"n{name}.of-{number}:1" for name in range(count)]


async def test_streams_that_name_absent_services_have_a_bound_together() -> None:
    """Each took 26 MB, and 2,000 streams were let in; 1,000 name 2,000 each here, less so."""
    streams, each, most = 100, 200, 1500
    async with beside_another(Limits(names_per_client_max=most)) as (running, other):
        channel = running.channel()
        watch = WatchNames(running, channel)
        for number in range(streams):
            await watch.open(names(number, each))
        await other.more()
        assert running.server.names.names <= most
        assert watch.refused == streams - most // each
        assert running.counts.refusals == {"names_per_client_max": watch.refused}
        before = running.server.names.names
        watch.calls[0].cancel()
        await until(lambda: running.server.names.names == before - each)
        await watch.open(names(0, each))
        assert running.server.names.names == before, "the room of one that ended is had again"


class WatchNames:
    """Opens watches by name, and counts those that are refused."""

    def __init__(self, running: Serving, channel: grpc.aio.Channel) -> None:
        self.calls: list[grpc.aio.UnaryStreamCall[bytes, bytes]] = []
        self.refused = 0
        self._method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(WATCH)
        self._running = running

    async def open(self, named: Sequence[str]) -> None:
        services = [
            pb.WatchedService(service=f"{namespace}/{name}")
            for name, _, namespace in (text.removesuffix(":1").partition(".") for text in named)
        ]
        call = self._method(pb.WatchEndpointsRequest(services=services).SerializeToString())
        try:
            async with asyncio.timeout(PATIENCE_S):
                assert await call.read() is not grpc.aio.EOF
        except grpc.aio.AioRpcError as error:
            self.refused += "names_per_client_max" in (error.details() or "")
        else:
            self.calls.append(call)


@pytest.mark.parametrize("path", [ADS, ADS.replace("Stream", "Delta")], ids=["sotw", "delta"])
async def test_80_000_names_on_each_stream_of_one_client_end_none(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    limits = Limits(
        xds_resources_max=80_000,
        request_fields_max=400_000,  # So that one stream alone may follow as many.
        names_per_client_max=100_000,
        client_lines_per_minute_max=5,
    )
    async with beside_another(limits) as (running, other):
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = running.channel().stream_stream(path)
        calls = [method() for _ in range(2)]
        for number, call in enumerate(calls):
            many = names(number, 80_000)
            request = (
                discovery.DiscoveryRequest(type_url=EDS_URL, resource_names=many)
                if path is ADS
                else discovery.DeltaDiscoveryRequest(
                    type_url=EDS_URL, resource_names_subscribe=many
                )
            )
            await call.write(request.SerializeToString())
        await until(lambda: running.counts.refusals["names_per_client_max"] == 60_000)
        await other.more()
        assert running.server.names.names == 100_000
        assert not any(call.done() for call in calls)
        for call in calls:
            call.cancel()
        await until(lambda: running.server.names.names == 0)
    assert [record.message.partition(":")[0] for record in caplog.records] == ["xDS"]
    assert "(names_per_client_max)" in caplog.text


async def test_refusals_of_resources_are_few_lines_however_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """11 KB each, at 16 MB/s, filled the log."""
    caplog.set_level(logging.WARNING)
    async with beside_another(Limits(client_lines_per_minute_max=5)) as (running, other):
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = running.channel().stream_stream(ADS)
        for number in range(50):
            call = method()
            asked = discovery.DiscoveryRequest(type_url=EDS_URL, resource_names=["web.shop:80"])
            asked.node.id = f"n{number}\x1b[2J\n"
            await call.write(asked.SerializeToString())
            raw = await call.read()
            assert isinstance(raw, bytes)
            told = discovery.DiscoveryResponse.FromString(raw)
            asked.response_nonce = told.nonce
            asked.error_detail.message = f"{number} \n\x1b[31m\u202e" + "x" * 11_000
            await call.write(asked.SerializeToString())
            await until(lambda number=number: running.counts.xds_nacks.total() > number)  # type: ignore[misc]  # a default binds it
            call.cancel()
        await other.more()
    assert len(caplog.records) == 5
    for record in caplog.records:
        assert record.message.isprintable()
        assert len(record.message) < 1500
    assert running.counts.refusals == {"client_lines_per_minute_max": 45}
