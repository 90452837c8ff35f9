"""The HTTP port, asked by a real client."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import parser as prometheus
from prometheus_client.openmetrics import parser as openmetrics

from tests.gate import RightsGate
from tests.integration.serving import PATIENCE_S, until
from vmsvc_grpc.metrics import Metric, Metrics
from vmsvc_grpc.server.access.needs import UrlNeed
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.http.server import HttpServer, _is_here
from vmsvc_grpc.server.limits import Limits

# A pair for tests, good for 127.0.0.1 and a hundred years.
CERTIFICATE = Path(__file__).parent / "tls" / "certificate.pem"


class State:
    """What the port is told."""

    reason: str | None = "not synced"
    troubles: tuple[str, ...] = ()


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def counts() -> ServerCounts:
    return ServerCounts()


LIMITS = Limits(http_connections_max=4, http_request_s=0.5)


@pytest.fixture
async def url(state: State, counts: ServerCounts) -> AsyncIterator[str]:
    metrics = Metrics()
    metrics.bind_one(Metric.SYNCED, lambda: state.reason is None)
    metrics.bind(Metric.CALLS, lambda: {("unary", "a.B", "C", "OK"): 3})
    server = HttpServer(
        lambda: state.reason, metrics.page, LIMITS, counts, troubles=lambda: state.troubles
    )
    port = await server.start("127.0.0.1", 0)
    yield f"http://127.0.0.1:{port}"
    await server.stop()


async def get(url: str, **headers: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(url) as response,
    ):
        return response.status, await response.text()


async def test_all_addresses_are_those_of_both_families(counts: ServerCounts) -> None:
    server = HttpServer(lambda: None, Metrics().page, LIMITS, counts)
    port = await server.start("::", 0)
    for host in ("127.0.0.1", "[::1]"):
        assert await get(f"http://{host}:{port}/livez") == (200, "ok\n")
    await server.stop()


async def test_alive_whatever_the_cache_says(url: str) -> None:
    """linkerd2 #10036, #8245: liveness killed the process while it synced."""
    assert await get(f"{url}/livez") == (200, "ok\n")


async def test_ready_only_while_nothing_speaks_against_it(url: str, state: State) -> None:
    assert await get(f"{url}/readyz") == (503, "not synced\n")
    state.reason = None
    assert await get(f"{url}/readyz") == (200, "ok\n")
    state.reason = "draining"
    assert await get(f"{url}/readyz") == (503, "draining\n")


async def test_says_what_is_wrong_whether_ready_or_not(url: str, state: State) -> None:
    state.troubles = ("a.yaml: is broken", "b.yaml: is left out")
    page = "a.yaml: is broken\nb.yaml: is left out\n"
    assert await get(f"{url}/readyz") == (503, f"not synced\n{page}")
    state.reason = None
    assert await get(f"{url}/readyz") == (200, f"ok\n{page}")


async def test_metrics_are_read_when_scraped(url: str, state: State) -> None:
    assert "vmsvc_synced 0.0\n" in (await get(f"{url}/metrics"))[1]
    state.reason = None
    status, page = await get(f"{url}/metrics")
    assert status == 200
    assert "vmsvc_synced 1.0\n" in page
    labels = 'grpc_code="OK",grpc_method="C",grpc_service="a.B",grpc_type="unary"'
    assert f"grpc_server_handled_total{{{labels}}} 3.0\n" in page
    assert "process_resident_memory_bytes" in page


async def test_another_path_is_not_found(url: str) -> None:
    assert (await get(f"{url}/"))[0] == 404


async def opened(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which nothing has been said."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


SLOW = {
    "says nothing": b"",
    "sends half of its headers": b"GET /livez HTTP/1.1\r\nHost: x\r\n",
    "sends half of a body": b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
}


@pytest.mark.parametrize("what", SLOW)
async def test_a_client_that_is_slow_is_ended_in_time(
    what: str, url: str, counts: ServerCounts, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await opened(url)
    writer.write(SLOW[what])
    async with asyncio.timeout(PATIENCE_S):
        with suppress(ConnectionError):
            await reader.read()
    assert what == "sends half of a body" or counts.refusals == {"http_request_s": 1}
    assert await get(f"{url}/livez") == (200, "ok\n")
    await closed(writer)
    assert not caplog.records


async def test_one_connection_too_many_ends_the_oldest(url: str, counts: ServerCounts) -> None:
    held = [await opened(url) for _ in range(4)]
    for _ in range(3):
        assert await get(f"{url}/livez") == (200, "ok\n")
    assert counts.refusals["http_connections_max"] == 1, "an answered one leaves its room"
    for reader, _ in held:
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionError):
                assert await reader.read() == b""
    assert counts.refusals == {"http_connections_max": 1, "http_request_s": 3}
    assert await get(f"{url}/livez") == (200, "ok\n")
    for _, writer in held:
        await closed(writer)


async def test_a_connection_has_one_answer(url: str) -> None:
    reader, writer = await opened(url)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert b"Connection: close" in answer
    await closed(writer)


@pytest.mark.parametrize("path", ["/livez", "/none"])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param(b"GET %b HTTP/1.1\r\nExpect: x\r\n", 417, id="expects what we do not know"),
        pytest.param(
            b"POST %b HTTP/1.1\r\nExpect: x\r\nContent-Length: 9\r\n", 417, id="with a body"
        ),
        pytest.param(
            b"GET %b HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n",
            0,
            id="a body at last",
        ),
        pytest.param(b"GET %b HTTP/1.1\r\nContent-Length: 9\r\n", 0, id="a body"),
        pytest.param(b"POST %b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", 0, id="chunks"),
        pytest.param(b"GET %b HTTP/1.0\r\nConnection: keep-alive\r\n", 0, id="keeps alive"),
    ],
)
async def test_an_answer_ends_its_connection_although_the_body_does_not_come(
    fields: bytes, status: int, path: str, counts: ServerCounts
) -> None:
    server = HttpServer(lambda: None, Metrics().page, Limits(http_request_s=3_600), counts)
    port = await server.start("127.0.0.1", 0)
    reader, writer = await opened(f"http://127.0.0.1:{port}")
    try:
        writer.write(fields % path.encode() + b"Host: x\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
    finally:
        await closed(writer)
        await server.stop()
    if status:
        assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"\r\nConnection: close\r\n") == 1
    assert not counts.refusals


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", id="TLS"),
        pytest.param(b"GET /livez HTTP/9.9\r\n\r\n", id="a version"),
        pytest.param(b"G\x00T / HTTP/1.1\r\n\r\n", id="a method"),
        pytest.param(b"GET /\xff\xfe HTTP/1.1\r\nHost: \xff\r\nX\xff: \xff\r\n\r\n", id="bytes"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", id="a long header"),
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", id="a length"),
        pytest.param(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz", id="a chunk"),
        pytest.param(
            b"POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nHost: x\r\n"
            b"Content-Length: 4\r\n\r\nnone",
            id="an encoding",
        ),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
    ],
)
async def test_what_is_no_http_ends_its_connection_and_no_line_tells_of_it(
    said: bytes, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await opened(url)
    writer.write(said)
    async with asyncio.timeout(PATIENCE_S):
        with suppress(ConnectionError):
            await reader.read()
    await closed(writer)
    assert await get(f"{url}/livez") == (200, "ok\n")
    assert not caplog.records


async def test_nothing_lingers_at_the_end() -> None:
    counts = ServerCounts()
    tasks = asyncio.all_tasks()
    server = HttpServer(lambda: None, Metrics().page, Limits(), counts)
    url = f"http://127.0.0.1:{await server.start('127.0.0.1', 0)}"
    held = [await opened(url) for _ in SLOW]
    for (_, writer), said in zip(held, SLOW.values(), strict=True):
        writer.write(said)
    assert await get(f"{url}/livez") == (200, "ok\n")
    await server.stop()
    for reader, writer in held:
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionError):
                await reader.read()
        await closed(writer)
    await until(lambda: not asyncio.all_tasks() - tasks - {asyncio.current_task()})
    with pytest.raises(OSError, match="onnect"):
        await opened(url)
    assert not counts.refusals, "they did not have to wait for their time"


@pytest.mark.parametrize(
    ("accept", "open_metrics"),
    [
        pytest.param("", False, id="nothing asked for"),
        pytest.param("*/*", False, id="anything"),
        pytest.param(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "text/plain;version=0.0.4;q=0.4,*/*;q=0.1",
            True,
            id="as Prometheus asks",
        ),
    ],
)
async def test_metrics_are_openmetrics_where_that_is_asked_for(
    accept: str, open_metrics: bool, url: str
) -> None:
    headers = {"Accept": accept} if accept else {}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/metrics", headers=headers) as response,
    ):
        page, kind = await response.text(), response.headers["Content-Type"]
    if open_metrics:
        assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        parse = openmetrics.text_string_to_metric_families
    else:
        assert kind == "text/plain; version=0.0.4; charset=utf-8"
        parse = prometheus.text_string_to_metric_families
    families = {family.name: family for family in parse(page)}  # type: ignore[no-untyped-call]
    (calls,) = families["grpc_server_handled"].samples
    assert calls.value == 3


def served() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_name("key.pem"))
    return context


@pytest.fixture
async def secure(state: State, counts: ServerCounts) -> AsyncIterator[int]:
    """The port of one with TLS."""
    server = HttpServer(
        lambda: state.reason, Metrics().page, LIMITS, counts, tls=served, troubles=tuple
    )
    yield await server.start("127.0.0.1", 0)
    await server.stop()


async def test_over_tls_the_same_is_answered(secure: int, state: State) -> None:
    trust = ssl.create_default_context(cafile=CERTIFICATE)
    url = f"https://127.0.0.1:{secure}"
    async with aiohttp.ClientSession() as session:
        for path, status in (("/livez", 200), ("/readyz", 503), ("/metrics", 200)):
            async with session.get(url + path, ssl=trust) as response:
                assert (response.status, bool(await response.text())) == (status, True)
        state.reason = None
        async with session.get(f"{url}/readyz", ssl=trust) as response:
            assert (response.status, await response.text()) == (200, "ok\n")


def taken_unread(port: int) -> int:
    """How many bytes the system takes for a server that does not read meanwhile."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.settimeout(0.1)
        taken = 0
        with suppress(TimeoutError):
            while True:
                taken += client.send(bytes(4096))
    return taken


async def test_little_comes_at_once_over_tls(secure: int) -> None:
    """All of it is decrypted in one turn: 13 MB of KeyUpdates on 32 connections took 9 s."""
    assert 0 < taken_unread(secure) <= 32 * 1024


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_handshake_that_does_not_end_is_ended_and_counts(
    secure: int, counts: ServerCounts, said: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", secure)
    writer.write(said)
    async with asyncio.timeout(PATIENCE_S):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    await until(lambda: counts.refusals == {"http_request_s": 1})


async def test_one_handshake_too_many_ends_the_oldest(secure: int, counts: ServerCounts) -> None:
    waiting = [await asyncio.open_connection("127.0.0.1", secure) for _ in range(5)]
    async with asyncio.timeout(PATIENCE_S):
        with suppress(ConnectionError):
            assert await waiting[0][0].read() == b""
    assert counts.refusals["http_connections_max"] == 1
    for _, writer in waiting:
        writer.close()


async def test_plain_http_where_tls_is_due_is_ended(secure: int, url: str) -> None:
    with pytest.raises(aiohttp.ClientError):
        await get(f"http://127.0.0.1:{secure}/livez")
    assert await get(f"{url}/livez") == (200, "ok\n")


async def test_a_server_that_stops_leaves_no_handshake_behind(
    state: State, counts: ServerCounts
) -> None:
    tasks = asyncio.all_tasks()
    server = HttpServer(lambda: state.reason, Metrics().page, LIMITS, counts, tls=served)
    port = await server.start("127.0.0.1", 0)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    await until(lambda: asyncio.all_tasks() - tasks)
    await server.stop()
    writer.close()
    await until(lambda: not asyncio.all_tasks() - tasks)


@pytest.mark.parametrize(
    ("remote", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("2001:db8::1", False),
        ("fe80::1%eth0", False),
        ("", False),
        (None, False),
    ],
)
def test_who_is_told_what_is_wrong(remote: str | None, here: bool) -> None:
    assert _is_here(remote) is here


async def test_others_are_told_only_whether_it_is_ready(
    state: State, counts: ServerCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmsvc_grpc.server.http.server._is_here", lambda _: False)
    state.troubles = ("shop.yaml: cannot be read",)
    server = HttpServer(
        lambda: state.reason, Metrics().page, LIMITS, counts, troubles=lambda: state.troubles
    )
    url = f"http://127.0.0.1:{await server.start('127.0.0.1', 0)}/readyz"
    assert await get(url) == (503, "not ready\n")
    state.reason = None
    assert await get(url) == (200, "ok\n")
    await server.stop()


METRICS = UrlNeed("get", "/metrics")


@asynccontextmanager
async def guarded(gate: RightsGate) -> AsyncIterator[str]:
    """The port of a server with a gate."""
    server = HttpServer(lambda: None, Metrics().page, LIMITS, ServerCounts(), gate=gate)
    port = await server.start("127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop()
    assert not gate.passes, "every pass is given back"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 401, id="no credentials"),
        pytest.param({"Authorization": "Basic YTph"}, 401, id="another scheme"),
        pytest.param({"Authorization": "Bearer stolen"}, 401, id="a token of nobody"),
        pytest.param({"Authorization": "Bearer nobody"}, 403, id="denied"),
        pytest.param({"Authorization": "Bearer admin"}, 200, id="allowed"),
    ],
)
async def test_the_page_is_for_those_who_may_get_it(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], status: int
) -> None:
    monkeypatch.setattr("vmsvc_grpc.server.http.server._is_here", lambda _: False)
    gate = RightsGate()
    gate.admit("admin", METRICS)
    gate.admit("nobody")
    async with guarded(gate) as url:
        answered, text = await get(f"{url}/metrics", **headers)
        assert answered == status
        assert ("python_gc" in text) is (status == 200)
        assert "stolen" not in text


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"Bearer admin", b"Bearer admin"], id="two"),
        pytest.param([b"Bearer \xff"], id="not ASCII"),
        pytest.param([b""], id="nothing"),
    ],
)
async def test_the_page_is_not_for_who_is_unclear(
    monkeypatch: pytest.MonkeyPatch, lines: list[bytes]
) -> None:
    monkeypatch.setattr("vmsvc_grpc.server.http.server._is_here", lambda _: False)
    gate = RightsGate()
    gate.admit("admin", METRICS)
    async with guarded(gate) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        fields = b"".join(b"Authorization: %b\r\n" % line for line in lines)
        writer.write(b"GET /metrics HTTP/1.0\r\n%b\r\n" % fields)
        said = await reader.read()
        assert said.startswith(b"HTTP/1.0 401 ")
        assert b"`authorization`" in said
        writer.close()


async def test_the_page_waits_for_a_verdict_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vmsvc_grpc.server.http.server._is_here", lambda _: False)
    gate = RightsGate()
    gate.admit("admin", METRICS)
    gate.open = False
    async with guarded(gate) as url:
        bearer = {"Authorization": "Bearer admin"}
        assert (await get(f"{url}/metrics", **bearer))[0] == 503
        waiting = asyncio.create_task(get(f"{url}/metrics", **bearer))
        while not waiting.done():  # A slow machine may take longer than the page waits.
            await until(lambda: gate.passes or waiting.done())
            gate.answer()
            await asyncio.wait([waiting], timeout=0.01)
        assert (await waiting)[0] in (200, 503)
        assert (await get(f"{url}/metrics", **bearer))[0] == 200


async def test_what_a_proxy_beside_hands_on_is_not_from_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mesh's proxy connects from a loopback address to one that other machines reach."""
    monkeypatch.setattr(
        "vmsvc_grpc.server.http.server._is_here", lambda address: address == "127.0.0.6"
    )
    async with guarded(RightsGate()) as url:
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, local_addr=("127.0.0.6", 0)
        )
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.0 401 ")
        writer.close()


async def test_clients_on_this_machine_need_no_right() -> None:
    async with guarded(RightsGate()) as url:
        assert (await get(f"{url}/metrics"))[0] == 200
