"""The HTTP port, asked by a real client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from vmsvc_grpc.metrics import Metric, Metrics
from vmsvc_grpc.server.http.server import HttpServer


class State:
    """What the port is told."""

    reason: str | None = "not synced"
    troubles: tuple[str, ...] = ()


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
async def url(state: State) -> AsyncIterator[str]:
    metrics = Metrics()
    metrics.bind_one(Metric.SYNCED, lambda: state.reason is None)
    metrics.bind(Metric.CALLS, lambda: {("/a.B/C", "OK"): 3})
    server = HttpServer(lambda: state.reason, metrics.page, troubles=lambda: state.troubles)
    port = await server.start("127.0.0.1", 0)
    yield f"http://127.0.0.1:{port}"
    await server.stop()


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


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
    assert 'vmsvc_grpc_calls_total{code="OK",method="/a.B/C"} 3.0\n' in page
    assert "process_resident_memory_bytes" in page


async def test_another_path_is_not_found(url: str) -> None:
    assert (await get(f"{url}/"))[0] == 404
