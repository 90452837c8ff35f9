"""The page's port, asked by a client that is no browser: what it answers, refuses and bounds."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.integration.serving import PATIENCE_S, until
from tests.unit.leavings import leavings
from tests.unit.objects import service, spec, vm
from tests.unit.server.endpoint_service.watching import emptied, synced_cache
from tests.unit.server.page.telling import facts
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Key, ServicePort
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.endpoint_service.encode import Encoder
from vmsvc_grpc.server.endpoint_service.lookup import Lookup
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.page.page import Page
from vmsvc_grpc.server.page.server import PageServer

LIMITS = Limits(page_streams_max=3, http_request_s=0.5, connection_write_s=1.0)
SERVICES = {"view": "services"}


class Serving:
    """A page over a cache that a test changes."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.cache = synced_cache(service(), vm("a", "10.0.0.1"))
        self.counts = ServerCounts()
        lookup = Lookup(self.cache, Encoder(self.counts), limits)
        page = Page(self.cache, lookup, lambda _kind, _key: (), limits, facts())
        self.server = PageServer(page, limits, self.counts)
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def events(self, query: dict[str, str]) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
        """The events of one open page, as they come."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/events", params=query) as response,
        ):
            assert response.status == 200
            assert response.content_type == "text/event-stream"
            yield _events(response.content)


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, Any]]:
    while True:
        async with asyncio.timeout(PATIENCE_S):
            name, data, _ = [await content.readline() for _ in range(3)]
        if not name:
            return
        yield (
            name.decode().strip().removeprefix("event: "),
            json.loads(data.removeprefix(b"data: ")),
        )


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    made = Serving()
    made.port = await made.server.start("127.0.0.1", 0)
    yield made
    await made.server.stop()
    assert made.server._woken == {}


async def names_until(events: AsyncIterator[tuple[str, Any]], last: str) -> list[str]:
    names = []
    async for name, _ in events:
        names.append(name)
        if name == last:
            break
    return names


async def answer(url: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, url) as response,
    ):
        return response.status, dict(response.headers), await response.text()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/services.js", "text/javascript; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml; charset=utf-8"),
    ],
)
async def test_its_files_come_with_a_policy_that_lets_nothing_else_in(
    serving: Serving, path: str, kind: str
) -> None:
    status, headers, text = await answer(serving.url + path)
    assert (status, headers["Content-Type"]) == (200, kind)
    assert text
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("path", ["/", "/events?view=services", "/nothing"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_it_is_read_only(serving: Serving, method: str, path: str) -> None:
    status, headers, _ = await answer(serving.url + path, method)
    assert status in (404, 405)
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/", "/page.js", "/events?view=services", "/nothing"])
async def test_a_strangers_name_for_this_machine_reads_nothing(serving: Serving, path: str) -> None:
    status, headers, text = await answer(serving.url + path, Host="stranger.example")
    assert (status, "people on this machine" in text) == (403, True)
    assert "Access-Control-Allow-Origin" not in headers


async def test_a_strangers_page_reads_nothing(serving: Serving) -> None:
    url = f"{serving.url}/events?view=services"
    for headers in ({"Origin": "http://stranger.example"}, {"Sec-Fetch-Site": "cross-site"}):
        status, _, text = await answer(url, **headers)
        assert status == 403
        assert "shop/web" not in text


async def test_a_change_is_sent_to_each_open_page(serving: Serving) -> None:
    async with serving.events(SERVICES) as one, serving.events(SERVICES) as other:
        for events in (one, other):
            await names_until(events, "complete")
        serving.cache.apply(Apply(vm("b", "10.0.0.2")))
        for events in (one, other):
            async for name, data in events:
                if name == "rows":
                    assert data[0]["ready"] == 2
                    break


async def test_a_page_lasts_longer_than_an_answer_may_take(serving: Serving) -> None:
    async with serving.events(SERVICES) as events:
        await names_until(events, "complete")
        await asyncio.sleep(2 * LIMITS.http_request_s)
        serving.cache.apply(Apply(vm("b", "10.0.0.2")))
        await names_until(events, "rows")
    assert serving.counts.refusals["http_request_s"] == 0


async def test_a_client_that_has_gone_by_the_time_of_its_answer_is_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Seen in Chromium as it goes from view to view: a traceback in the log."""

    async def gone(request: web.Request, _response: web.StreamResponse) -> None:
        assert request.transport is not None
        request.transport.close()

    made = Serving()
    made.server._port._application.on_response_prepare.append(gone)
    made.port = await made.server.start("127.0.0.1", 0)
    for path in ("/events?view=services", "/", "/nothing"):
        with pytest.raises(aiohttp.ClientError):
            await answer(made.url + path)
    await made.server.stop()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert made.server._woken == {}


async def test_one_page_too_many_is_refused_in_words_and_the_others_go_on(
    serving: Serving,
) -> None:
    async with (
        serving.events(SERVICES) as first,
        serving.events(SERVICES),
        serving.events(SERVICES),
    ):
        await until(lambda: len(serving.server._woken) == 3)
        async with serving.events(SERVICES) as refused:
            said = [event async for event in refused]
        assert [name for name, _ in said] == ["refused"]
        assert "page_streams_max" in said[0][1]["text"]
        assert serving.counts.refusals["page_streams_max"] == 1
        assert "complete" in await names_until(first, "complete")
    await until(lambda: not serving.server._woken)
    async with serving.events(SERVICES) as events:
        assert "complete" in await names_until(events, "complete")


async def test_a_page_that_is_closed_leaves_nothing(serving: Serving) -> None:
    for query in (SERVICES, {"view": "service", "name": "shop/web"}):
        async with serving.events(query) as events:
            await names_until(events, "status")
    await until(lambda: not serving.server._woken)
    emptied(serving.cache)
    assert leavings(serving.cache) == []


async def test_a_page_that_reads_nothing_delays_nobody_and_is_ended(serving: Serving) -> None:
    many = [service(Key("shop", f"s-{n}"), spec({"app": "x"})) for n in range(2000)]
    for one in many:
        serving.cache.apply(Apply(one))
    (listening,) = serving.server._port._listening[0].sockets
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)  # Or the system keeps MBs.
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(stalled, ("127.0.0.1", serving.port))
    request = b"GET /events?view=services HTTP/1.1\r\nHost: localhost\r\n\r\n"
    await loop.sock_sendall(stalled, request)
    await until(lambda: serving.server._woken)
    async with serving.events(SERVICES) as events:
        assert "complete" in await names_until(events, "complete")
    # While it has room the stalled one is sent something: it is ended once it has none.
    n = 0
    async with asyncio.timeout(PATIENCE_S):
        while serving.server._woken:
            n += 1
            changed = spec({"app": "x"}, ports=(ServicePort("http", "TCP", 80, n),))
            for one in many:
                serving.cache.apply(Apply(service(one.key, changed)))
            await asyncio.sleep(0.1)
    stalled.close()


async def test_at_the_end_each_page_is_told_and_no_task_is_left() -> None:
    before = asyncio.all_tasks()
    made = Serving()
    made.port = await made.server.start("127.0.0.1", 0)
    async with made.events(SERVICES) as events:
        await names_until(events, "complete")
        stopping = asyncio.create_task(made.server.stop())
        assert (await names_until(events, "ending"))[-1] == "ending"
        await stopping
    assert made.server._woken == {}
    await until(lambda: asyncio.all_tasks() <= before)
    with pytest.raises(aiohttp.ClientError):
        await answer(made.url)


async def test_many_pages_of_many_services_take_one_slice_a_turn() -> None:
    """However many look, the others have their turn after each slice."""
    made = Serving(Limits())
    for n in range(3000):
        made.cache.apply(Apply(service(Key("shop", f"s-{n}"), spec({"app": f"s-{n}"}))))
    made.port = await made.server.start("127.0.0.1", 0)
    slices = turns = 0
    next_ = type(made.server._page.open(SERVICES, lambda: None)).next

    def counted(stream: Any, now: float) -> Any:
        nonlocal slices
        slices += 1
        return next_(stream, now)

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vmsvc_grpc.server.page.views.PageStream.next", counted)
        turning = asyncio.create_task(turn())

        async def visit() -> None:
            async with made.events(SERVICES) as events:
                await names_until(events, "complete")

        await asyncio.gather(*(visit() for _ in range(10)))
        turning.cancel()
    assert slices > 10 * 15
    assert turns >= slices
    await made.server.stop()


async def test_a_cache_that_is_not_filled_yet_is_waited_for() -> None:
    made = Serving()
    made.cache = Cache(made.cache.rules)
    lookup = Lookup(made.cache, Encoder(made.counts), LIMITS)
    told = facts(not_ready=lambda: "not synced: VirtualMachine not listed")
    page = Page(made.cache, lookup, lambda _kind, _key: (), LIMITS, told)
    made.server = PageServer(page, LIMITS, made.counts)
    made.port = await made.server.start("127.0.0.1", 0)
    async with made.events(SERVICES) as events:
        async for name, data in events:
            assert (name, data["not_ready"]) == ("status", "not synced: VirtualMachine not listed")
            break
    with suppress(asyncio.TimeoutError):
        await made.server.stop()
