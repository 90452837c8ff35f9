"""Certificate, key and clients' CA swapped under streams, as Kubernetes swaps a Secret."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest

from tests.certificates import Authority, Pair, Secret, encrypted
from tests.integration.serving import PATIENCE_S, until
from tests.unit.objects import service, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.listen import Server
from vmsvc_grpc.server.tls.files import TlsFiles
from vmsvc_grpc.server.tls.rotation import CLIENT_CA, PAIR, TlsRotation
from vmsvc_grpc.server.transport import Listener
from vmsvc_grpc.server.transport.http2 import Http2
from vmsvc_grpc.source.inotify import DirectoryWatch

WATCH = "/vmsvc.v1.EndpointService/WatchEndpoints"
STREAMS, CHANNELS = 500, 10


@dataclass
class World:
    """A server with TLS by a Secret that tests swap."""

    secret: Secret
    cache: Cache
    server: Server
    tls: TlsRotation
    address: str

    async def swapped(self, part: str, **contents: str | Path) -> None:
        """Swap the Secret, and wait until that part has been taken."""
        loads = self.tls.loads[part]
        self.secret.put(**contents)
        await until(lambda: self.tls.loads[part] > loads)

    def loaded(self, times: int) -> bool:
        """Whether both parts have been taken so often."""
        return self.tls.loads == {PAIR: times, CLIENT_CA: times}

    async def shown(self, authority: Authority, pair: Pair | None = None) -> bytes:
        """The server's certificate at a new connection, whose client shows one of its own.

        Raises ssl.SSLError or ConnectionError.
        """
        context = ssl.create_default_context(cafile=authority.certificate)
        context.set_alpn_protocols(["h2"])
        if pair is not None:
            context.load_cert_chain(*pair)
        host, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        try:
            der: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            # With TLS 1.3, a client learns by the first answer that its certificate is refused.
            async with asyncio.timeout(PATIENCE_S):
                assert await reader.readexactly(9)
        finally:
            writer.close()
        return der


@asynccontextmanager
async def world(folder: Path, **contents: str | Path) -> AsyncIterator[World]:
    secret = Secret(folder / "secret")
    secret.put(**contents)
    there = secret.directory
    client_ca = there / "ca.crt" if "ca_crt" in contents else None
    files = TlsFiles(there / "tls.crt", there / "tls.key", client_ca)
    tls = TlsRotation(files, DirectoryWatch(Path("/")))
    tls.load()
    cache = synced_cache(service())
    listeners = [Listener("127.0.0.1:0", lambda: tls.context("h2"))]
    limits = Limits(streams_per_client_max=5_000, connections_per_client_max=2_000)
    server = Server(cache, listeners, Http2, limits)
    (address,) = await server.start()
    running = asyncio.create_task(tls.run())
    try:
        yield World(secret, cache, server, tls, address)
        assert not running.done()
    finally:
        running.cancel()
        await server.stop()


def der_of(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())


def channel(address: str, *roots: Authority) -> grpc.aio.Channel:
    trusted = b"".join(root.certificate.read_bytes() for root in roots)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(trusted))


def all_heard(heard: dict[int, str], address: str) -> bool:
    return list(heard.values()) == [address] * STREAMS


async def test_all_streams_outlive_swaps_of_certificate_key_and_ca(tmp_path: Path) -> None:
    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    pairs = [first.issue(), first.issue(), second.issue(), first.issue()]
    clients = [Authority(tmp_path / f"clients-{n}").certificate for n in range(2)]

    def contents(turn: int) -> dict[str, str | Path]:
        certificate, key = pairs[turn]
        return {"tls_crt": certificate, "tls_key": key, "ca_crt": clients[turn % 2]}

    async with world(tmp_path, **contents(0)) as here:
        channels = [channel(here.address, first, second) for _ in range(CHANNELS)]
        request = pb.WatchEndpointsRequest(
            services=[pb.WatchedService(service="shop/web")],
            readiness=pb.READINESS_ALL,
        ).SerializeToString()
        heard: dict[int, str] = {}

        async def follow(number: int) -> None:
            watch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
            watch = channels[number % CHANNELS].unary_stream(WATCH)
            async for raw in watch(request):
                message = pb.WatchEndpointsResponse.FromString(raw)
                for each in (*message.snapshot.endpoints, *message.delta.upserted):
                    heard[number] = each.address

        async def churn() -> None:
            while True:  # Somebody comes and goes all the time.
                async with channel(here.address, first, second) as other:
                    call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
                    call = other.unary_stream(WATCH)
                    assert await call(request, wait_for_ready=True).read()

        followers = [asyncio.create_task(follow(number)) for number in range(STREAMS)]
        coming = asyncio.create_task(churn())
        for turn in range(len(pairs)):
            if turn:
                here.secret.put(**contents(turn))
                await until(partial(here.loaded, turn + 1))
                assert await here.shown(second if turn == 2 else first) == der_of(pairs[turn])
            address = f"10.0.0.{turn + 1}"
            here.cache.apply(Apply(vm("vm-1", address)))
            await until(partial(all_heard, heard, address))
        assert not coming.done()
        assert not any(follower.done() for follower in followers)
        assert not here.tls.troubles
        for task in (coming, *followers):
            task.cancel()
        await asyncio.wait((coming, *followers))
        await asyncio.gather(*(each.close() for each in channels))


def bad(name: str, good: Pair, other: Pair, expired: Pair) -> dict[str, str | Path]:
    certificate, key = good
    cases: dict[str, dict[str, str | Path]] = {
        "another key": {"tls_crt": certificate, "tls_key": other.key},
        "empty": {"tls_crt": "", "tls_key": key},
        "cut off": {"tls_crt": certificate.read_text()[:200], "tls_key": key},
        "encrypted": {"tls_crt": certificate, "tls_key": encrypted(key)},
        "expired": {"tls_crt": expired.certificate, "tls_key": expired.key},
        "gone": {"tls_crt": certificate},
    }
    return cases[name]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("another key", "is not the key of the certificate"),
        ("empty", "is empty"),
        ("cut off", "is cut off"),
        ("encrypted", "is encrypted"),
        ("expired", "expired at"),
        ("gone", "No such file"),
    ],
)
async def test_a_pair_that_cannot_be_used_is_reported_and_the_old_one_stays(
    name: str, says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    old, new = authority.issue(), authority.issue()
    wrong = bad(name, new, authority.issue(), authority.issue(days=-1))
    async with world(tmp_path, tls_crt=old.certificate, tls_key=old.key) as here:
        here.secret.put(**wrong)
        await until(lambda: here.tls.troubles)
        (trouble,) = here.tls.troubles
        assert says in trouble
        assert "what was read before stays in use" in trouble
        assert here.tls.refused() == {PAIR: True}
        assert await here.shown(authority) == der_of(old)
        await here.swapped(PAIR, tls_crt=new.certificate, tls_key=new.key)
        assert await here.shown(authority) == der_of(new)
        await until(lambda: not here.tls.troubles)
        assert here.tls.refused() == {PAIR: False}
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1, "a trouble is logged once"
    assert says in warned[0]


async def test_a_ca_that_is_removed_stays_and_a_new_one_replaces_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue()
    own: dict[str, str | Path] = {"tls_crt": pair.certificate, "tls_key": pair.key}
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    theirs, others = old.issue("/CN=a", ""), new.issue("/CN=b", "")
    async with world(tmp_path, **own, ca_crt=old.certificate) as here:
        assert await here.shown(authority, theirs)
        here.secret.put(**own)
        await until(lambda: here.tls.refused()[CLIENT_CA])
        assert "--client-ca" in here.tls.troubles[0]
        assert await here.shown(authority, theirs)
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await here.shown(authority, others)
        await here.swapped(CLIENT_CA, **own, ca_crt=new.certificate)
        assert not here.tls.refused()[CLIENT_CA]
        assert await here.shown(authority, others)
        assert await here.shown(authority)
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await here.shown(authority, theirs)


async def test_a_flaw_in_the_ca_does_not_hold_up_a_new_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, new = authority.issue(), authority.issue()
    start = {"tls_crt": pair.certificate, "tls_key": pair.key, "ca_crt": authority.certificate}
    async with world(tmp_path, **start) as here:
        await here.swapped(PAIR, tls_crt=new.certificate, tls_key=new.key, ca_crt="nonsense")
        await until(lambda: here.tls.refused() == {PAIR: False, CLIENT_CA: True})
        assert await here.shown(authority) == der_of(new)


async def test_files_that_are_written_in_turn_are_taken_once_both_are_there(tmp_path: Path) -> None:
    """No Secret: a script that copies one file over the other, and then its key."""
    authority = Authority(tmp_path)
    old, new = authority.issue(), authority.issue()
    here = Pair(tmp_path / "own" / "tls.crt", tmp_path / "own" / "tls.key")
    here.key.parent.mkdir()
    for source, target in zip(old, here, strict=True):
        target.write_text(source.read_text())
    tls = TlsRotation(TlsFiles(*here), DirectoryWatch(Path("/")))
    tls.load()
    running = asyncio.create_task(tls.run())
    try:
        here.certificate.write_text(new.certificate.read_text())
        await asyncio.sleep(0)
        here.key.write_text(new.key.read_text())
        await until(lambda: tls.loads[PAIR] == 2)
        assert not tls.troubles
    finally:
        running.cancel()
