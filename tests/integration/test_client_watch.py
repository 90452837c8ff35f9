"""Watches of both clients on a server that breaks off, lies, or asks to wait.

One suite for both: what a user sees is the same.
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
from tests.unit.client.told import (
    DB,
    SYNCED,
    WEB,
    current,
    delta,
    endpoint,
    not_found,
    snapshot,
)
from vmsvc import (
    AsyncClient,
    AsyncWatch,
    Client,
    Disconnected,
    Event,
    PermissionDeniedError,
    ProtocolError,
    RetryPolicy,
    ServiceState,
    Synced,
    UnavailableError,
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


def test_states_are_told_as_they_change(server: ScriptedServer, reader: Reader) -> None:
    with waiting(reader) as first:
        stream = server.accept()
        stream.send(snapshot(WEB, 1, "a"), not_found(DB), SYNCED)
    assert list(map(told, first)) == ["shop/web a"]
    assert take(reader, 1) == ["synced"]
    assert reader.synced
    stream.send(delta(WEB, 2, upserted=[endpoint("b")]), delta(WEB, 3, removed=["a"]))
    assert take(reader, 2) == ["shop/web a b", "shop/web b"]


def test_a_server_that_is_gone_and_comes_back_with_nothing_changed_tells_no_state(
    open_reader: Open,
) -> None:
    with ScriptedServer() as server:
        reader = open_reader(server.address, AT_ONCE)
        with waiting(reader):
            server.accept().send(snapshot(WEB, 1, "a"), SYNCED)
        assert take(reader, 1) == ["synced"]
    assert take(reader, 1) == ["disconnected: UNAVAILABLE"]
    assert not reader.synced
    assert [state.endpoints[0].address for state in reader.states.values()] == ["a"]

    with ScriptedServer(server.port) as server, ThreadPoolExecutor(1) as thread:
        rest = thread.submit(until_synced, reader)
        stream = server.accept()
        assert stream.revisions == {WEB: "a"}
        stream.send(current(WEB, 1, "a"), SYNCED)
        assert rest.result(PATIENCE_S) == ["synced"]
        stream.send(delta(WEB, 2, removed=["a"]))
        assert take(reader, 1) == ["shop/web"]


def test_services_that_went_while_away_are_told_absent(
    server: ScriptedServer, reader: Reader
) -> None:
    with waiting(reader):
        stream = server.accept()
        stream.send(snapshot(WEB, 1, "a"), snapshot(DB, 2, "b"), SYNCED)
        stream.fail(grpc.StatusCode.UNAVAILABLE, "about to stop")
    with ThreadPoolExecutor(1) as thread:
        rest = thread.submit(until_synced, reader)
        assert rest.result(PATIENCE_S) == ["shop/db b", "synced"]
        rest = thread.submit(until_synced, reader)
        stream = server.accept()
        assert stream.revisions == {WEB: "a", DB: "b"}
        stream.send(not_found(WEB), current(DB, 1, "b"), SYNCED)
        assert rest.result(PATIENCE_S) == ["shop/web absent", "synced"]
    assert list(reader.states) == [DB]


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        None,
    ],
    ids=lambda code: code.name if code else "OK",
)
def test_a_stream_that_ends_is_opened_again(
    server: ScriptedServer, reader: Reader, code: grpc.StatusCode | None
) -> None:
    with waiting(reader) as first:
        stream = server.accept()
        if code is None:
            stream.finish()
        else:
            stream.fail(code, "why")
    assert list(map(told, first)) == [f"disconnected: {code.name if code else 'OK'}"]
    with waiting(reader) as second:
        server.accept().send(SYNCED)
    assert list(map(told, second)) == ["synced"]


def test_a_code_that_no_retry_mends_ends_the_watch(server: ScriptedServer, reader: Reader) -> None:
    def fail() -> None:
        server.accept().fail(grpc.StatusCode.PERMISSION_DENIED, "not yours")

    with ThreadPoolExecutor(1) as thread:
        thread.submit(fail)
        with pytest.raises(PermissionDeniedError, match="not yours"):
            reader.next()
    assert reader.next() is None


def test_retry_info_is_waited_for(server: ScriptedServer, open_reader: Open) -> None:
    reader = open_reader(server.address, RetryPolicy(backoff_initial_s=0, backoff_max_s=0.1))
    with waiting(reader) as first:
        hint = RetryInfo(retry_delay=Duration(nanos=300_000_000))
        call = server.accept()
        began = time.monotonic()  # The client waits from the failure on, seen here or not.
        call.fail(grpc.StatusCode.UNAVAILABLE, "not filled yet", hint)
    [event] = first
    assert isinstance(event, Disconnected)
    assert event.retry_in_s == pytest.approx(0.3)
    assert isinstance(event.error, UnavailableError)
    with waiting(reader):
        server.accept().send(SYNCED)
    assert time.monotonic() - began >= 0.3


def test_a_delta_that_does_not_follow_is_answered_by_asking_anew(
    server: ScriptedServer, reader: Reader
) -> None:
    with waiting(reader):
        wrong = server.accept()
        wrong.send(snapshot(WEB, 1, "a"), SYNCED, delta(WEB, 2, removed=["z"]))
    assert take(reader, 1) == ["synced"]
    event = reader.next()
    assert isinstance(event, Disconnected)
    assert isinstance(event.error, ProtocolError)
    with ThreadPoolExecutor(1) as thread:
        rest = thread.submit(until_synced, reader)
        stream = server.accept()
        assert stream.revisions == {}
        stream.send(snapshot(WEB, 1, "a", "b"), SYNCED)
        assert rest.result(PATIENCE_S) == ["shop/web a b", "synced"]
    assert wrong.over.wait(PATIENCE_S)


def test_a_reader_that_stalls_leaves_most_with_the_server(
    server: ScriptedServer, reader: Reader
) -> None:
    """Without the channel's settings some 20,000 small messages go into its buffers."""
    with waiting(reader):
        stream = server.accept()
        stream.send(*(snapshot(WEB, version) for version in range(1, 10_001)))
    before = -1
    while stream.taken != before:
        before = stream.taken
        time.sleep(0.2)
    assert stream.taken < 3_000


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
