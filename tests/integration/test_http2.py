"""The transport on libnghttp2, asked by a client that does what no library of gRPC would do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from itertools import pairwise

import grpc.aio
import pytest
from ngh2 import ErrorCode, Setting, events

from tests.integration.http2_toy import (
    BOTH,
    ECHO,
    GRPC,
    LARGE,
    LARGE_BYTES,
    OPEN_TO_ALL,
    PREFACE,
    WATCH,
    Client,
    Toy,
    client,
    serving,
)
from tests.integration.serving import PATIENCE_S, until
from vmsvc_grpc.server.call import Call, Code, RequestBound, UnaryMethod
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.transport.grpc_wire import HeaderField, framed
from vmsvc_grpc.server.transport.http2 import READ_BYTES, TURN_READ_BYTES
from vmsvc_grpc.server.transport.http2_accept import ACCEPTS_A_TURN
from vmsvc_grpc.server.transport.http2_calls import AskingCall, StreamCall
from vmsvc_grpc.server.transport.http2_connection import ClientConnection


async def test_http1_is_answered_in_one_readable_line() -> None:
    async with serving() as toy:
        reader, writer = await asyncio.open_connection("127.0.0.1", toy.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: toy\r\n\r\n")
        head, body = (await reader.read()).split(b"\r\n\r\n")
        writer.close()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert f"Content-Length: {len(body)}".encode() in head
    assert body.count(b"\n") == 1
    assert b"gRPC" in body


@pytest.mark.parametrize("cut", range(1, 6))
async def test_http1_is_known_however_it_comes(cut: int) -> None:
    async with serving() as toy:
        reader, writer = await asyncio.open_connection("127.0.0.1", toy.port)
        (connection,) = await first(toy)
        writer.write(b"POST / HTTP/1.1\r\n"[:cut])
        if cut < len(b"POST "):
            await until(lambda: connection._greeting)
        writer.write(b"POST / HTTP/1.1\r\n"[cut:])
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def first(toy: Toy) -> list[ClientConnection]:
    """The connections, once there are any."""
    await until(lambda: toy.transport.connections)
    return list(toy.transport.connections)


async def test_who_speaks_nothing_that_we_know_is_closed_without_a_word() -> None:
    async with serving() as toy:
        reader, writer = await asyncio.open_connection("127.0.0.1", toy.port)
        writer.write(b"SSH-2.0-toy\r\n")
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("first", [b"PRI * HTTP/2.0", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_client_that_begins_otherwise_costs_itself(first: bytes) -> None:
    """It goes away within its greeting, or speaks TLS."""
    async with serving() as toy:
        _, writer = await asyncio.open_connection("127.0.0.1", toy.port)
        writer.write(first)
        writer.close()
        async with client(toy) as other:
            stream = other.call(ECHO, framed(b"hi"))
            assert await other.status(stream) == (0, "")


async def test_what_is_no_call_of_grpc_is_told_so_as_http() -> None:
    async with serving() as toy, client(toy) as there:
        stream = there.call(ECHO, more=((b"content-type", b"application/json"),))
        fields = await there.fields(stream)
        assert fields[b":status"] == b"415"
        assert b"gRPC" in there.body(stream)


@pytest.mark.parametrize("path", [ECHO, WATCH])
@pytest.mark.parametrize("bodies", [(), (framed(b"a"), framed(b"b")), (framed(b"abc")[:-1],)])
async def test_a_request_that_is_not_exactly_one_message(
    path: str, bodies: tuple[bytes, ...]
) -> None:
    async with serving() as toy, client(toy) as there:
        code, message = await there.status(there.call(path, *bodies))
        assert (code, message) == (12, "this method takes exactly one request message")
        assert await there.status(there.call(ECHO, framed(b"hi"))) == (0, "")


async def test_a_client_stream_may_end_without_a_message() -> None:
    async with serving() as toy, client(toy) as there:
        stream = there.call(BOTH)
        await until(lambda: toy.streams and toy.streams[0].half_closed)
        toy.streams[0].say(b"end")
        assert await there.status(stream) == (0, "")
        assert toy.streams[0].requests == []


async def test_a_compressed_request_is_refused_with_what_would_be_taken() -> None:
    async with serving() as toy, client(toy) as there:
        gzip = (b"grpc-encoding", b"gzip")
        fields = await there.fields(there.call(ECHO, b"\1\0\0\0\1?", more=(gzip,)))
        assert fields[b"grpc-status"] == b"12"
        assert fields[b"grpc-accept-encoding"] == b"identity"
        # A client that could have compressed, and did not, is as any other.
        assert await there.status(there.call(ECHO, framed(b"a"), more=(gzip,))) == (0, "")


@pytest.mark.parametrize("path", [ECHO, WATCH, BOTH])
async def test_a_deadline_is_kept_by_the_server(path: str) -> None:
    async with serving() as toy, client(toy) as there:
        stream = there.call(path, framed(b"a")[:3], end=False, more=((b"grpc-timeout", b"50m"),))
        code, message = await there.status(stream)
        assert (code, message) == (4, "the deadline has passed")


@pytest.mark.parametrize("time_limit", [b"0n", b"0H", b"00000000m", b"1n", b"1u"])
@pytest.mark.parametrize("path", [ECHO, WATCH, BOTH])
async def test_a_method_is_not_asked_after_the_deadline(path: str, time_limit: bytes) -> None:
    """As grpc-go does. An answer that was ready was sent all the same."""
    async with serving() as toy, client(toy) as there:
        stream = there.call(path, framed(b"a"), more=((b"grpc-timeout", time_limit),))
        assert await there.status(stream) == (4, "the deadline has passed")
        assert toy.streams == []
        assert toy.counts.calls == {(path, Code.DEADLINE_EXCEEDED): 1}
        assert await there.status(there.call(ECHO, framed(b"hi"))) == (0, "")


@pytest.mark.parametrize("path", [ECHO, WATCH])
async def test_a_request_that_does_not_come_whole_is_not_waited_for(path: str) -> None:
    async with serving(Limits(request_s=0.05)) as toy, client(toy) as there:
        code, message = await there.status(there.call(path, framed(b"a")[:3], end=False))
        assert code == 4
        assert "request_s" in message
        assert toy.counts.refusals == {"request_s": 1}


async def test_a_request_that_is_too_large_is_refused_by_its_first_five_bytes() -> None:
    async with serving() as toy, client(toy) as there:
        for path, most in ((ECHO, "message_bytes_max"), (LARGE, "one_name_bytes_max")):
            stream = there.call(path, b"\0\xff\xff\xff\xff", end=False)
            code, message = await there.status(stream)
            assert code == 8
            assert most in message
        assert toy.counts.request_bytes == 0
        assert await there.status(there.call(ECHO, framed(b"hi"))) == (0, "")


async def test_a_client_that_uploads_is_slowed_and_others_are_not() -> None:
    """Each of its requests is larger than its window, and two fit what one client may hold."""
    limits = Limits(upload_bytes_max=2_000_000, connection_window_bytes=256 * 1024)
    size = 200_000
    async with serving(limits) as toy, client(toy) as there:
        whole = framed(b"x" * size)
        streams = [there.call(ECHO, whole[:-1], end=False) for _ in range(4)]
        reading = asyncio.create_task(there.until(lambda: False))
        async with client(toy, address="127.0.0.2") as other:
            assert await other.status(other.call(ECHO, whole)) == (0, "")
        await until(lambda: there.sent(streams[0]) and there.sent(streams[1]))
        await until(lambda: toy.counts.refusals == {"upload_bytes_max": 2})
        reading.cancel()
        await asyncio.wait((reading,))
        assert toy.transport.uploads.in_all == 2 * len(whole)
        assert not there.sent(streams[2])
        assert not there.sent(streams[3])
        for stream in streams:
            there.engine.send_data(stream, b"x", end_stream=True)
            there.send()
            assert await there.status(stream) == (0, "")
            assert len(there.body(stream)) == len(whole)


async def test_what_a_connection_has_sent_and_nobody_takes_is_bounded_by_its_window() -> None:
    """Streams that do not ask for more, as their client does not read what they say."""
    limits = Limits(connection_window_bytes=100_000, window_bytes_max=0)
    async with serving(limits) as toy, client(toy, window=0) as there, client(toy) as other:
        streams = [there.call(BOTH, end=False) for _ in range(8)]
        await until(lambda: len(toy.streams) == 8)
        for watching in toy.streams:
            watching.say(b"which the client does not take")
        await until(lambda: all(watching.newest is None for watching in toy.streams))
        sent = framed(b"y" * 1_000) * 1_000
        for stream in streams:
            there.engine.send_data(stream, sent)
        there.send()
        await until(lambda: any(each.windows()[1] == 0 for each in toy.transport.connections))
        assert there.engine.remote_window_size == 0
        assert all(len(watching.requests) <= 1 for watching in toy.streams)
        assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")
        for stream in streams:
            there.engine.reset_stream(stream)
        there.send()
        # What they had sent does not count any more.
        assert await there.status(there.call("/toy.Toy/None", sent)) == (
            12,
            "this server has no such method",
        )
        await there.until(lambda: there.engine.remote_window_size > 30_000)


async def uploaded(there: Client, until_: Callable[[], object]) -> None:
    """A client sends more than a first window, again and again, until a condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not until_():
            assert await there.status(there.call(ECHO, framed(b"x" * 300_000))) == (0, "")


async def test_windows_grow_for_who_uploads_as_far_as_there_is_room_in_all() -> None:
    limits = Limits(window_bytes_max=4 * 200_000)
    async with serving(limits) as toy:
        windows = toy.transport.windows
        async with client(toy) as idle, client(toy) as there:
            assert await idle.status(idle.call(ECHO, framed(b"a"))) == (0, "")
            await uploaded(there, lambda: toy.counts.refusals["window_bytes_max"])
            assert windows.in_all == 3 * 65_535
            assert toy.transport.taken()["window_bytes_max"] == windows.in_all
            sizes = sorted(each._window.size for each in toy.transport.connections)
            assert sizes == [65_535, 4 * 65_535]
            assert await there.status(there.call(ECHO, framed(b"x" * 300_000))) == (0, "")
            async with client(toy, address="127.0.0.2") as other:
                await uploaded(other, lambda: windows.in_all > 200_000)
        await until(lambda: not windows.in_all)


async def test_what_calls_kept_as_their_connection_was_lost_has_no_window_grow() -> None:
    async with serving() as toy:
        async with client(toy, window=0) as there:
            standing = there.call(BOTH, end=False)
            await until(lambda: toy.streams)
            toy.streams[0].say(b"which the client does not take")
            await until(lambda: toy.streams[0].newest is None)
            for _ in range(3):
                there.call(ECHO, framed(b"x" * 20_000))
            await until(lambda: toy.counts.calls[ECHO, Code.OK] == 3)
            there.engine.send_data(standing, framed(b"y" * 1_000) * 20)
            there.send()
            (connection,) = toy.transport.connections
            call = connection._calls[standing]
            assert isinstance(call, AskingCall)
            reading = asyncio.create_task(there.until(lambda: False))  # For its window.
            await until(lambda: call._messages.held > 15_000)
            reading.cancel()
            await asyncio.wait((reading,))
        await until(lambda: not toy.transport.connections)
        assert not toy.transport.windows.in_all


async def test_calls_that_stand_still_leave_something_of_the_window_to_others() -> None:
    async with serving() as toy, client(toy, window=0) as there, client(toy) as other:
        standing = [there.call(BOTH, end=False) for _ in range(3)]
        await until(lambda: len(toy.streams) == 3)
        for watching in toy.streams:
            watching.say(b"which the client does not take")
        await until(lambda: all(watching.newest is None for watching in toy.streams))
        for stream in standing:
            there.engine.send_data(stream, framed(b"y" * 1_000) * 200)
        # A call beside them, whose answer has to wait, is heard all the same.
        standing.append(there.call(ECHO, framed(b"z" * 50_000)))
        await there.until(lambda: toy.counts.calls[ECHO, Code.OK])
        assert toy.transport.windows.in_all
        assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")
        for stream in standing:
            there.engine.reset_stream(stream)
        there.send()


async def test_a_request_that_has_begun_on_a_stream_is_not_waited_for() -> None:
    async with serving(Limits(request_s=0.1)) as toy, client(toy) as there:
        stream = there.call(BOTH, framed(b"whole"), end=False)
        await until(lambda: toy.streams and toy.streams[0].requests)
        other = there.call(BOTH, framed(b"not whole")[:-1], end=False)
        code, message = await there.status(other)
        assert code == 4
        assert "request_s" in message
        toy.streams[0].say(b"end")
        assert await there.status(stream) == (0, "")


async def test_any_number_of_requests_gives_back_the_whole_window() -> None:
    async with serving() as toy, client(toy) as there:
        for size in (0, 1, 5, 1_000, 70_000, 300_000):
            for path in (ECHO, WATCH, BOTH, "/toy.Toy/None"):
                stream = there.call(path, framed(b"x" * size), framed(b"y" * size))
                answered = asyncio.create_task(there.status(stream))
                if path == BOTH:
                    await until(lambda: toy.streams and toy.streams[-1].half_closed)
                    toy.streams[-1].say(b"end")
                await answered
        # Half of a window is given back at a time (nghttp2).
        (connection,) = toy.transport.connections
        half = connection._window.size // 2
        # What was sent to one who is refused may still be under way.
        await there.until(lambda: there.engine.remote_window_size > half)
        assert connection.windows()[1] > half


REFUSED: dict[str, tuple[str, tuple[HeaderField, ...]]] = {
    "an unknown method": ("/toy.Toy/None", ()),
    "a deadline that cannot be read": (ECHO, ((b"grpc-timeout", b"soon"),)),
    "too many header fields": (ECHO, tuple((b"x-%d" % number, b"") for number in range(500))),
    "no call of gRPC": (ECHO, ((b"content-type", b"text/html"),)),
    "more than one request": (ECHO, ()),
    "a stream too many": (WATCH, ()),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_calls_that_are_refused_give_back_the_whole_window(why: str) -> None:
    """Three calls of an unknown method, of 60,000 bytes each, silenced their connection."""
    path, more = REFUSED[why]
    async with serving(Limits(streams_max=0)) as toy, client(toy) as there:
        for _ in range(10):
            stream = there.call(path, *(framed(b"x" * 15_000),) * 4, more=more)
            await there.until(lambda stream=stream: there.closed(stream))  # type: ignore[misc]
        assert await there.status(there.call(ECHO, framed(b"hi"))) == (0, "")
        (connection,) = toy.transport.connections
        assert connection.windows()[1] > connection._window.size // 2


async def test_who_asks_and_does_not_read_has_no_answers_piled_up() -> None:
    async with serving() as toy, client(toy, window=0, auto=True) as there:
        for _ in range(200):
            there.call(LARGE, framed(b""))
        async with client(toy) as other:
            await other.status(other.call(ECHO, framed(b"a")))
        assert 0 < toy.answered * LARGE_BYTES <= 512 * 1024
        there.engine.update_settings({Setting.INITIAL_WINDOW_SIZE: 1_000_000})
        there.send()
        await there.until(lambda: len(there.of(events.StreamClosed)) == 200)
        assert toy.answered == 200


async def test_a_stalled_stream_holds_one_message_and_then_is_told_the_newest() -> None:
    async with serving() as toy, client(toy, window=10, auto=False) as there:
        stream = there.call(WATCH, framed(b""))
        await until(lambda: toy.streams and toy.streams[0].asked)
        watching = toy.streams[0]
        watching.say(b"first, which is longer than the window")
        await there.until(lambda: there.body(stream))
        asked = watching.asked
        for number in range(100):
            watching.say(b"state %d" % number)
            await asyncio.sleep(0)
        assert watching.asked == asked
        there.engine.update_settings({Setting.INITIAL_WINDOW_SIZE: 1_000})
        there.send()
        both = framed(b"first, which is longer than the window") + framed(b"state 99")
        await there.until(lambda: there.body(stream) == both)
        watching.say(b"end")
        assert await there.status(stream) == (0, "")


async def test_a_stream_that_has_no_more_to_send_is_asked_once_a_message() -> None:
    async with serving() as toy, client(toy) as there:
        stream = there.call(WATCH, framed(b""))
        await until(lambda: toy.streams and toy.streams[0].asked)
        (watching,) = toy.streams
        asked = watching.asked
        for number in range(1, 20):
            watching.say(b"told")
            await there.until(
                lambda number=number: len(there.body(stream)) == 9 * number  # type: ignore[misc]
            )
        assert watching.asked == asked + 19
        watching.say(b"end")
        assert await there.status(stream) == (0, "")


async def stalled(toy: Toy, there: Client) -> list[int]:
    """Streams of a client that has shut its windows, each with 1,000 bytes to say."""
    streams = [there.call(WATCH, framed(b"")) for _ in range(50)]
    await until(lambda: len(toy.streams) == 50 and all(each.asked for each in toy.streams))
    for watching in toy.streams:
        watching.say(b"x" * 1_000)
    await until(lambda: not all(watching.newest for watching in toy.streams))
    return streams


async def test_what_waits_for_a_connection_that_stalls_is_bounded() -> None:
    limits = Limits(unread_bytes_max=32 * 10_000)
    async with serving(limits) as toy, client(toy, window=0) as there, client(toy) as other:
        streams = await stalled(toy, there)
        for _ in range(20):
            for watching in toy.streams:
                watching.wake()
            assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")
        assert 10_000 <= toy.transport.unread.in_all <= 11_100
        assert sum(watching.newest is None for watching in toy.streams) == 10
        # Those that have said nothing yet say what is newest then.
        for watching in toy.streams[10:]:
            watching.say(b"newest")
        there.engine.update_settings({Setting.INITIAL_WINDOW_SIZE: 65_535})
        there.send()
        await there.until(lambda: all(map(there.body, streams)))
        assert there.body(streams[0]) == framed(b"x" * 1_000)
        assert there.body(streams[-1]) == framed(b"newest")
        await until(lambda: not toy.transport.unread.in_all)
        for watching in toy.streams:
            watching.say(b"end")
        for stream in streams:
            assert await there.status(stream) == (0, "")
        assert not toy.counts.refusals


async def test_a_connection_that_stays_at_its_bound_is_closed() -> None:
    limits = Limits(unread_bytes_max=32 * 10_000, connection_write_s=0.2)
    async with serving(limits) as toy, client(toy) as other:
        async with client(toy, window=0) as there:
            await stalled(toy, there)
            await there.until(lambda: there.over)
            assert there.told_to_calm_down() == b"unread_bytes_max"
        assert toy.counts.refusals == {"unread_bytes_max": 1}
        assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")


CLIENT_CONNECTIONS = 8
SMALL_ROOM = Limits(unread_bytes_max=4 * CLIENT_CONNECTIONS * 10_000)


async def test_room_may_come_for_a_message_that_has_come_whole_with_more() -> None:
    """The bytes after it were counted as its own, which ended the connection."""
    whole = framed(b"x" * 900)
    async with serving(Limits(upload_bytes_max=4 * 1_000)) as toy, client(toy) as there:
        first_call, second_call = there.call(BOTH, end=False), there.call(BOTH, end=False)
        for call in (first_call, second_call):
            there.engine.send_data(call, whole[:500])
        there.send()
        await until(lambda: toy.counts.refusals == {"upload_bytes_max": 1})
        there.engine.send_data(first_call, whole[500:])
        there.engine.send_data(second_call, whole[500:] + whole)
        there.send()
        await until(lambda: [len(each.requests) for each in toy.streams] == [1, 2])
        assert not there.over
        for watching in toy.streams:
            watching.say(b"end")


async def test_calls_that_are_left_for_another_turn_have_it_where_room_is_small() -> None:
    """With less room than a flush may write, a flush that was late forgot the calls it had left."""
    async with serving(SMALL_ROOM) as toy, AsyncExitStack() as stack:
        for _ in range(20):
            there = await stack.enter_async_context(client(toy))
            for _ in range(10):
                there.call(WATCH, framed(b""))
        await until(lambda: sum(bool(each.asked) for each in toy.streams) == 200)
        for watching in toy.streams:
            watching.say(b"end")


@asynccontextmanager
async def a_client_without_room(toy: Toy) -> AsyncIterator[list[Client]]:
    """Connections of one address that hold all that may wait for it, and take nothing."""
    async with AsyncExitStack() as stack:
        there: list[Client] = []
        for _ in range(CLIENT_CONNECTIONS):
            there.append(await stack.enter_async_context(client(toy, window=0)))
            for _ in range(10):
                there[-1].call(WATCH, framed(b""))
        streams = 10 * CLIENT_CONNECTIONS
        await until(lambda: sum(bool(each.asked) for each in toy.streams) == streams)
        for watching in toy.streams:
            watching.say(b"x" * 1_000)
        await until(lambda: not toy.transport.unread.room("ipv4:127.0.0.1", 0))
        yield there


async def ended(clients: Sequence[Client]) -> list[Client]:
    """Those that the server has closed, once there is one."""
    reading = [asyncio.ensure_future(each.until(lambda: False)) for each in clients]
    await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
    for one in reading:
        one.cancel()
    return [each for each in clients if each.over]


async def test_a_client_without_room_has_it_again_once_it_reads() -> None:
    """Each connection for which nothing waited was let 8 MiB, however much its others held."""
    async with serving(SMALL_ROOM) as toy, a_client_without_room(toy) as there:
        async with client(toy) as other:
            calls = [other.call(ECHO, framed(b"hi")) for _ in range(3)]
            await until(lambda: toy.transport.unread.crowded)
            assert not any(map(other.body, calls))
            there[3].engine.update_settings({Setting.INITIAL_WINDOW_SIZE: 65_535})
            there[3].send()
            for call in calls:
                assert await other.status(call) == (0, "")
        assert not toy.counts.refusals


async def test_nobody_is_sent_away_once_there_is_room() -> None:
    """The time of a client without room ran on, and sent away whoever had anything to read."""
    async with serving(SMALL_ROOM) as toy, a_client_without_room(toy) as there:
        async with client(toy) as other:
            call = other.call(ECHO, framed(b"hi"))
            await until(lambda: toy.transport.unread.crowded)
            full = [each for each in toy.transport.connections if "full" in each._life._timers]
            assert full
            for each in there:
                each.engine.update_settings({Setting.INITIAL_WINDOW_SIZE: 65_535})
                each.send()
            assert await other.status(call) == (0, "")
            await until(lambda: not toy.transport.unread.in_all)
            assert not any("full" in each._life._timers for each in toy.transport.connections)
            for each_full in full:
                each_full.stay_full()  # As if its time were over in this moment.
            assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")
        assert not toy.counts.refusals


async def test_who_leaves_a_client_no_room_for_long_is_sent_away() -> None:
    limits = replace(SMALL_ROOM, connection_write_s=0.5)
    async with serving(limits) as toy, a_client_without_room(toy) as there:
        async with client(toy) as other:
            assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")
            assert not other.over
        (sent_away,) = await ended(there)
        assert sent_away.told_to_calm_down() == b"unread_bytes_max"
        assert set(toy.counts.refusals) == {"unread_bytes_max"}


async def test_a_stalled_stream_does_not_stop_others_of_its_connection() -> None:
    async with serving() as toy, client(toy, window=10, auto=False) as there:
        stalled = there.call(WATCH, framed(b""))
        await until(lambda: toy.streams and toy.streams[0].asked)
        toy.streams[0].say(b"x" * 1_000)
        await there.until(lambda: there.body(stalled))
        assert await there.status(there.call(ECHO, framed(b"hi"))) == (0, "")
        there.engine.reset_stream(stalled)
        there.send()


async def test_a_stalled_stream_that_has_ended_is_let_go_of() -> None:
    async with (
        serving(Limits(keepalive_timeout_s=0.05)) as toy,
        client(toy, window=10, auto=False) as there,
    ):
        stream = there.call(WATCH, framed(b""), more=((b"grpc-timeout", b"300m"),))
        await until(lambda: toy.streams and toy.streams[0].asked)
        toy.streams[0].say(b"x" * 1_000)
        await there.until(lambda: there.of(events.StreamReset))
        (reset,) = there.of(events.StreamReset)
        assert (reset.stream_id, reset.error_code) == (stream, ErrorCode.CANCEL)
        assert toy.counts.calls == {(WATCH, Code.DEADLINE_EXCEEDED): 1}


@pytest.mark.parametrize("kind", [GRPC[1], b"application/json"])
@pytest.mark.parametrize("path", [ECHO, LARGE, WATCH, BOTH, "/toy.Toy/None"])
async def test_a_call_that_is_reset_in_the_same_breath_costs_itself(path: str, kind: bytes) -> None:
    """h2spec found that the refusal of one closed the whole connection."""
    async with serving() as toy, client(toy) as there:
        watching = there.call(WATCH, framed(b""))
        await until(lambda: toy.streams and toy.streams[0].asked)
        fields = there.head(path, (b"content-type", kind))
        reset = there.engine.send_request(fields)
        request = there.engine.data_to_send()
        there.engine.reset_stream(reset)
        there.write(request + there.engine.data_to_send())
        assert await there.status(there.call(ECHO, framed(b"hi"))) == (0, "")
        toy.streams[0].say(b"end")
        assert await there.status(watching) == (0, "")


async def test_the_deadline_of_a_stream_that_is_refused_passes_in_silence() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(told))
    async with serving(Limits(streams_max=1)) as toy, client(toy) as there:
        watching = there.call(WATCH, framed(b""))
        await until(lambda: toy.streams and toy.streams[0].asked)
        refused = there.call(WATCH, framed(b""), more=((b"grpc-timeout", b"20m"),))
        later = there.call(ECHO, end=False, more=((b"grpc-timeout", b"60m"),))
        assert (await there.status(refused))[0] == 8
        assert (await there.status(later))[0] == 4
        assert faults == []
        assert toy.counts.calls == {
            (WATCH, Code.RESOURCE_EXHAUSTED): 1,
            (ECHO, Code.DEADLINE_EXCEEDED): 1,
        }
        toy.streams[0].say(b"end")
        assert await there.status(watching) == (0, "")


async def test_pings_in_excess_send_away_who_sends_them() -> None:
    async with serving() as toy, client(toy) as other:
        async with client(toy) as there:
            for _ in range(10):
                there.engine.ping(b"12345678")
            there.send()
            await there.until(lambda: there.of(events.GoAwayReceived))
            (told,) = there.of(events.GoAwayReceived)
            assert (told.error_code, told.debug_data) == (
                ErrorCode.ENHANCE_YOUR_CALM,
                b"too_many_pings",
            )
        assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")


async def test_who_pings_whenever_data_come_is_not_sent_away() -> None:
    """As grpc-go's clients do to measure their windows: a large answer comes in many pieces."""
    limits = Limits(empty_frames_max=50)
    async with serving(limits) as toy, client(toy, window=1_000, auto=False) as there:
        stream = there.call(LARGE, framed(b""))
        taken = 0
        while taken < LARGE_BYTES:
            await there.until(lambda taken=taken: len(there.body(stream)) > taken)  # type: ignore[misc]
            more = len(there.body(stream)) - taken
            taken += more
            there.engine.acknowledge_received_data(more, stream)
            there.engine.ping(b"12345678")
            there.send()
        assert await there.status(stream) == (0, "")
        assert not toy.counts.refusals


async def test_who_pings_while_nothing_comes_is_sent_away_be_its_stream_stalled() -> None:
    async with serving() as toy, client(toy, window=1_000, auto=False) as there:
        stream = there.call(LARGE, framed(b""))
        await there.until(lambda: there.body(stream))
        for count in range(1, 4):
            there.engine.ping(b"12345678")
            there.send()
            await there.until(
                lambda count=count: len(there.of(events.PingAcknowledged)) == count  # type: ignore[misc]
            )
        there.engine.ping(b"12345678")
        there.send()
        await there.until(lambda: there.over)
        assert there.told_to_calm_down() == b"too_many_pings"
        assert toy.counts.refusals == {"client_ping_interval_min_s": 1}


async def test_an_old_connection_is_left_in_two_steps() -> None:
    limits = Limits(connection_age_s=0.05, connection_age_grace_s=PATIENCE_S)
    async with serving(limits) as toy, client(toy) as there:
        stream = there.call(WATCH, framed(b""))
        await there.until(lambda: len(there.of(events.GoAwayReceived)) == 2)
        first, second = there.of(events.GoAwayReceived)
        assert first.last_stream_id == 2**31 - 1, "what is under way may still come"
        assert second.last_stream_id == stream
        toy.streams[0].say(b"still told")
        await there.until(lambda: there.body(stream))
        toy.streams[0].say(b"end")
        assert await there.status(stream) == (0, "")
        await there.until(lambda: there.over)
        assert there.over


async def test_who_does_not_leave_an_old_connection_is_cut_off() -> None:
    limits = Limits(connection_age_s=0.05, connection_age_grace_s=0.05)
    async with serving(limits) as toy, client(toy) as there:
        there.call(WATCH, framed(b""))
        await there.until(lambda: there.over)
        assert there.over


async def test_a_client_that_answers_no_ping_is_gone() -> None:
    limits = Limits(keepalive_s=0.05, keepalive_timeout_s=0.05)
    async with serving(limits) as toy, client(toy) as there:
        there.call(WATCH, framed(b""))
        await until(lambda: toy.streams and toy.streams[0].closed)
        assert toy.counts.refusals == {"keepalive_timeout_s": 1}


async def test_a_client_that_answers_pings_stays() -> None:
    limits = Limits(keepalive_s=0.02, keepalive_timeout_s=PATIENCE_S)
    async with serving(limits) as toy, client(toy) as there:
        stream = there.call(WATCH, framed(b""))
        await there.until(lambda: len(there.of(events.PingReceived)) >= 5)
        toy.streams[0].say(b"end")
        assert await there.status(stream) == (0, "")


@pytest.mark.parametrize("bound", ["connections_max", "connections_per_client_max"])
async def test_more_connections_than_there_is_room_for_cost_themselves(bound: str) -> None:
    async with serving(Limits(**{bound: 2})) as toy, client(toy) as first:
        assert await first.status(first.call(ECHO, framed(b"a"))) == (0, "")
        for round_ in range(1, 3):
            async with client(toy):
                await until(lambda: len(toy.transport.connections) == 2)
                reader, writer = await asyncio.open_connection("127.0.0.1", toy.port)
                async with asyncio.timeout(PATIENCE_S):
                    assert await reader.read() == goaway(bound.encode())
                writer.close()
                assert toy.counts.refusals == {bound: round_}
            await until(lambda: len(toy.transport.connections) == 1)
        assert await first.status(first.call(ECHO, framed(b"a"))) == (0, "")


async def test_a_client_of_grpc_that_is_refused_waits_before_it_comes_again() -> None:
    """A GOAWAY after SETTINGS had it connect at each call, and many times more."""
    bound = "connections_per_client_max"
    async with serving(Limits(connections_per_client_max=1)) as toy, client(toy) as first:
        assert await first.status(first.call(ECHO, framed(b"a"))) == (0, "")
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{toy.port}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO)
            calls = 100
            for _ in range(calls):
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await echo(b"", timeout=PATIENCE_S)
                assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert toy.counts.refusals.keys() == {bound}
        assert toy.counts.refusals[bound] < calls / 10, "most calls fail by what is known"


async def test_one_client_has_no_more_than_its_part_of_all_connections() -> None:
    async with serving(Limits(connections_per_client_max=1)) as toy, client(toy) as first:
        assert await first.status(first.call(ECHO, framed(b"a"))) == (0, "")
        async with client(toy, address="127.0.0.2") as other:
            assert await other.status(other.call(ECHO, framed(b"a"))) == (0, "")
        assert not toy.counts.refusals


async def test_a_client_that_says_nothing_is_not_kept() -> None:
    """Nor one that says no more than that it speaks HTTP/2."""
    async with serving(Limits(handshake_s=0.05)) as toy:
        for count, said in enumerate((b"", PREFACE[:10], PREFACE), 1):
            reader, writer = await asyncio.open_connection("127.0.0.1", toy.port)
            writer.write(said)
            async with asyncio.timeout(PATIENCE_S):
                with suppress(ConnectionResetError):
                    await reader.read()
            writer.close()
            assert toy.counts.refusals == {"handshake_s": count}


async def test_who_begins_in_time_stays_beyond_it() -> None:
    async with serving(Limits(handshake_s=1)) as toy, client(toy) as there:
        stream = there.call(WATCH, framed(b""))
        await until(lambda: toy.streams and toy.streams[0].asked)
        reader, writer = await asyncio.open_connection("127.0.0.1", toy.port)
        await reader.read()  # It came later, and has been sent away.
        writer.close()
        toy.streams[0].say(b"end")
        assert await there.status(stream) == (0, "")


async def test_a_connection_without_calls_is_left_and_one_with_a_call_is_not() -> None:
    limits = Limits(connection_idle_s=1)
    async with serving(limits) as toy, client(toy) as busy, client(toy) as idle:
        stream = busy.call(WATCH, framed(b""))
        await until(lambda: toy.streams and toy.streams[0].asked)
        assert await idle.status(idle.call(ECHO, framed(b"a"))) == (0, "")
        await idle.until(lambda: idle.over)
        assert [told.error_code for told in idle.of(events.GoAwayReceived)][-1] == 0
        assert toy.counts.refusals == {"connection_idle_s": 1}
        toy.streams[0].say(b"still told")
        await busy.until(lambda: busy.body(stream))
        assert not busy.of(events.GoAwayReceived)
        toy.streams[0].say(b"end")
        assert await busy.status(stream) == (0, "")
        await busy.until(lambda: busy.over)
        assert toy.counts.refusals == {"connection_idle_s": 2}


async def test_a_call_that_is_under_way_while_its_connection_is_left_is_answered() -> None:
    async with serving(Limits(connection_idle_s=1)) as toy, client(toy) as there:
        there.send()
        await there.until(lambda: there.of(events.SettingsAcknowledged))
        stream = there.engine.send_request(there.head(ECHO))
        there.engine.send_data(stream, framed(b"a"), end_stream=True)
        call = there.engine.data_to_send()
        (connection,) = toy.transport.connections
        await until(lambda: connection._leaving)
        there.write(call)  # It has not heard yet.
        assert await there.status(stream) == (0, "")
        await there.until(lambda: there.over)
        assert there.of(events.GoAwayReceived)[0].last_stream_id == 2**31 - 1


def frames(kind: int, flags: int, payload: bytes = b"", stream: int = 0) -> bytes:
    """A frame by hand."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


def goaway(why: bytes) -> bytes:
    """The frame that sends a client away, before any call of its was seen."""
    return frames(7, 0, bytes(4) + ErrorCode.ENHANCE_YOUR_CALM.to_bytes(4, "big") + why)


FLOODS = {
    "SETTINGS": (frames(4, 0), "settings_max"),
    "too many SETTINGS in a frame": (frames(4, 0, b"\0\1\0\0\0\0" * 100), "settings_max"),
    "PING": (frames(6, 0, b"12345678"), "client_ping_interval_min_s"),
    "PING that answers none of ours": (frames(6, 1, b"12345678"), "empty_frames_max"),
    "WINDOW_UPDATE": (frames(8, 0, b"\0\0\0\1"), "empty_frames_max"),
    "WINDOW_UPDATE of a stream": (frames(8, 0, b"\0\0\0\1", 1), "empty_frames_max"),
    "GOAWAY": (frames(7, 0, bytes(8)), "empty_frames_max"),
    "empty DATA": (frames(0, 0, b"", 1), "empty_frames_max"),
    "DATA that is all padding": (frames(0, 8, b"\3\0\0\0", 1), "empty_frames_max"),
    "PRIORITY": (frames(2, 0, b"\0\0\0\0\x10", 1), "empty_frames_max"),
    "kinds that nobody knows": (frames(0xFE, 0), "empty_frames_max"),
    "RST_STREAM of one stream": (frames(3, 0, b"\0\0\0\x08", 1), "resets_max"),
    "PRIORITY_UPDATE": (frames(0x10, 0, b"\0\0\0\1u=1"), "empty_frames_max"),
    "ALTSVC": (frames(0xA, 0, b"\0\1xh2"), "empty_frames_max"),
    "ORIGIN": (frames(0xC, 0, b"\0\1x"), "empty_frames_max"),
    "CONTINUATION": (
        frames(1, 0, b"\x83", 3) + frames(9, 0, b"", 3) * 100,
        "continuations_max",
    ),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_of_frames_ends_at_its_bound_and_costs_nobody_else(flood: str) -> None:
    data, bound = FLOODS[flood]
    async with serving() as toy, client(toy) as other:
        watching = other.call(WATCH, framed(b""))
        async with client(toy) as there:
            there.call(BOTH, end=False)
            await until(lambda: len(toy.streams) == 2 and all(each.asked for each in toy.streams))
            for _ in range(50):
                there.write(data * 500)
                assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")
            await there.until(lambda: there.over)
            assert there.told_to_calm_down() in {bound.encode(), b"too_many_pings", b""}
        assert toy.counts.refusals == {bound: 1}
        await until(lambda: toy.streams[1].closed)
        toy.streams[0].say(b"end")
        assert await other.status(watching) == (0, "")


async def test_more_calls_than_a_connection_may_have_cost_it() -> None:
    limits = Limits(calls_per_connection_max=3)
    async with serving(limits) as toy, client(toy) as other:
        watching = other.call(WATCH, framed(b""))
        async with client(toy) as there:
            # It says that it knows the bound, and has not read it.
            there.send()
            there.write(frames(4, 1))
            for _ in range(4):
                there.engine.send_request(there.head(WATCH))
            there.send()
            await until(lambda: toy.counts.refusals == {"calls_per_connection_max": 1})
            await there.until(lambda: there.over)
        await until(lambda: sum(each.closed for each in toy.streams) == 3)
        toy.streams[0].say(b"end")
        assert await other.status(watching) == (0, "")


async def test_a_diligent_client_may_open_its_windows_for_each_message() -> None:
    limits = Limits(empty_frames_max=50)
    async with serving(limits) as toy, client(toy) as there:
        stream = there.call(WATCH, framed(b""))
        await until(lambda: toy.streams and toy.streams[0].asked)
        for number in range(1, 200):
            toy.streams[0].say(b"told")
            await there.until(
                lambda number=number: len(there.body(stream)) == 9 * number  # type: ignore[misc]
            )
            there.write(frames(8, 0, b"\0\0\0\1") + frames(8, 0, b"\0\0\0\1", stream))
        toy.streams[0].say(b"end")
        assert await there.status(stream) == (0, "")


async def test_a_call_with_too_many_header_fields_is_refused_and_its_connection_goes_on() -> None:
    async with serving() as toy, client(toy) as there:
        large = tuple((b"x-%d" % number, b"y" * 1_000) for number in range(17))
        code, message = await there.status(there.call(ECHO, framed(b"a"), more=large))
        assert code == 8
        assert "header_list_bytes_max" in message
        assert toy.counts.calls == {(ECHO, Code.RESOURCE_EXHAUSTED): 1}
        many = tuple((b"x-%d" % number, b"") for number in range(500))
        assert (await there.status(there.call(ECHO, framed(b"a"), more=many)))[0] == 8
        assert await there.status(there.call(ECHO, framed(b"a"), more=large[:12])) == (0, "")
        assert toy.counts.refusals == {"header_list_bytes_max": 2}


async def test_far_too_many_header_fields_cost_their_connection() -> None:
    async with serving() as toy, client(toy) as other:
        async with client(toy) as there:
            large = tuple((b"x-%d" % number, b"y" * 1_000) for number in range(65))
            there.call(ECHO, framed(b"a"), more=large)
            await there.until(lambda: there.over)
            assert there.told_to_calm_down() == b"header_list_bytes_max"
        assert toy.counts.refusals == {"header_list_bytes_max": 1}
        assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")


async def test_a_socket_that_takes_nothing_is_not_written_to_for_ever() -> None:
    """Its client goes on sending, and so looks alive."""
    async with serving(Limits(connection_write_s=1)) as toy, client(toy) as other:
        async with client(toy, window=2**31 - 1) as there:
            await deaf(toy, there)
            (stalled,) = (each for each in toy.transport.connections if not each._writable)
            async with asyncio.timeout(PATIENCE_S):
                while stalled in toy.transport.connections:
                    there.write(frames(6, 1, b"12345678"))
                    await asyncio.sleep(0.01)
            assert toy.counts.refusals == {"connection_write_s": 1}
        assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")


async def test_what_takes_several_turns_lets_others_have_theirs() -> None:
    async with serving() as toy, client(toy) as there, client(toy) as other:
        stream = there.call(WATCH, framed(b""))
        await until(lambda: toy.streams and toy.streams[0].asked)
        toy.streams[0].later = 1_000
        toy.streams[0].say(b"worked out")
        assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")
        assert toy.streams[0].later, "somebody was answered meanwhile"
        await there.until(lambda: there.body(stream))
        assert there.body(stream) == framed(b"worked out")
        toy.streams[0].say(b"end")
        assert await there.status(stream) == (0, "")


async def test_the_streams_of_one_connection_do_not_keep_the_loop_together() -> None:
    """Each alone takes 5 ms of a turn; fifty of them took a quarter of a second."""
    async with serving() as toy, client(toy) as there:
        streams = [there.call(WATCH, framed(b"")) for _ in range(50)]
        await until(lambda: len(toy.streams) == 50 and all(each.asked for each in toy.streams))
        for watching in toy.streams:
            watching.later, watching.later_s = 2, 0.005
            watching.say(b"worked out")
        in_a_turn, left = [], 100
        while left:
            await asyncio.sleep(0)
            before, left = left, sum(watching.later for watching in toy.streams)
            in_a_turn.append(before - left)
        assert 1 <= max(in_a_turn) <= 4
        await there.until(lambda: all(map(there.body, streams)))
        for stream in streams:
            there.engine.reset_stream(stream)
        there.send()


async def deaf(toy: Toy, there: Client) -> None:
    """Have a client's socket full: it gives windows without end, and reads nothing."""
    there.engine.set_local_window_size(2**30)
    for _ in range(100):
        there.call(LARGE, framed(b""))
    connections = toy.transport.connections  # It may be left already.
    await until(lambda: not connections or any(not each._writable for each in connections))


async def test_what_a_client_lets_go_of_is_not_kept_while_it_does_not_read() -> None:
    async with serving() as toy, client(toy) as there:
        assert await there.status(there.call(ECHO, framed(b"a"))) == (0, "")
        (connection,) = toy.transport.connections
        connection.pause_writing()  # As the event loop does where a socket is full.
        for number in range(1, 51):
            stream = there.call(WATCH, framed(b""))
            await until(lambda number=number: len(toy.streams) == number)  # type: ignore[misc]
            there.engine.reset_stream(stream)
            there.send()
            await until(lambda: toy.streams[-1].closed)
        assert toy.waiting() == 0
        connection.resume_writing()
        assert await there.status(there.call(ECHO, framed(b"a"))) == (0, "")


@pytest.mark.parametrize("by", ["age", "stop"])
async def test_a_client_that_does_not_read_is_left_all_the_same(by: str) -> None:
    age_s = 0.2 if by == "age" else PATIENCE_S
    limits = Limits(connection_age_s=age_s, connection_age_grace_s=0.05)
    async with serving(limits) as toy, client(toy, window=2**31 - 1) as there:
        await deaf(toy, there)
        if by == "stop":
            await toy.transport.stop(0)
            assert not toy.transport.connections
        await until(lambda: not toy.transport.connections)


async def comes_and_goes(toy: Toy, watches: int, *, close_s: float = 0.0) -> None:
    """Have a client open so many streams, which take `close_s` each to close, and leave."""
    toy.streams.clear()
    async with client(toy) as there:
        for _ in range(watches):
            there.call(WATCH, framed(b"hi"))
        await until(lambda: len(toy.streams) == watches)
        for stream in toy.streams:
            stream.close_s = close_s


async def test_the_calls_of_a_lost_connection_are_let_go_of_some_in_a_turn() -> None:
    """4,000 in one turn of the event loop took 25 to 44 ms."""
    async with serving() as toy:
        await comes_and_goes(toy, 40, close_s=0.001)
        closed = [0]
        async with asyncio.timeout(PATIENCE_S):
            while closed[-1] < 40:
                await asyncio.sleep(0)
                closed.append(sum(stream.closed for stream in toy.streams))
    assert max(after - before for before, after in pairwise(closed)) <= 3, "2 ms of 1 ms each"


async def test_a_fault_at_one_call_of_a_lost_connection_keeps_no_other(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose = StreamCall.lose
    faults = [ValueError("a fault of ours")]

    def faulty(call: StreamCall) -> None:
        lose(call)
        if faults:
            raise faults.pop()

    async with serving() as toy:
        monkeypatch.setattr(StreamCall, "lose", faulty)
        await comes_and_goes(toy, 3)
        await until(lambda: all(stream.closed for stream in toy.streams))
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_fault_as_a_lost_connection_ends_stops_nobody(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = ClientConnection.finish

    def faulty(connection: ClientConnection) -> None:
        finish(connection)
        raise ValueError("a fault of ours")

    async with serving() as toy, client(toy) as other:
        monkeypatch.setattr(ClientConnection, "finish", faulty)
        await comes_and_goes(toy, 1)
        await until(lambda: toy.streams[0].closed)
        assert await other.status(other.call(ECHO, framed(b"a"))) == (0, "")
        monkeypatch.undo()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_client_that_connects_again_gets_back_all_that_it_had() -> None:
    """A lost connection's calls count until it has lost them, which may take some turns."""
    async with serving(Limits(streams_per_client_max=40)) as toy:
        for _ in range(3):
            await comes_and_goes(toy, 40, close_s=0.001)
    assert set(toy.counts.calls) == {(WATCH, Code.CANCELLED)}, "none was refused"


async def test_a_flood_of_frames_is_taken_in_some_pieces_a_turn() -> None:
    """20,000 of the smallest in one segment kept everybody waiting for a quarter of a second."""
    limits = Limits(empty_frames_max=1_000_000)
    async with serving(limits) as toy, client(toy) as there, client(toy) as other:
        assert await there.status(there.call(ECHO, framed(b"a"))) == (0, "")
        there.write(b"\0\0\4\x08\0\0\0\0\0\0\0\0\1" * 20_000)  # WINDOW_UPDATE by 1.
        seen = [0]
        async with asyncio.timeout(PATIENCE_S):
            while not any(seen) or seen[-1]:
                await asyncio.sleep(0)
                seen.append(toy.unread())
        assert max(seen) <= 2 * READ_BYTES, "and the rest waits in the system"
        assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")


async def test_clients_that_all_send_at_once_are_taken_in_by_turns() -> None:
    """Thousands that came back at once kept everybody waiting for a third of a second."""
    limits = Limits(empty_frames_max=1_000_000)
    unknown = ("(unknown)", Code.UNIMPLEMENTED)
    async with serving(limits) as toy, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(toy)) for _ in range(100)]
        for each in clients:
            assert await each.status(each.call(ECHO, framed(b"a"))) == (0, "")
        sent = framed(b"x" * 7_000)
        before = toy.counts.calls[unknown]
        for each in clients:
            each.call("/toy.Toy/None", sent)
        in_a_turn: list[int] = []
        async with asyncio.timeout(PATIENCE_S):
            while sum(in_a_turn) < len(clients):
                await asyncio.sleep(0)
                now = toy.counts.calls[unknown]
                in_a_turn.append(now - before)
                before = now
        assert max(in_a_turn) <= TURN_READ_BYTES // len(sent) + 1
        assert await clients[0].status(clients[0].call(ECHO, framed(b"hi"))) == (0, "")


async def test_a_client_with_many_connections_holds_up_no_other() -> None:
    """One that asked on each of hundreds had all its turns before anybody else had one."""
    asked: list[str] = []

    def note(request: bytes, call: Call) -> bytes:
        asked.append(call.peer)
        return request

    method = UnaryMethod(ECHO, note, RequestBound.ONE_NAME, {}, OPEN_TO_ALL)
    async with serving(methods=[method]) as toy, AsyncExitStack() as stack:
        many = [await stack.enter_async_context(client(toy)) for _ in range(60)]
        other = await stack.enter_async_context(client(toy, address="127.0.0.2"))
        for each in (other, *many):
            assert await each.status(each.call(ECHO, framed(b"a"))) == (0, "")
        asked.clear()
        # The server reads nothing before all is written, and then in this order, or nearly.
        calls = {each: each.call(ECHO, framed(b"a"), now=True) for each in many[:30]}
        asking = other.call(ECHO, framed(b"a"), now=True)
        calls |= {each: each.call(ECHO, framed(b"a"), now=True) for each in many[30:]}
        assert await other.status(asking) == (0, "")
        (place,) = (i for i, peer in enumerate(asked) if peer.startswith("ipv4:127.0.0.2:"))
        assert place < 5, "one or two connections of the client had theirs, and not 30"
        for each, call in calls.items():
            assert await each.status(call) == (0, "")


@pytest.mark.parametrize("broken", ["_engine", "_floods"])
async def test_a_fault_of_ours_at_one_connection_costs_no_other(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It stopped the turn that it was met in, and with that all turns to come."""
    async with serving() as toy, client(toy) as there:
        there.call(WATCH, framed(b""))
        await until(lambda: toy.streams and toy.streams[0].asked)
        (connection,) = toy.transport.connections
        async with client(toy) as other:
            assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")
            setattr(connection, broken, None)
            toy.streams[0].say(b"which meets the fault")
            there.call(ECHO, framed(b"hi"))
            await there.until(lambda: there.over)
            assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")
        assert toy.streams[0].closed
    assert "a fault of ours ends the connection of ipv4:127.0.0.1:" in caplog.text


async def test_connections_are_made_some_in_a_turn() -> None:
    """All that wait to be accepted were accepted in one turn, each with an engine of its own."""
    async with serving() as toy, client(toy) as other:
        assert await other.status(other.call(ECHO, framed(b"a"))) == (0, "")
        waiting = [socket.create_connection(("127.0.0.1", toy.port)) for _ in range(200)]
        made = [1]
        async with asyncio.timeout(PATIENCE_S):
            while made[-1] < 201:
                await asyncio.sleep(0)
                made.append(len(toy.transport.connections))
        assert max(after - before for before, after in pairwise(made)) <= ACCEPTS_A_TURN
        engines = [hasattr(each, "_engine") for each in toy.transport.connections]
        assert sum(engines) == 1, "who has said nothing costs no more than a socket"
        stream = other.call(ECHO, framed(b"hi"))
        for each in waiting:
            each.close()
        assert await other.status(stream) == (0, "")


async def test_rapid_resets_end_at_their_bound_and_cost_nobody_else() -> None:
    async with serving() as toy, client(toy) as other:
        async with client(toy) as there:
            for _ in range(3_000):
                stream = there.call(WATCH, framed(b""))
                there.engine.reset_stream(stream)
            there.send()
            await there.until(lambda: there.over)
            assert there.over
        assert await other.status(other.call(ECHO, framed(b"hi"))) == (0, "")
        assert len(toy.streams) < 3_000
