"""A call without a transport: who gets in, what is counted, and how each one ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn
from urllib.parse import quote

import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.gate import ShutGate
from vmsvc_grpc.server.access.needs import OPEN, Needs
from vmsvc_grpc.server.admission import Admission
from vmsvc_grpc.server.call import (
    LATER,
    Call,
    Code,
    EndOfStream,
    Held,
    Later,
    RequestBound,
    RpcError,
    StreamMethod,
    UnaryMethod,
)
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import (
    OK,
    LongAnswer,
    Session,
    Sessions,
    Status,
    WaitingCall,
    status_of,
)

OPEN_TO_ALL = Needs(OPEN)

CALLER = Caller("ipv4:192.0.2.1:50000")
PATH = "/t.T/M"
ONE, MANY = RequestBound.ONE_NAME, RequestBound.MANY_NAMES


@dataclass
class Toy:
    """A stream that does as told, and keeps what happened to it."""

    receives: Callable[[bytes], None] = lambda _: None
    says: Callable[[], bytes | Later | None] = lambda: None
    half_closes: Callable[[], None] = lambda: None
    closes: Callable[[], None] = lambda: None
    happened: list[str] = field(default_factory=list)
    quiet: bool = False
    shared: None = None

    def receive(self, request: bytes) -> None:
        self.happened.append(f"receive {request.decode()}")
        self.receives(request)

    def half_close(self) -> None:
        self.half_closes()

    def next_message(self) -> bytes | Later | None:
        return self.says()

    def close(self) -> None:
        self.happened.append("close")
        self.closes()


@dataclass
class World:
    limits: Limits = field(default_factory=Limits)
    counts: ServerCounts = field(default_factory=ServerCounts)

    def __post_init__(self) -> None:
        self.admission = Admission(self.limits, self.counts)
        self.sessions = Sessions(self.admission, self.counts, self.limits, ShutGate())

    def unary(self, method: UnaryMethod, request: bytes) -> bytes | Status | LongAnswer:
        answer = self.sessions.unary(method, request, CALLER, lambda: None)
        assert not isinstance(answer, WaitingCall), "everything is allowed"
        return answer

    def opened(self, toy: Toy, bound: RequestBound = MANY, **fields: Any) -> Session:
        method = StreamMethod(
            PATH, lambda *_: toy, bound, {}, OPEN_TO_ALL, client_streaming=True, **fields
        )
        session = self.sessions.open(method, CALLER, lambda: None)
        assert isinstance(session, Session)
        return session


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> NoReturn:
        raise error

    return fail


REFUSAL = RpcError(Code.NOT_FOUND, "there is none")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        pytest.param(REFUSAL, Code.NOT_FOUND, "there is none", id="a refusal"),
        pytest.param(
            ZeroDivisionError("secret"),
            Code.INTERNAL,
            "a fault of the server; its log says more",
            id="a fault of ours",
        ),
    ],
)
class TestFaults:
    def test_of_a_unary_call(self, error: Exception, code: Code, message: str) -> None:
        world = World()
        answer = world.unary(UnaryMethod(PATH, raising(error), ONE, {}, OPEN_TO_ALL), b"")
        assert answer == Status(code, message)
        assert world.counts.calls == {(PATH, code): 1}
        assert world.counts.faults == (code is Code.INTERNAL)

    def test_at_the_beginning(self, error: Exception, code: Code, message: str) -> None:
        world = World()
        method = StreamMethod(PATH, raising(error), MANY, {}, OPEN_TO_ALL, client_streaming=True)
        assert world.sessions.open(method, CALLER, lambda: None) == Status(code, message)
        assert world.counts.calls == {(PATH, code): 1}
        assert world.counts.streams_open[PATH] == 0

    @pytest.mark.parametrize("where", ["receive", "ask", "half-close"])
    def test_of_a_stream(self, where: str, error: Exception, code: Code, message: str) -> None:
        world = World()
        toy = Toy()
        match where:
            case "receive":
                toy.receives = raising(error)
            case "ask":
                toy.says = raising(error)
            case _:
                toy.half_closes = raising(error)
        session = world.opened(toy)
        session.receive(b"1")
        session.half_close()
        assert session.next() == Status(code, message)
        session.close()
        assert toy.happened[-1] == "close"
        assert world.counts.calls == {(PATH, code): 1}
        assert world.counts.streams_open[PATH] == 0


def test_a_fault_as_a_stream_is_closed_stops_nobody_who_ends_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    session = world.opened(Toy(says=raising(EndOfStream()), closes=raising(KeyError("ours"))))
    assert session.next() is OK
    session.close()
    assert world.counts.calls == {(PATH, Code.OK): 1}
    assert world.counts.streams_open[PATH] == 0
    assert f"a fault of ours as a stream of {PATH} was closed" in caplog.text


def test_a_unary_call_is_answered_and_counted() -> None:
    world = World()
    method = UnaryMethod(PATH, lambda request, _: request * 2, ONE, {}, OPEN_TO_ALL)
    assert world.unary(method, b"ab") == b"abab"
    assert world.counts.calls == {(PATH, Code.OK): 1}


@pytest.mark.parametrize(
    ("says", "code"),
    [
        pytest.param(raising(EndOfStream()), Code.OK, id="it has said all"),
        pytest.param(lambda: None, Code.CANCELLED, id="the client went away"),
    ],
)
def test_a_stream_is_counted_by_how_it_ended(says: Callable[[], bytes | None], code: Code) -> None:
    world = World()
    session = world.opened(Toy(says=says))
    assert world.counts.streams_open[PATH] == 1
    ending = session.next()
    assert (ending is OK) is (code is Code.OK)
    session.close()
    assert world.counts.calls == {(PATH, code): 1}
    assert world.counts.streams_open[PATH] == 0


def test_one_request_is_in_hand_until_its_answer_has_been_asked_for() -> None:
    session = World().opened(Toy(says=lambda: b"answer"))
    session.receive(b"1")
    with pytest.raises(AssertionError, match="one request at a time"):
        session.receive(b"2")
    assert session.next() == b"answer"
    session.receive(b"2")
    assert session.in_hand


@pytest.mark.parametrize("said", [b"answer", None], ids=["a message", "nothing"])
def test_a_request_stays_in_hand_while_it_is_taken_in_in_slices(said: bytes | None) -> None:
    says = iter([LATER, LATER, said, LATER])
    session = World().opened(Toy(says=lambda: next(says)))
    session.receive(b"large")
    in_hand = [(session.next(), session.in_hand) for _ in range(4)]
    assert in_hand == [(LATER, True), (LATER, True), (said, False), (LATER, False)]


def test_a_stream_that_is_ended_says_nothing_else() -> None:
    session = World().opened(Toy(says=lambda: b"more"))
    assert session.next() == b"more"
    session.end(REFUSAL)
    assert session.ending
    assert session.next() == Status(Code.NOT_FOUND, "there is none")


def test_a_client_that_takes_in_nothing_is_ended_in_time() -> None:
    session = World().opened(Toy(says=lambda: b"more"), write_s=10.0)
    assert session.write_left_s(0.0) is None
    session.write_began(5.0)
    assert session.writing
    assert session.write_left_s(9.0) == 6.0
    session.write_ended()
    assert session.write_left_s(100.0) is None
    session.write_began(100.0)
    assert session.write_left_s(109.5) == 0.5
    assert session.write_left_s(110.0) == 0.0
    ending = session.next()
    assert isinstance(ending, Status)
    assert ending.code is Code.UNAVAILABLE
    assert "nothing for 10 s" in ending.message


def test_a_stream_without_a_limit_may_take_its_time() -> None:
    session = World().opened(Toy())
    session.write_began(0.0)
    assert session.write_left_s(1e9) is None


SMALL = Limits(one_name_bytes_max=10, message_bytes_max=20)


@pytest.mark.parametrize(
    ("bound", "most", "setting"),
    [
        pytest.param(ONE, 10, "one_name_bytes_max", id="a method that names one thing"),
        pytest.param(MANY, 20, "message_bytes_max", id="a method that names many"),
    ],
)
@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_a_request_that_is_too_large_is_never_read(
    kind: str, bound: RequestBound, most: int, setting: str
) -> None:
    def unary(request: bytes, _call: Call) -> bytes:
        read.append(request)
        return b""

    def answer(request: bytes) -> bytes | Status | LongAnswer | Later | Held | None:
        if kind == "unary":
            return world.unary(UnaryMethod(PATH, unary, bound, {}, OPEN_TO_ALL), request)
        session = world.opened(Toy(receives=read.append, says=lambda: b""), bound=bound)
        session.receive(request)
        answer = session.next()
        session.close()
        return answer

    read: list[bytes] = []
    world = World(SMALL)
    assert answer(b"x" * most) == b""
    refused = answer(b"x" * (most + 1))
    assert isinstance(refused, Status)
    assert refused.code is Code.RESOURCE_EXHAUSTED
    assert f"({setting}) is {most}" in refused.message
    assert list(map(len, read)) == [most]
    assert world.counts.request_bytes == most
    assert world.counts.refusals == {setting: 1}
    assert answer(b"") == b"", "the next is answered"


FIELD = b"\x0a\x00"  # An empty text, or message.
MANY_FIELDS = Limits(request_fields_max=50_000, taking_in_bytes_max=800_000)


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_a_request_with_too_many_fields_is_never_read(kind: str) -> None:
    def unary(request: bytes, _call: Call) -> bytes:
        read.append(request)
        return b""

    def answer(request: bytes) -> bytes | Status | LongAnswer | Later | Held | None:
        if kind == "unary":
            method = UnaryMethod(PATH, unary, MANY, {}, OPEN_TO_ALL)
            return world.unary(method, request)
        session = world.opened(Toy(receives=read.append, says=lambda: b""))
        session.receive(request)
        while (answer := session.next()) is LATER:
            assert session.in_hand
        session.close()
        return answer

    read: list[bytes] = []
    world = World(MANY_FIELDS)
    assert answer(FIELD * 50_000) == b""
    assert answer(FIELD * 50_001) == Status(
        Code.RESOURCE_EXHAUSTED,
        "the request has more than 50000 fields, which is the server's limit (request_fields_max)",
    )
    assert list(map(len, read)) == [100_000]
    assert world.counts.refusals == {"request_fields_max": 1}


def test_a_request_with_too_many_fields_may_cost_itself_alone() -> None:
    dropped: list[tuple[str, str]] = []
    read: list[bytes] = []
    world = World(MANY_FIELDS)
    toy = Toy(receives=read.append, says=lambda: None)
    session = world.opened(toy, on_dropped=lambda *what: dropped.append(what))
    for request in (FIELD * 50_001, FIELD):
        session.receive(request)
        while (answer := session.next()) is LATER:
            pass
        assert answer is None
        assert not session.in_hand
    assert read == [FIELD]
    assert dropped == [("ipv4:192.0.2.1", "request_fields_max")]
    assert world.counts.refusals == {"request_fields_max": 1}
    assert not world.sessions.taking_in._kept.in_all
    session.close()


def test_a_large_request_is_taken_in_in_turns_and_its_end_told_after_it() -> None:
    world = World(MANY_FIELDS)
    toy = Toy(receives=lambda _: None)
    toy.half_closes = lambda: toy.happened.append("half_close")
    session = world.opened(toy)
    session.receive(FIELD * 50_000)
    session.half_close()
    turns = 0
    while session.next() is LATER:
        turns += 1
        assert not toy.happened
    assert turns > 2
    assert [text.split()[0] for text in toy.happened] == ["receive", "half_close"]
    assert not session.in_hand


def test_large_requests_of_a_client_are_bounded_while_they_are_taken_in() -> None:
    said: list[Later | None] = [LATER, None]
    world = World(MANY_FIELDS)
    large = b"x" * 100_000
    first = world.opened(Toy(receives=lambda _: None, says=lambda: said.pop(0)))
    others = [world.opened(Toy()) for _ in range(3)]
    first.receive(FIELD * 50_000)
    others[0].receive(large)
    others[1].receive(large)
    refused = others[1].next()
    assert isinstance(refused, Status)
    assert "(taking_in_bytes_max) is 200000" in refused.message
    others[1].close()
    while said:
        assert first.next() is (LATER if said else None)
    others[2].receive(large)
    assert not isinstance(others[2].next(), Status), "there is room again"
    for session in (first, others[0], others[2]):
        session.close()
    assert not world.sessions.taking_in._kept.in_all
    assert not world.sessions.taking_in._kept._of_client


def test_a_method_that_declares_no_bound_is_none() -> None:
    with pytest.raises(TypeError, match="bound"):
        UnaryMethod(PATH, lambda request, _: request)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="bound"):
        StreamMethod(PATH, lambda *_: Toy(), client_streaming=True)  # type: ignore[call-arg]


def test_each_bound_of_a_request_is_a_setting() -> None:
    assert {bound.value for bound in RequestBound} <= asdict(Limits()).keys()


def test_a_stream_refused_at_a_bound_is_counted_by_the_setting() -> None:
    world = World(Limits(streams_per_client_max=1))
    world.opened(Toy())
    method = StreamMethod(PATH, lambda *_: Toy(), MANY, {}, OPEN_TO_ALL, client_streaming=True)
    for _ in range(2):
        assert isinstance(world.sessions.open(method, CALLER, lambda: None), Status)
    assert world.counts.refusals == {"streams_per_client_max": 2}


def test_while_the_server_drains_nobody_gets_in() -> None:
    world = World()
    world.admission.drain()
    answer = world.unary(UnaryMethod(PATH, lambda request, _: request, ONE, {}, OPEN_TO_ALL), b"")
    assert isinstance(answer, Status)
    assert answer.code is Code.UNAVAILABLE
    method = StreamMethod(PATH, lambda *_: Toy(), MANY, {}, OPEN_TO_ALL, client_streaming=True)
    refused = world.sessions.open(method, CALLER, lambda: None)
    assert isinstance(refused, Status)
    assert refused.code is Code.UNAVAILABLE


@given(st.text(st.characters(), max_size=3000))
def test_a_message_fits_its_header_however_it_is_written(text: str) -> None:
    message = status_of(RpcError(Code.INTERNAL, text)).message
    assert len(quote(message, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")) <= 1000
    assert message.isprintable()


def test_details_that_do_not_fit_are_left_out() -> None:
    small = error_details_pb2.RetryInfo()
    large = error_details_pb2.DebugInfo(detail="x" * 10_000)
    sent = status_of(RpcError(Code.UNAVAILABLE, "later\n", [small, large, small]))
    status = status_pb2.Status.FromString(sent.details)
    packed = Packed()
    packed.Pack(small)
    assert list(status.details) == [packed, packed]
    assert (status.code, status.message) == (Code.UNAVAILABLE, sent.message) == (14, r"later\n")


@pytest.mark.parametrize("failed", [False, True], ids=["made", "fails"])
def test_an_answer_that_is_made_in_pieces_counts_once_it_is_there(failed: bool) -> None:
    world = World()
    pieces: list[bytes | Later] = [LATER, LATER, b"made"]

    def making() -> bytes | Later:
        if failed and len(pieces) == 1:
            raise REFUSAL
        return pieces.pop(0)

    answer = world.unary(UnaryMethod(PATH, lambda *_: making, ONE, {}, OPEN_TO_ALL), b"")
    assert isinstance(answer, LongAnswer)
    assert [answer.answer(), answer.answer()] == [LATER, LATER]
    assert not world.counts.calls
    last = answer.answer()
    if failed:
        assert isinstance(last, Status)
        assert last.code is Code.NOT_FOUND
        assert world.counts.calls == {(PATH, Code.NOT_FOUND): 1}
    else:
        assert last == b"made"
        assert world.counts.calls == {(PATH, Code.OK): 1}


class TestMeasures:
    """What `grpc_server_started_total` and its siblings are made of."""

    def test_every_call_that_begins_also_ends(self) -> None:
        world = World()
        ok = UnaryMethod(PATH, lambda request, _: request, ONE, {}, OPEN_TO_ALL)
        world.unary(ok, b"")
        world.unary(UnaryMethod(PATH, raising(REFUSAL), ONE, {}, OPEN_TO_ALL), b"")
        world.sessions.refuse(PATH, REFUSAL)
        world.sessions.unknown()
        assert world.counts.started == {PATH: 3, "(unknown)": 1}
        assert world.counts.calls.total() == 4
        assert {path: taken.buckets()[-1][1] for path, taken in world.counts.handling.items()} == {
            PATH: 3,
            "(unknown)": 1,
        }

    def test_a_stream_takes_as_long_as_it_is_open(self) -> None:
        counts, now = ServerCounts(), 100.0
        admission = Admission(Limits(), counts)
        sessions = Sessions(admission, counts, Limits(), ShutGate(), clock=lambda: now)
        method = StreamMethod(PATH, lambda *_: Toy(), MANY, {}, OPEN_TO_ALL, client_streaming=True)
        session = sessions.open(method, CALLER, lambda: None)
        assert isinstance(session, Session)
        assert (counts.started, counts.calls) == ({PATH: 1}, {})
        now = 103.5
        session.close()
        assert counts.calls == {(PATH, Code.CANCELLED): 1}
        assert counts.handling[PATH].sum_s == 3.5

    def test_a_stream_that_is_refused_has_begun_and_ended(self) -> None:
        world = World(limits=Limits(streams_max=0))
        method = StreamMethod(PATH, lambda *_: Toy(), MANY, {}, OPEN_TO_ALL, client_streaming=True)
        assert isinstance(world.sessions.open(method, CALLER, lambda: None), Status)
        assert world.counts.started == {PATH: 1}
        assert world.counts.calls == {(PATH, Code.RESOURCE_EXHAUSTED): 1}
