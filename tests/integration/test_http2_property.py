"""Whatever a client sends to the transport on libnghttp2, in whatever pieces, costs only itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import ngh2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ngh2 import events

from tests.integration.http2_harness import PATHS, Harness, block, frame, head, play, run
from tests.integration.http2_toy import BOTH, ECHO, PREFACE, WATCH, asking
from vmsvc_grpc.server.call import StreamMethod
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.transport.grpc_wire import HeaderField, framed

ids = st.sampled_from((1, 3, 5, 7, 9, 11, 2, 0))
small = st.binary(max_size=40)
values = st.binary(max_size=100)
grpc_fields = st.tuples(
    st.sampled_from((b"grpc-timeout", b"grpc-encoding", b"content-type", b"x-bin", b"x")),
    st.sampled_from((b"1n", b"99999999H", b"5m", b"gzip", b"identity", b"YQ", b"a,b", b"x" * 120)),
)
more_fields = st.lists(
    st.one_of(
        grpc_fields,
        st.tuples(st.sampled_from((b"x-bin", b"x", b":path", b"te", b"connection")), values),
        st.tuples(values, values),
    ),
    max_size=4,
)
messages = st.one_of(
    st.binary(max_size=3_000).map(framed),
    st.sampled_from((b"\1\0\0\0\1a", b"\0\xff\xff\xff\xff", b"\0\0\0\x17\x70", b"\x07\0\0\0\0")),
    small,
)
frames = st.one_of(
    st.builds(
        lambda id_, path, more, flags: frame(1, flags, id_, block(head(path, more))),
        ids,
        st.sampled_from(PATHS),
        more_fields,
        st.sampled_from((4, 5, 4, 5, 0, 1)),
    ),
    st.builds(
        lambda id_, body, flags: frame(0, flags, id_, body), ids, messages, st.sampled_from((0, 1))
    ),
    st.builds(lambda id_, body: frame(0, 8, id_, bytes((3,)) + body + bytes(3)), ids, small),
    st.builds(lambda id_, code: frame(3, 0, id_, code.to_bytes(4, "big")), ids, st.integers(0, 20)),
    st.builds(
        lambda id_, size: frame(8, 0, id_, size.to_bytes(4, "big")),
        ids,
        st.sampled_from((0, 1, 100, 2**31 - 1)),
    ),
    st.builds(
        lambda key, value: frame(4, 0, 0, key.to_bytes(2, "big") + value.to_bytes(4, "big")),
        st.integers(0, 9),
        st.sampled_from((0, 1, 10, 16_384, 65_535, 2**31 - 1, 2**32 - 1)),
    ),
    st.sampled_from(
        (
            frame(4, 1, 0),
            frame(6, 0, 0, b"12345678"),
            frame(6, 1, 0, b"vmsvc-ag"),
            frame(6, 1, 0, b"vmsvc-ka"),
            frame(7, 0, 0, bytes(8)),
            frame(0xAA, 0, 0, b"unknown"),
        )
    ),
    st.builds(frame, st.integers(0, 12), st.integers(0, 255), ids, small),
    small,
)
# Most of what is drawn freely ends its connection; these go on until something else does.
calm = st.one_of(
    st.builds(
        lambda path, more, ends: (path, more, ends),
        st.sampled_from(PATHS),
        st.one_of(
            st.just([]), st.lists(grpc_fields, max_size=2), st.lists(grpc_fields, max_size=9)
        ),
        st.booleans(),
    ),
    st.builds(
        lambda back, body, ends: (back, body, ends), st.integers(1, 4), messages, st.booleans()
    ),
    st.integers(1, 4),
)
ours = st.sampled_from(("say", "end", "later", "full", "room", "say", "room", "drain", "age"))


class Scripted:
    """Frames of a client that keeps to HTTP/2, by streams counted from the newest."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.open: set[int] = set()

    def frame(self, step: Any) -> bytes:
        match step:
            case (str() as path, list() as more, bool() as ends):
                stream = 2 * len(self.opened) + 1
                self.opened.append(stream)
                if not ends:
                    self.open.add(stream)
                return frame(1, 4 | ends, stream, block(head(path, more)))
            case (int() as back, bytes() as body, bool() as ends):
                stream = self._stream(back)
                if stream not in self.open:
                    return b""
                if ends:
                    self.open.discard(stream)
                return frame(0, ends, stream, body)
        stream = self._stream(step)
        if stream not in self.open:
            return b""
        self.open.discard(stream)
        return frame(3, 0, stream, bytes(3) + b"\x08")

    def _stream(self, back: int) -> int:
        return self.opened[-back] if back <= len(self.opened) else 0


@settings(deadline=None)
@given(st.lists(st.one_of(frames, ours, calm), max_size=60), st.booleans())
def test_whatever_a_client_sends_leaves_nothing_behind(script: list[Any], greeted: bool) -> None:
    async def sent(harness: Harness) -> None:
        if greeted:
            await harness.take(PREFACE + frame(4, 0, 0))
        await follow(script, harness)

    run(sent)


@settings(deadline=None)
@given(st.lists(st.one_of(calm, calm, calm, calm, calm, ours), min_size=20, max_size=100))
def test_whatever_is_called_leaves_nothing_behind(script: list[Any]) -> None:
    async def sent(harness: Harness) -> None:
        await harness.take(PREFACE + frame(4, 0, 0))
        await follow(script, harness)

    run(sent)


async def follow(script: list[Any], harness: Harness) -> None:
    scripted = Scripted()
    for step in script:
        if isinstance(step, str):
            play(step, harness)
            await harness.turns()
        else:
            await harness.take(step if isinstance(step, bytes) else scripted.frame(step))


bodies = st.binary(max_size=300)
calls = st.lists(
    st.tuples(st.sampled_from(PATHS), st.lists(bodies, max_size=3), st.booleans()), max_size=8
)


def whole(script: list[tuple[str, list[bytes], bool]]) -> bytes:
    """What a client sends that makes these calls."""
    engine = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration())
    engine.initiate_connection()
    for path, sent, ends in script:
        stream = engine.send_request(head(path))
        for body in sent:
            engine.send_data(stream, framed(body))
        if ends:
            engine.end_stream(stream)
    return engine.data_to_send()


def answers(written: bytes) -> Counter[tuple[int, str, bytes]]:
    """What an answer says, and on which stream, whatever the order of its pieces."""
    engine = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration())
    engine.initiate_connection()
    for _ in range(len(PATHS) * 2):
        engine.send_request(head(ECHO))
    engine.data_to_send()
    engine.receive_data(written)
    told: dict[tuple[int, str], bytes] = {}
    for event in engine.events():
        if isinstance(event, events.DataReceived):
            key = (event.stream_id, "body")
            told[key] = told.get(key, b"") + event.data
        elif isinstance(event, events.ResponseReceived | events.TrailersReceived):
            told[event.stream_id, type(event).__name__] = repr(sorted(event.headers)).encode()
    return Counter((stream, what, text) for (stream, what), text in told.items())


@settings(deadline=None)
@given(calls, st.lists(st.integers(1, 400), max_size=20))
def test_any_split_of_what_a_client_sends_gives_the_same_calls(
    script: list[tuple[str, list[bytes], bool]], cuts: list[int]
) -> None:
    data = whole(script)
    seen = []
    for sizes in ([len(data)], cuts, [1] * min(len(data), 300)):

        async def sent(harness: Harness, sizes: list[int] = sizes) -> None:
            left = data
            for size in sizes:
                await harness.take(left[:size])
                left = left[size:]
            await harness.take(left)
            requests = [(stream.requests[:1], stream.half_closed) for stream in harness.toy.streams]
            seen.append(
                (answers(bytes(harness.wire.written)), requests, dict(harness.toy.counts.calls))
            )

        run(sent, Limits())
    assert seen[0] == seen[1] == seen[2]


def test_a_socket_with_room_again_before_its_client_has_said_anything() -> None:
    async def room(harness: Harness) -> None:
        play("full", harness)
        play("room", harness)
        await harness.turns()

    run(room)


_DATA = [frame(0, 0, 1, framed(b"x" * 1_000))] * 200

# How a stream begins whose call keeps nothing of what comes, and what comes.
UNKEPT: dict[str, tuple[list[HeaderField], bytes, list[bytes]]] = {
    "refused": (head("/toy.Toy/None"), b"", _DATA),
    "answered": (head(ECHO), frame(0, 0, 1, b"\7" * 5), _DATA),
    "reset": (head(BOTH), frame(3, 0, 1, bytes(3) + b"\x08"), _DATA),
    "no call of gRPC": (asking(ECHO), b"", _DATA),
    "padding": (head(BOTH), b"", [frame(0, 8, 1, b"\xff" + framed(b"x") + bytes(255))] * 800),
    "calls refused within a frame": (
        head("/toy.Toy/None"),
        b"",
        [
            frame(1, 4, stream, block(head("/toy.Toy/None"))) + frame(0, 0, stream, bytes(12_000))
            for stream in range(3, 83, 2)
        ],
    ),
}


@pytest.mark.parametrize("what", UNKEPT)
def test_what_no_call_keeps_leaves_the_window_as_it_was(what: str) -> None:
    """A client that went on calling what is unknown could send nothing more, and was not told."""
    fields, then, pieces = UNKEPT[what]

    async def sent(harness: Harness) -> None:
        await harness.take(PREFACE + frame(4, 0, 0) + frame(1, 4, 1, block(fields)) + then)
        for piece in pieces:
            await harness.take(piece)
        assert not harness.wire.closing

    run(sent, Limits(empty_frames_max=1_000))


def test_a_stream_has_one_timer_however_often_its_client_stalls() -> None:
    """Each stall that was over soon left one, which went on until the end of the stream."""

    async def stalls(harness: Harness) -> None:
        methods = harness.toy.transport.methods
        watch = methods[WATCH]
        assert isinstance(watch, StreamMethod)
        methods[WATCH] = replace(watch, write_s=3_600.0)
        timers = []
        await harness.take(
            PREFACE
            + frame(4, 0, 0)
            + frame(1, 4, 1, block(head(WATCH)))
            + frame(0, 1, 1, framed(b""))
        )
        (call,) = harness.toy.transport.streams
        for _ in range(20):
            play("full", harness)
            play("say", harness)
            await harness.turns()
            assert call._stalled
            timers.append(call._looking)
            play("room", harness)
            await harness.turns()
        assert timers[0] is not None
        assert len(set(map(id, timers))) == 1
        assert not call.timers

    run(stalls, Limits())


def test_a_look_up_that_a_late_flush_leaves_keeps_its_place_before_streams() -> None:
    async def late(harness: Harness) -> None:
        transport, connection = harness.toy.transport, harness.wire.connection
        await harness.take(PREFACE + frame(4, 0, 0))
        connection._came.append(
            frame(1, 4, 1, block(head(ECHO))) + frame(0, 1, 1, framed(b"which is answered later"))
        )
        connection.take_in()
        connection.marked = False
        transport._answering.popleft()
        transport._marked.clear()
        transport.flush_until = 0.0
        connection.flush()
        assert transport._answering.popleft() is connection
        transport._answering.append(connection, connection.client)
        assert b"which is answered later" not in harness.wire.written
        await harness.turns()
        assert b"which is answered later" in harness.wire.written

    run(late)


_PING, _PONG = frame(6, 0, 0, b"measured"), frame(6, 1, 0, b"measured")
_HELLO = PREFACE + frame(4, 0, 0)
_BLOCK = block(head(BOTH))

# What comes before a ping, in pieces; whether it is a ping then, and whether the client may stay.
_PINGED: dict[str, tuple[list[bytes], bool, bool]] = {
    "by itself": ([_HELLO], True, True),
    "with the preface": ([_HELLO], True, True),
    "before SETTINGS": ([PREFACE], False, False),
    "as the body of a request": (
        [_HELLO, frame(1, 4, 1, _BLOCK), frame(0, 0, 1, framed(b"x" * 12))[:9]],
        False,
        True,
    ),
    "within a header block": ([_HELLO, frame(1, 0, 1, _BLOCK)], False, False),
    "after a header block": ([_HELLO, frame(1, 0, 1, _BLOCK), frame(9, 4, 1)], True, True),
}


@pytest.mark.parametrize("when", _PINGED)
def test_a_ping_is_one_only_where_a_frame_may_begin(when: str) -> None:
    """One that comes alone is answered without the engine."""
    before, answered, stays = _PINGED[when]

    async def pinged(harness: Harness) -> None:
        for piece in before[:-1] if when == "with the preface" else before:
            await harness.take(piece)
        if when == "with the preface":
            # Both pieces wait for the connection's turn: its own SETTINGS come first even so.
            connection = harness.wire.connection
            connection._came.extend((before[-1], _PING))
            harness.toy.transport.received(connection)
            await harness.turns()
        else:
            await harness.take(_PING)
        written = bytes(harness.wire.written)
        assert written.count(_PONG) == answered
        assert written[3] == 4, "SETTINGS come first"
        assert harness.wire.closing is not stays

    run(pinged)
