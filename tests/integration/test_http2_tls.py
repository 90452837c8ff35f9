"""The transport on libnghttp2 under TLS, by a context that is handed in."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2 as pb
from ngh2 import events

from tests.integration.http2_toy import BOTH, ECHO, LARGE, LARGE_BYTES, WATCH, Toy, client, serving
from tests.integration.serving import PATIENCE_S, until
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.transport.grpc_wire import framed

# A pair for tests, good for 127.0.0.1 and a hundred years.
CERTIFICATE = Path(__file__).parent / "tls" / "certificate.pem"


def ours() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_name("key.pem"))
    context.set_alpn_protocols(["h2"])
    return context


def theirs(*protocols: str) -> ssl.SSLContext:
    """A client's, that offers these protocols."""
    context = ssl.create_default_context(cafile=CERTIFICATE)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


async def test_calls_of_every_kind_go_through() -> None:
    async with serving(tls=ours()) as toy, client(toy, tls=theirs("h2", "http/1.1")) as there:
        assert await there.status(there.call(ECHO, framed(b"hi"))) == (0, "")
        large = there.call(LARGE, framed(b""))
        assert await there.status(large) == (0, "")
        assert len(there.body(large)) == LARGE_BYTES + 5
        upload = there.call(ECHO, framed(b"x" * 200_000))
        assert await there.status(upload) == (0, "")
        both = there.call(BOTH, framed(b"a"), framed(b"b"))
        await until(lambda: toy.streams and toy.streams[0].half_closed)
        assert toy.streams[0].requests == [b"a", b"b"]
        toy.streams[0].say(b"told")
        await there.until(lambda: there.body(both) == framed(b"told"))
        toy.streams[0].say(b"end")
        assert await there.status(both) == (0, "")


async def test_channelz_tells_what_was_agreed_and_who_is_there() -> None:
    context = ours()
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(CERTIFICATE)
    known = theirs("h2")
    known.load_cert_chain(CERTIFICATE, CERTIFICATE.with_name("key.pem"))
    shown = ssl.PEM_cert_to_DER_cert(CERTIFICATE.read_text())
    for tls, certificate in ((theirs("h2"), b""), (known, shown)):
        async with serving(tls=context) as toy, client(toy, tls=tls) as there:
            assert await there.status(there.call(ECHO, framed(b"hi"))) == (0, "")
            (connection,) = toy.transport.connections
            asked = pb.GetSocketRequest(socket_id=connection._id)
            answer = toy.transport.channelz("GetSocket", asked)
            assert isinstance(answer, pb.GetSocketResponse)
            caller = connection._caller
            assert (caller.guarded, caller.token) == (True, "")
            names = ("a test of vmsvc-grpc",) if certificate else None
            assert (caller.certificate.common_names if caller.certificate else None) == names
            agreed = answer.socket.security.tls
            assert agreed.standard_name.startswith("TLS_")
            assert agreed.remote_certificate == certificate


async def test_a_client_of_grpc_is_answered() -> None:
    """Its core refuses a server that does not agree on HTTP/2 by ALPN."""
    trust = grpc.ssl_channel_credentials(CERTIFICATE.read_bytes())
    async with serving(tls=ours()) as toy:
        channel = grpc.aio.secure_channel(f"127.0.0.1:{toy.port}", trust)
        async with channel:
            echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO)
            assert await echo(b"hi", timeout=PATIENCE_S) == b"hi"
            watch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(WATCH)
            call = watch(b"")
            await until(lambda: toy.streams and toy.streams[0].asked)
            toy.streams[0].say(b"told")
            assert await call.read() == b"told"
            toy.streams[0].say(b"end")
            assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
async def test_who_does_not_agree_on_http2_is_told_so_in_one_line(
    protocols: tuple[str, ...],
) -> None:
    async with serving(tls=ours()) as toy:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", toy.port, ssl=theirs(*protocols)
        )
        writer.write(b"GET / HTTP/1.1\r\nHost: toy\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            head, body = (await reader.read()).split(b"\r\n\r\n")
        writer.close()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"gRPC" in body


async def answered(toy: Toy) -> None:
    async with client(toy, tls=theirs("h2")) as other:
        assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")


@pytest.mark.parametrize(
    "said",
    [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n"],
)
async def test_a_handshake_that_does_not_come_to_an_end_costs_itself(said: bytes) -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(told))
    async with serving(Limits(handshake_s=0.2), tls=ours()) as toy:
        reader, writer = await asyncio.open_connection("127.0.0.1", toy.port)
        writer.write(said)
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionError):
                await reader.read()
        writer.close()
        await until(lambda: not toy.handshakes())
    assert not faults


async def test_connections_count_from_the_beginning() -> None:
    async with serving(Limits(connections_per_client_max=1), tls=ours()) as toy:
        _, silent = await asyncio.open_connection("127.0.0.1", toy.port)
        await until(lambda: toy.handshakes() == 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", toy.port)
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        assert toy.counts.refusals == {"connections_per_client_max": 1}
        async with client(toy, address="127.0.0.2", tls=theirs("h2")) as other:
            assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")
        silent.close()
        await until(lambda: not toy.handshakes())
        await answered(toy)


async def test_a_server_that_stops_leaves_no_handshake_behind() -> None:
    async with serving(tls=ours()) as toy:
        _, writer = await asyncio.open_connection("127.0.0.1", toy.port)
        await until(lambda: toy.handshakes() == 1)
        await toy.transport.stop(0)
        assert not toy.handshakes()
        writer.close()


async def test_an_old_connection_is_left_in_two_steps() -> None:
    limits = Limits(connection_age_s=0.3, connection_age_grace_s=PATIENCE_S)
    async with serving(limits, ours()) as toy, client(toy, tls=theirs("h2")) as there:
        stream = there.call(WATCH, framed(b""))
        await there.until(lambda: len(there.of(events.GoAwayReceived)) == 2)
        toy.streams[0].say(b"end")
        assert await there.status(stream) == (0, "")
        await there.until(lambda: there.over)
        assert there.over


@pytest.mark.parametrize("tls", [None, ours()], ids=["plain", "TLS"])
async def test_who_goes_away_before_it_is_let_in_costs_itself(tls: ssl.SSLContext | None) -> None:
    """A connection that is reset while it waits to be accepted has no peer any more."""
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(told))
    async with serving(tls=tls) as toy:
        for _ in range(20):
            gone = socket.create_connection(("127.0.0.1", toy.port))
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.close()
        async with client(toy, tls=theirs("h2") if tls else None) as other:
            assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")
        await until(lambda: not toy.transport.connections and not toy.handshakes())
    assert not faults


async def goes_in_peace(toy: Toy) -> None:
    await answered(toy)


async def is_cut_off(toy: Toy) -> None:
    """After a call, without a goodbye."""
    reader, writer = await asyncio.open_connection("127.0.0.1", toy.port, ssl=theirs("h2"))
    await until(lambda: toy.transport.connections)
    writer.transport.abort()
    with suppress(ConnectionError):
        await reader.read()


async def goes_in_mid_handshake(toy: Toy) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", toy.port)
    writer.write(b"\x16\x03\x01\x02\x00\x01")
    await until(toy.handshakes)
    writer.transport.abort()
    await until(lambda: not toy.handshakes())


async def never_ends_it(toy: Toy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", toy.port)
    async with asyncio.timeout(PATIENCE_S):
        with suppress(ConnectionError):
            await reader.read()
    writer.close()


async def trusts_another(toy: Toy) -> None:
    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection("127.0.0.1", toy.port, ssl=ssl.create_default_context())


async def uses_none(toy: Toy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", toy.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await reader.read()
    writer.close()


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.parametrize(
    "comes",
    [goes_in_peace, is_cut_off, goes_in_mid_handshake, never_ends_it, trusts_another, uses_none],
)
async def test_who_has_gone_leaves_no_cycle(
    comes: Callable[[Toy], Awaitable[None]], no_collector: None
) -> None:
    """The collector does not look at what has lived long (ADR 41): it would stay for ever."""
    async with serving(Limits(handshake_s=0.2), tls=ours()) as toy:
        await comes(toy)  # So that all that is made once is there.
        await until(lambda: not toy.transport.entrance.in_all)
        gc.freeze()
        for _ in range(3):
            await comes(toy)
        await until(lambda: not left_behind())
        assert not toy.transport.entrance.in_all


def left_behind() -> list[str]:
    """Of what was made since the freeze: the server's objects that could be part of a cycle."""
    names = (f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    return [name for name in names if name.startswith("vmsvc_grpc.server.")]
