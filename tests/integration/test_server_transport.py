"""The transport by itself: methods that do what ours should never do."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.integration.raw_http2 import END_STREAM, RawClient, message
from tests.integration.serving import PATIENCE_S, SMALL_WINDOW, detail, make_transport, until
from vmsvc_grpc.server.access.gate import OpenGate
from vmsvc_grpc.server.access.needs import OPEN, Needs
from vmsvc_grpc.server.admission import Admission, draining
from vmsvc_grpc.server.call import (
    LATER,
    Call,
    Code,
    EndOfStream,
    Later,
    Making,
    Method,
    RequestBound,
    RpcError,
    StreamMethod,
    UnaryMethod,
    Wake,
)
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import TURN_S, Sessions
from vmsvc_grpc.server.transport import Listener, Transport

OPEN_TO_ALL = Needs(OPEN)

CALLS, KEPT_BY_GRPC = 40, 10
"""How many calls are made; and how many gRPC keeps: of each method the next one and the last."""

WORK_S = 0.005
"""How long it takes to take in a request that is costly."""

UNARY, SERVER, BOTH = "/t.T/Unary", "/t.T/Server", "/t.T/Both"
RETRY = error_details_pb2.RetryInfo()
KINDS = {
    "a fault": (ZeroDivisionError("boom"), grpc.StatusCode.INTERNAL),
    "an error": (RpcError(Code.NOT_FOUND, "none", [RETRY]), grpc.StatusCode.NOT_FOUND),
}


@dataclass
class Toy:
    """A stream that does as told, and keeps what happened to it."""

    open: Callable[[], None] = lambda: None
    receives: Callable[[bytes], None] = lambda _: None
    says: Callable[[], bytes | Later | None] = lambda: None
    makes: Callable[[bytes], bytes | Later] | None = None
    happened: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    wakes: list[Wake] = field(default_factory=list)

    def opened(self, call: Call, wake: Wake) -> Toy:
        self.open()
        self.calls.append(call)
        self.wakes.append(wake)
        return self

    quiet = False
    shared = None

    def receive(self, request: bytes) -> None:
        self.happened.append("receive")
        self.receives(request)

    def half_close(self) -> None:
        self.happened.append("half_close")

    def next_message(self) -> bytes | Later | None:
        self.happened.append("ask")
        return self.says()

    def close(self) -> None:
        self.happened.append("close")

    def methods(self) -> list[Method]:
        return [
            UnaryMethod(UNARY, self._unary, RequestBound.MANY_NAMES, {}, OPEN_TO_ALL),
            StreamMethod(
                SERVER,
                self.opened,
                RequestBound.MANY_NAMES,
                {},
                OPEN_TO_ALL,
                client_streaming=False,
            ),
            StreamMethod(
                BOTH, self.opened, RequestBound.MANY_NAMES, {}, OPEN_TO_ALL, client_streaming=True
            ),
        ]

    def _unary(self, request: bytes, call: Call) -> bytes | Making:
        self.calls.append(call)
        self.receives(request)
        return request if self.makes is None else partial(self.makes, request)


@dataclass
class Running:
    transport: Transport
    counts: ServerCounts
    channel: grpc.aio.Channel
    address: str

    def unary(self, request: bytes = b"", **how: object) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method = self.channel.unary_unary(UNARY)
        return method(request, **how)  # type: ignore[arg-type]  # as given

    def server(self, request: bytes = b"") -> grpc.aio.UnaryStreamCall[bytes, bytes]:
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        method = self.channel.unary_stream(SERVER)
        return method(request)

    def both(self) -> grpc.aio.StreamStreamCall[bytes, bytes]:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = self.channel.stream_stream(BOTH)
        return method()


@asynccontextmanager
async def running(toy: Toy, limits: Limits | None = None) -> AsyncIterator[Running]:
    """The transport on a free port; in the end nothing may be left of any call."""
    tasks = asyncio.all_tasks()
    counts, limits = ServerCounts(), limits or Limits()
    transport = make_transport(
        Sessions(Admission(limits, counts), counts, limits, OpenGate()), limits
    )
    transport.serve(toy.methods())
    address = f"127.0.0.1:{transport.bind(Listener('127.0.0.1:0'))}"
    await transport.start()
    try:
        async with grpc.aio.insecure_channel(address, options=SMALL_WINDOW) as channel:
            yield Running(transport, counts, channel, address)
            await until(lambda: not transport.streams_open)
    finally:
        await transport.stop(0)
    await until(lambda: not asyncio.all_tasks() - tasks - {asyncio.current_task()})
    assert toy.happened.count("close") == len(toy.wakes)


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged by us: gRPC's client has its own to say of a busy event loop."""
    return [record for record in caplog.records if record.name.startswith("vmsvc_grpc")]


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is left in circles stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def of_calls() -> Counter[str]:
    """What there is of calls now, by type: of either transport's, and gRPC's own."""
    http2 = ("UnaryCall", "StreamCall", "RefusedCall", "ClientConnection", "Life")
    types = {"Session", "_Pump", "RPCState", "_ServicerContext", *http2}
    return Counter(name for o in gc.get_objects() if (name := type(o).__name__) in types)


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


async def ending(call: grpc.aio.Call) -> grpc.StatusCode:
    async with asyncio.timeout(PATIENCE_S):
        return await call.code()


@pytest.mark.parametrize("method", ["server", "both"])
async def test_a_stream_that_has_more_work_first_is_asked_again_without_a_wake(method: str) -> None:
    said: list[bytes | Later] = [LATER, LATER, b"done", LATER]
    toy = Toy(says=lambda: said.pop(0) if said else None)
    async with running(toy) as run:
        call = run.server() if method == "server" else run.both()
        if isinstance(call, grpc.aio.StreamStreamCall):
            await call.write(b"")
        assert await call.read() == b"done"
        # Once more at least, as a request may come after all of this was said.
        await until(lambda: toy.happened.count("ask") >= 5)
        call.cancel()


@pytest.mark.parametrize("method", ["server", "both"])
async def test_once_it_has_stopped_no_stream_is_left(method: str) -> None:
    """What the event loop would cancel when it ends, gRPC logs as a fault, with its traceback."""
    toy = Toy(says=lambda: None)
    async with running(toy) as there:
        calls = [there.server() if method == "server" else there.both() for _ in range(300)]
        await until(lambda: len(toy.wakes) == len(calls))
        await there.transport.stop(0)
        assert toy.happened.count("close") == len(calls)
        await asyncio.gather(*map(ending, calls))


@pytest.mark.parametrize("ends", ["cancelled", "connection lost", "ended by us"])
@pytest.mark.parametrize("method", ["server", "both"])
async def test_nothing_of_a_stream_that_has_ended_waits_for_the_collector(
    ends: str, method: str, no_collector: None
) -> None:
    """It looks seldom at what has been there for long: clients who come and go would pile up."""
    toy = Toy(says=lambda: None)
    async with running(toy) as there:
        before = of_calls()
        calls = [there.server() if method == "server" else there.both() for _ in range(CALLS)]
        await until(lambda: there.transport.streams_open == CALLS)
        assert (of_calls() - before)["Session"] == CALLS
        if ends == "cancelled":
            for call in calls:
                call.cancel()
        elif ends == "ended by us":
            there.transport.end_streams(CALLS, draining())
        else:
            await there.channel.close()
        await until(lambda: toy.happened.count("close") == CALLS)
        toy.wakes[:] = [lambda: None] * CALLS  # A stream is let go of, and this with it.
        await until(lambda: (of_calls() - before).total() <= KEPT_BY_GRPC)


async def test_nothing_of_a_connection_that_is_gone_waits_for_the_collector(
    no_collector: None,
) -> None:
    """By clients of our own, as gRPC's would wait for the collector themselves."""
    toy = Toy()
    async with running(toy) as there:
        before = of_calls()
        clients = [await RawClient.connect(there.address) for _ in range(CALLS)]
        for client in clients:
            stream = client.open(SERVER)
            await client.send(stream, message(b""))
            await client.heard(stream)
        for client in clients:
            await client.close()
        await until(lambda: toy.happened.count("close") == CALLS)
        toy.wakes[:] = [lambda: None] * CALLS
        await until(lambda: (of_calls() - before).total() <= KEPT_BY_GRPC)


@pytest.mark.parametrize("path", [UNARY, "/t.T/Unknown"])
async def test_nothing_of_a_unary_call_that_failed_waits_for_the_collector(
    path: str, no_collector: None
) -> None:
    def refuse(_: bytes) -> None:
        # Another one each time, as its traceback is the call's.
        raise RpcError(Code.NOT_FOUND, "none")

    async with running(Toy(receives=refuse)) as there:
        before = of_calls()
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = there.channel.unary_unary(path)
        for _ in range(CALLS):
            assert await ending(call(b"")) is not grpc.StatusCode.OK
        await until(lambda: (of_calls() - before).total() <= KEPT_BY_GRPC)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_unary_call_that_fails_harms_no_other(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    error, code = KINDS[kind]
    toy = Toy(receives=lambda request: raising(error)() if request else None)
    async with running(toy) as server:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await server.unary(b"fail")
        assert failure.value.code() is code
        assert await server.unary() == b""
        assert server.counts.calls == {(UNARY, Code(code.value[0])): 1, (UNARY, Code.OK): 1}
    if kind == "a fault":
        (record,) = ours(caplog)
        assert record.exc_info is not None
        assert record.levelno == logging.ERROR
        assert "boom" not in (failure.value.details() or ""), "it is not the client's business"
    else:
        assert not ours(caplog)
        detail(failure.value, error_details_pb2.RetryInfo)


async def test_an_answer_that_is_made_in_pieces_lets_others_have_theirs() -> None:
    pieces: list[bytes] = []

    def makes(request: bytes) -> bytes | Later:
        pieces.append(request)
        return request if request == b"short" or pieces.count(request) == 50 else LATER

    async with running(Toy(makes=makes)) as server:
        long = server.unary(b"long")
        await until(lambda: pieces)
        assert await server.unary(b"short") == b"short"
        assert await long == b"long"
        assert pieces.count(b"long") == 50
        assert server.counts.calls == {(UNARY, Code.OK): 2}


async def test_an_answer_that_is_made_in_pieces_ends_as_a_call_does() -> None:
    """By a fault, by its deadline, and by its client."""
    asked = 0

    def makes(request: bytes) -> bytes | Later:
        nonlocal asked
        asked += 1
        if request == b"fail":
            raise RpcError(Code.NOT_FOUND, "it has gone")
        return LATER

    async with running(Toy(makes=makes)) as server:
        assert await ending(server.unary(b"fail")) is grpc.StatusCode.NOT_FOUND
        late = server.unary(b"late", timeout=0.1)
        assert await ending(late) is grpc.StatusCode.DEADLINE_EXCEEDED
        given_up = server.unary(b"given up")
        asked = 0
        await until(lambda: asked)
        given_up.cancel()
        async with asyncio.timeout(PATIENCE_S):
            while asked:  # Until nobody asks any more.
                asked = 0
                await asyncio.sleep(0.02)
        assert server.counts.started == {UNARY: 3}
        assert server.counts.calls.total() == 3


@pytest.mark.parametrize("where", ["open", "receives", "says"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["server", "both"])
async def test_a_stream_that_fails_anywhere_ends_and_is_closed(
    where: str, kind: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    error, code = KINDS[kind]
    toy = Toy(**{where: raising(error)})  # type: ignore[arg-type]  # one of its fields
    async with running(toy) as server:
        if method == "both":
            call = server.both()
            if where == "receives":
                await call.write(b"x")
            assert await ending(call) is code
        else:
            assert await ending(server.server(b"x")) is code
    assert len([r for r in ours(caplog) if r.exc_info]) == (kind == "a fault")


@pytest.mark.parametrize("method", ["server", "both"])
async def test_a_stream_that_has_said_all_ends_well(method: str) -> None:
    def says() -> bytes | None:
        if not said:
            raise EndOfStream
        return said.pop()

    said = [b"2", b"1"]
    async with running(Toy(says=says)) as server:
        call = server.both() if method == "both" else server.server()
        assert [message async for message in call] == [b"1", b"2"]
        assert await ending(call) is grpc.StatusCode.OK
    assert {code for _, code in server.counts.calls} == {Code.OK}


@pytest.mark.parametrize("method", ["unary", "server", "both"])
async def test_a_burst_of_calls_is_answered_some_ms_a_turn(method: str) -> None:
    """500 explanations on one connection were made in one turn of the event loop."""
    turn, turns = 0, Counter[int]()

    async def tick() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def works(_request: bytes) -> None:
        turns[turn] += 1
        until_s = perf_counter() + WORK_S
        while perf_counter() < until_s:
            pass

    toy = Toy(receives=works)
    async with running(toy) as run:
        await run.unary()
        ticking = asyncio.create_task(tick())
        if method == "unary":
            await asyncio.gather(*(run.unary() for _ in range(CALLS)))
        else:
            calls = [run.server() if method == "server" else run.both() for _ in range(CALLS)]
            for call in calls:
                if isinstance(call, grpc.aio.StreamStreamCall):
                    await call.write(b"")
            await until(lambda: turns.total() == 1 + CALLS)
            for call in calls:
                call.cancel()
        ticking.cancel()
    assert turns.total() == 1 + CALLS
    # What is left of one turn's time, and the next one's: each may be exceeded by the last.
    assert max(turns.values()) <= 2 * (TURN_S // WORK_S + 1)


async def test_a_call_knows_its_peer() -> None:
    toy = Toy()
    async with running(toy) as server:
        await server.unary()
    (call,) = toy.calls
    assert call.peer.startswith("ipv4:127.0.0.1:")


async def test_a_message_without_end_still_reaches_the_client() -> None:
    """Clients refuse headers of more than 8 KiB, and the code with them."""
    toy = Toy(receives=raising(RpcError(Code.NOT_FOUND, "wéb " * 10_000)))
    async with running(toy) as server:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await server.unary()
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND
    assert (failure.value.details() or "").startswith("wéb wéb")


async def test_a_wake_is_never_lost_and_never_asks_twice() -> None:
    def says() -> bytes | None:
        return ready.pop(0) if ready else None

    ready: list[bytes] = []
    toy = Toy(says=says)
    async with running(toy) as server:
        call = server.server()
        await until(lambda: "ask" in toy.happened)
        for number in range(100):
            ready.append(b"%d" % number)
            for _ in range(3):
                toy.wakes[0]()
            assert await call.read() == b"%d" % number
        # Once for each message, and once more where the stream then had nothing to say.
        assert 100 < toy.happened.count("ask") <= 202
        call.cancel()
        await until(lambda: "close" in toy.happened)
        toy.wakes[0]()


async def test_a_client_that_asks_and_does_not_read_piles_nothing_up() -> None:
    """Requests are taken one for each time that the stream was asked for a message."""
    answers: list[bytes] = []
    toy = Toy(
        receives=lambda _: answers.append(b"x" * 20_000),
        says=lambda: answers.pop(0) if answers else None,
    )
    most = 0
    async with running(toy) as server:
        call = server.both()
        written = 0
        try:
            async with asyncio.timeout(0.5):
                for _ in range(10_000):
                    await call.write(b"r" * 1000)
                    written += 1
                    most = max(most, len(answers))
        except TimeoutError:
            pass
        assert most <= 1
        received = toy.happened.count("receive")
        assert 0 < received < 100, "it stops reading soon after the client does"
        call.cancel()


async def test_an_answer_without_a_byte_is_one_too() -> None:
    """As a message is of which all fields are unset; also to a request on an idle stream."""
    answers: list[bytes] = []
    toy = Toy(
        receives=lambda _: answers.append(b""),
        says=lambda: answers.pop(0) if answers else None,
    )
    async with running(toy) as server:
        call = server.both()
        for _ in range(3):
            await call.write(b"r")
            assert await call.read() == b""
        await call.done_writing()
        call.cancel()


WHEN = ["before it is accepted", "before it is asked", "idle", "in a write", "as it ends"]


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("method", ["server", "both"])
async def test_a_client_that_goes_away_leaves_nothing(
    when: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """linkerd2 #14621, #14693: deadlock of stop and send, leaked tasks."""

    def says() -> bytes | None:
        if when == "as it ends":
            raise RpcError(Code.NOT_FOUND, "none")
        return b"x" * 30_000 if when == "in a write" else None

    def asked() -> int:
        return toy.happened.count("ask")

    def reached(count: int) -> bool:
        return asked() >= count

    toy = Toy(says=says)

    async with running(toy) as server:
        idle = len(asyncio.all_tasks())
        for _ in range(20):
            enough = asked() + (3 if when == "in a write" else 1)
            call = server.both() if method == "both" else server.server()
            if when == "before it is asked":
                await call.wait_for_connection()
            elif when != "before it is accepted":
                await until(partial(reached, enough))
            call.cancel()
            await asyncio.wait((asyncio.ensure_future(call.code()),))
        await until(lambda: not server.transport.streams_open)
        await until(lambda: len(asyncio.all_tasks()) <= idle)
    assert not ours(caplog)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(0, id="idle"),
        pytest.param(30_000, id="stalled in a write"),
        # gRPC sends the headers with the first message, unless they went before.
        pytest.param(1_000_000, id="stalled in the first write"),
    ],
)
@pytest.mark.parametrize("method", ["server", "both"])
async def test_streams_are_ended_by_us_also_where_the_client_does_not_read(
    size: int, method: str
) -> None:
    toy = Toy(says=lambda: b"x" * size if size else None)
    async with running(toy) as server:
        calls = []
        for number in range(3):
            calls.append(server.both() if method == "both" else server.server())
            await until(partial(_is_open, server, number + 1))
        await until(_steady(lambda: toy.happened.count("ask")))
        server.transport.end_streams(2, draining())
        assert server.transport.streams_open == 1
        await until(lambda: toy.happened.count("close") == 2)
        for call in calls[:2]:
            in_flight = [message async for message in _read_on(call)]
            assert len(in_flight) < 20
            assert await ending(call) is grpc.StatusCode.UNAVAILABLE
        assert not calls[2].done(), "the oldest end first"
        server.transport.end_streams(5, draining())
        async for _ in _read_on(calls[2]):
            pass
        assert server.counts.calls.total() == 3


@pytest.mark.parametrize("body", [b"", b"\0\0", message(b"", length=1)], ids=repr)
@pytest.mark.parametrize("path", [UNARY, SERVER])
async def test_a_call_that_ends_without_a_request_is_answered(path: str, body: bytes) -> None:
    toy = Toy()
    async with running(toy) as server:
        client = await RawClient.connect(server.address)
        stream = client.open(path, flags=0 if body else END_STREAM)
        await client.send(stream, body)
        await client.heard(stream)
        await until(server.counts.calls.total)
        assert server.counts.calls == {(path, Code.UNIMPLEMENTED): 1}
        assert "receive" not in toy.happened
        await client.close()


@pytest.mark.parametrize("body", [b"", b"\0\0", message(b"", length=1)], ids=repr)
@pytest.mark.parametrize("path", [UNARY, SERVER])
async def test_a_request_that_does_not_come_is_not_waited_for(path: str, body: bytes) -> None:
    toy = Toy()
    async with running(toy, Limits(request_s=0.1)) as server:
        client = await RawClient.connect(server.address)
        stream = client.open(path)
        await client.send(stream, body, end=False)
        await client.heard(stream)
        await until(server.counts.calls.total)
        assert server.counts.calls == {(path, Code.DEADLINE_EXCEEDED): 1}
        assert server.counts.refusals == {"request_s": 1}
        await client.close()


@pytest.mark.parametrize("method", ["server", "both"])
async def test_a_message_in_hand_is_not_sent_once_its_stream_is_ended(method: str) -> None:
    """Else the end would wait for as long as the client does not read it."""

    def says() -> bytes:
        # In the next turn of the loop, before the pump hears what was said here.
        asyncio.get_running_loop().call_soon(server.transport.end_streams, 1, draining())
        return b"x" * 1_000_000

    toy = Toy(says=says)
    async with running(toy) as server:
        call = server.both() if method == "both" else server.server()
        await until(lambda: "close" in toy.happened)
        async for _ in _read_on(call):
            pass
        assert await ending(call) is grpc.StatusCode.UNAVAILABLE


def _is_open(server: Running, count: int) -> bool:
    return server.transport.streams_open == count


def _steady(count: Callable[[], int]) -> Callable[[], bool]:
    """Whether a count has not risen for 100 looks at it."""
    seen: list[int] = []

    def steady() -> bool:
        seen.append(count())
        return seen[-100:].count(seen[-1]) == 100

    return steady


async def _read_on(
    call: grpc.aio.UnaryStreamCall[bytes, bytes] | grpc.aio.StreamStreamCall[bytes, bytes],
) -> AsyncIterator[bytes]:
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError:
        return
