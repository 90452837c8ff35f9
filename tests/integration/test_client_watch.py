"""Watches of both clients as a program holds them: states, errors, closing, cancelling.

What they ask and show of every server is in clients/conformance.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo

from tests.integration.scripted import ScriptedServer, Stream
from tests.program import PATIENCE_S
from tests.unit.client.told import DB, SYNCED, WEB, current, delta, not_found, snapshot
from vmsvc import (
    AsyncClient,
    AsyncWatch,
    Client,
    Disconnected,
    Event,
    PermissionDeniedError,
    RetryPolicy,
    ServiceState,
    Synced,
)

AT_ONCE = RetryPolicy(backoff_initial_s=0.02, backoff_max_s=0.1)
T = TypeVar("T")


class Reader(Protocol):
    """A watch on all of `shop` as a test reads it."""

    def next(self) -> Event | None:
        """The next event; None where the iteration is over."""

    def close_watch(self) -> None: ...
    def close_client(self) -> None: ...
    @property
    def states(self) -> Mapping[str, ServiceState]: ...
    @property
    def synced(self) -> bool: ...


class SyncReader:
    def __init__(self, server: str, retry: RetryPolicy) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._client = Client(server, retry=retry)
        self._watch = self._client.watch(namespaces="shop")
        self._events = self._watch.events()

    def next(self) -> Event | None:
        return self._thread.submit(next, self._events, None).result(PATIENCE_S)

    def close_watch(self) -> None:
        self._watch.close()

    def close_client(self) -> None:
        self._client.close()

    def close(self) -> None:
        self._client.close()
        self._thread.shutdown()

    @property
    def states(self) -> Mapping[str, ServiceState]:
        return self._watch.states

    @property
    def synced(self) -> bool:
        return self._watch.synced


class AsyncReader:
    def __init__(self, server: str, retry: RetryPolicy) -> None:
        self._runner = asyncio.Runner()
        self._thread = threading.Thread(target=self._runner.get_loop().run_forever)
        self._thread.start()
        self._client = AsyncClient(server, retry=retry)
        self._watch = self._client.watch(namespaces="shop")
        self._events = self._watch.events()

    def next(self) -> Event | None:
        async def following() -> Event | None:
            return await anext(self._events, None)

        return asyncio.run_coroutine_threadsafe(following(), self._loop).result(PATIENCE_S)

    def close_watch(self) -> None:
        asyncio.run_coroutine_threadsafe(self._watch.aclose(), self._loop).result(PATIENCE_S)

    def close_client(self) -> None:
        asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop).result(PATIENCE_S)

    def close(self) -> None:
        self.close_client()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._runner.close()

    @property
    def states(self) -> Mapping[str, ServiceState]:
        return self._watch.states

    @property
    def synced(self) -> bool:
        return self._watch.synced

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._runner.get_loop()


KINDS: dict[str, type[SyncReader | AsyncReader]] = {
    "async": AsyncReader,
    "sync": SyncReader,
}
Open = Callable[[str, RetryPolicy], Reader]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture(params=KINDS)
def open_reader(request: pytest.FixtureRequest) -> Iterator[Open]:
    readers = []

    def opened(server: str, retry: RetryPolicy) -> Reader:
        reader = KINDS[request.param](server, retry)
        readers.append(reader)
        return reader

    yield opened
    for reader in readers:
        reader.close()


@pytest.fixture
def reader(server: ScriptedServer, open_reader: Open) -> Reader:
    return open_reader(server.address, AT_ONCE)


@contextmanager
def waiting(reader: Reader) -> Iterator[list[Event | None]]:
    """The next event, read while the block does something; in the list after it."""
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(reader.next)
        events: list[Event | None] = []
        yield events
        events.append(result.result(PATIENCE_S))


def told(event: Event | None) -> str:
    """An event as one short text."""
    match event:
        case None:
            return "over"
        case Synced():
            return "synced"
        case Disconnected(error):
            return f"disconnected: {error.code.name}"
        case ServiceState(absence=None):
            return f"{event.service} {' '.join(e.address for e in event.endpoints)}".rstrip()
        case _:
            return f"{event.service} absent"


def take(reader: Reader, count: int) -> list[str]:
    return [told(reader.next()) for _ in range(count)]


def until_synced(reader: Reader) -> list[str]:
    """What is told up to and with `synced`, however often the stream was lost in between."""
    deadline = time.monotonic() + PATIENCE_S
    texts = []
    while time.monotonic() < deadline:
        texts.append(told(reader.next()))
        if texts[-1] == "synced":
            return [text for text in texts if not text.startswith("disconnected")]
    raise AssertionError(f"not synced in time: {texts}")


def test_states_are_kept_while_the_server_is_away_and_said_not_to_be_synced(
    open_reader: Open,
) -> None:
    with ScriptedServer() as server:
        reader = open_reader(server.address, AT_ONCE)
        with waiting(reader):
            server.accept().send(snapshot(WEB, 1, "a"), snapshot(DB, 2, "b"), SYNCED)
        assert take(reader, 2) == ["shop/db b", "synced"]
        synced_before = reader.synced
    assert take(reader, 1) == ["disconnected: UNAVAILABLE"]
    assert (synced_before, reader.synced) == (True, False)
    assert sorted(reader.states) == [DB, WEB]

    with ScriptedServer(server.port) as server, ThreadPoolExecutor(1) as thread:
        rest = thread.submit(until_synced, reader)
        stream = server.accept()
        assert stream.revisions == {WEB: "a", DB: "b"}
        stream.send(not_found(WEB), current(DB, 1, "b"), SYNCED)
        assert rest.result(PATIENCE_S) == ["shop/web absent", "synced"]
    assert reader.synced
    assert list(reader.states) == [DB]


def test_a_code_that_no_retry_mends_ends_the_watch(server: ScriptedServer, reader: Reader) -> None:
    def fail() -> None:
        server.accept().fail(grpc.StatusCode.PERMISSION_DENIED, "not yours")

    with ThreadPoolExecutor(1) as thread:
        thread.submit(fail)
        with pytest.raises(PermissionDeniedError, match="not yours"):
            reader.next()
    assert reader.next() is None


@pytest.mark.parametrize("what", ["watch", "client"])
def test_closing_ends_a_reader_that_waits_for_a_message(
    server: ScriptedServer, reader: Reader, what: str
) -> None:
    with waiting(reader) as events:
        stream = server.accept()
        _close(reader, what)
    assert events == [None]
    assert reader.next() is None
    assert stream.over.wait(PATIENCE_S)


@pytest.mark.parametrize("what", ["watch", "client"])
def test_closing_ends_a_reader_that_waits_to_try_again(
    server: ScriptedServer, open_reader: Open, what: str
) -> None:
    hour = RetryPolicy(retry_after_max_s=3600)
    reader = open_reader(server.address, hour)
    with waiting(reader):
        hint = RetryInfo(retry_delay=Duration(seconds=3600))
        server.accept().fail(grpc.StatusCode.UNAVAILABLE, "come back later", hint)
    with waiting(reader) as events:
        _close(reader, what)
    assert events == [None]


def _close(reader: Reader, what: str) -> None:
    if what == "watch":
        reader.close_watch()
    else:
        reader.close_client()


# -- What only one of the two can do --


async def no_task_left() -> None:
    """Wait until no task runs but the test's own, or fail."""
    deadline = time.monotonic() + PATIENCE_S
    while len(left := asyncio.all_tasks()) > 1:
        assert time.monotonic() < deadline, f"tasks left: {left}"
        await asyncio.sleep(0.01)


async def read_state(watch: AsyncWatch) -> ServiceState:
    return await anext(watch)


async def test_a_reader_that_is_cancelled_can_read_on(server: ScriptedServer) -> None:
    async with AsyncClient(server.address) as client:
        watch = client.watch(WEB)
        first = asyncio.create_task(read_state(watch))
        stream = await asyncio.to_thread(server.accept)
        stream.send(snapshot(WEB, 1, "a"))
        assert (await first).service == WEB
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 0.05)
        assert await asyncio.to_thread(stream.over.wait, PATIENCE_S)
        again = asyncio.create_task(read_state(watch))
        stream = await asyncio.to_thread(server.accept)
        assert stream.revisions == {WEB: "a"}
        stream.send(current(WEB, 9, "a"), SYNCED, delta(WEB, 10, removed=["a"]))
        assert (await again).endpoints == ()


async def test_cancelling_while_it_connects_leaves_no_task(server: ScriptedServer) -> None:
    async with AsyncClient(server.address) as client:
        reading = asyncio.create_task(read_state(client.watch(WEB)))
        await asyncio.sleep(0)
        await cancelled(reading)


async def test_cancelling_while_it_reads_leaves_no_task(server: ScriptedServer) -> None:
    async with AsyncClient(server.address) as client:
        reading = asyncio.create_task(read_state(client.watch(WEB)))
        await asyncio.to_thread(server.accept)
        await cancelled(reading)


async def test_cancelling_while_it_backs_off_leaves_no_task(server: ScriptedServer) -> None:
    async with AsyncClient(server.address, retry=RetryPolicy(retry_after_max_s=3600)) as client:
        watch = client.watch(WEB)
        losing = asyncio.ensure_future(anext(watch.events()))
        hint = RetryInfo(retry_delay=Duration(seconds=3600))
        stream = await asyncio.to_thread(server.accept)
        stream.fail(grpc.StatusCode.UNAVAILABLE, "come back later", hint)
        assert isinstance(await losing, Disconnected)
        reading = asyncio.create_task(read_state(watch))
        await asyncio.sleep(0)
        await cancelled(reading)


async def cancelled(reading: asyncio.Task[ServiceState]) -> None:
    """Cancel a task that reads, and see that nothing of it is left."""
    assert not reading.done()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await no_task_left()


async def test_a_watch_that_is_dropped_ends_its_stream(server: ScriptedServer) -> None:
    async with AsyncClient(server.address) as client:
        sending = asyncio.create_task(asyncio.to_thread(_send_one, server))
        async for state in client.watch(WEB):
            assert state.service == WEB
            break
        stream = await sending
        gc.collect()
        assert await asyncio.to_thread(stream.over.wait, PATIENCE_S)
        await no_task_left()


def test_a_sync_watch_that_is_dropped_ends_its_stream(server: ScriptedServer) -> None:
    with Client(server.address) as client, ThreadPoolExecutor(1) as thread:
        sending = thread.submit(_send_one, server)
        for state in client.watch(WEB):
            assert state.service == WEB
            break
        gc.collect()
        assert sending.result().over.wait(PATIENCE_S)


def _send_one(server: ScriptedServer) -> Stream:
    stream = server.accept()
    stream.send(snapshot(WEB, 1, "a"))
    return stream


def test_a_closed_sync_client_leaves_no_thread(server: ScriptedServer) -> None:
    before = set(threading.enumerate())
    with Client(server.address) as client, ThreadPoolExecutor(1) as thread:
        sending = thread.submit(_send_one, server)
        assert next(client.watch(WEB)).service == WEB
        sending.result()
    deadline = time.monotonic() + PATIENCE_S
    while left := [t for t in threading.enumerate() if t not in before and not scripted(t)]:
        assert time.monotonic() < deadline, f"threads left: {left}"
        time.sleep(0.01)


def scripted(thread: threading.Thread) -> bool:
    return thread.name.startswith("scripted-server")
