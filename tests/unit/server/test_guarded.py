"""Calls of callers who are asked who they are, and their sessions."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.gate import RightsGate
from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.needs import (
    AUTHENTICATED,
    OPEN,
    Need,
    Needs,
    UrlNeed,
    endpoints_everywhere,
    endpoints_in,
)
from vmsvc_grpc.server.admission import Admission
from vmsvc_grpc.server.call import (
    HELD,
    Call,
    Code,
    Held,
    Later,
    RequestBound,
    RpcError,
    StreamMethod,
    UnaryMethod,
)
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import LongAnswer, Session, Sessions, Status, WaitingCall

PATH = "/p.S/M"
MANY = RequestBound.MANY_NAMES
SHOP, BANK = endpoints_in("get", "shop"), endpoints_in("get", "bank")


def of_request(request: bytes) -> Iterable[Need]:
    """A request that names namespaces, with spaces between them."""
    if request == b"?":
        raise RpcError(Code.INVALID_ARGUMENT, "not a request")
    return (endpoints_in("get", name) for name in request.decode().split())


class Echo:
    """A stream that sends its requests back."""

    shared = None

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.happened: list[str] = []

    @property
    def quiet(self) -> bool:
        return not self.requests

    def receive(self, request: bytes) -> None:
        self.happened.append(f"receive {request.decode()}")
        self.requests.append(request)

    def half_close(self) -> None:
        self.happened.append("half_close")

    def next_message(self) -> bytes | None:
        return self.requests.pop(0) if self.requests else None

    def close(self) -> None:
        self.happened.append("close")


@dataclass
class World:
    limits: Limits = field(default_factory=Limits)
    gate: RightsGate = field(default_factory=RightsGate)
    counts: ServerCounts = field(default_factory=ServerCounts)

    def __post_init__(self) -> None:
        self.admission = Admission(self.limits, self.counts)
        self.now = 100.0
        self.sessions = Sessions(
            self.admission, self.counts, self.limits, self.gate, clock=lambda: self.now
        )
        self.handled: list[Call] = []
        self.streams: list[Echo] = []
        self.wakes = 0

    def wake(self) -> None:
        self.wakes += 1

    def _handle(self, request: bytes, call: Call) -> bytes:
        self.handled.append(call)
        return request

    def _open(self, call: Call, _wake: Callable[[], None]) -> Echo:
        self.handled.append(call)
        self.streams.append(Echo())
        return self.streams[-1]

    def call(
        self, token: str, request: bytes = b"shop", needs: Needs | None = None, port: int = 50_000
    ) -> bytes | Status | WaitingCall | LongAnswer:
        needs = needs or Needs(AUTHENTICATED, of_request)
        method = UnaryMethod(PATH, self._handle, MANY, {}, needs)
        return self.sessions.unary(method, request, caller(token, port), self.wake)

    def open(self, token: str, needs: Needs | None = None, port: int = 50_000) -> Session:
        needs = needs or Needs(AUTHENTICATED, of_request)
        method = StreamMethod(PATH, self._open, MANY, {}, needs, client_streaming=True)
        session = self.sessions.open(method, caller(token, port), self.wake)
        assert isinstance(session, Session)
        return session

    @property
    def unknown(self) -> int:
        """How many calls count for nobody who is known."""
        return self.admission._strangers.in_all + self.admission._newcomers.in_all


def caller(token: str, port: int = 50_000) -> Caller:
    """One who calls by the connection that comes from this port."""
    return Caller(f"ipv4:192.0.2.1:{port}", guarded=True, token=token)


def code_of(answer: bytes | Status | WaitingCall | LongAnswer | Later | Held | None) -> Code:
    assert isinstance(answer, Status), answer
    return answer.code


@pytest.mark.parametrize(
    ("token", "request_", "code"),
    [
        pytest.param("", b"shop", Code.UNAUTHENTICATED, id="nothing that says who calls"),
        pytest.param("", b"?", Code.UNAUTHENTICATED, id="nothing, and no request either"),
        pytest.param("stolen", b"shop", Code.UNAUTHENTICATED, id="a token of nobody"),
        pytest.param("t", b"bank", Code.PERMISSION_DENIED, id="a right of others"),
        pytest.param("t", b"shop bank", Code.PERMISSION_DENIED, id="one right of two"),
        pytest.param("t", b"?", Code.INVALID_ARGUMENT, id="what is no request"),
    ],
)
@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_a_call_that_is_not_granted_never_reaches_its_method(
    kind: str, token: str, request_: bytes, code: Code
) -> None:
    world = World()
    world.gate.admit("t", SHOP)
    if kind == "unary":
        assert code_of(world.call(token, request_)) is code
        assert not world.handled
    else:
        session = world.open(token)
        session.receive(request_)
        assert code_of(session.next()) is code
        session.close()
        assert [each.happened for each in world.streams] in ([], [["close"]])
    assert world.counts.calls == {(PATH, code): 1}
    assert not world.gate.passes, "every pass is given back"


@pytest.mark.parametrize(
    ("need", "words"),
    [
        (SHOP, 'get resource "endpoints" in API group "" in the namespace \'shop\''),
        (endpoints_everywhere("list"), 'list resource "endpoints" in API group "" everywhere'),
        (UrlNeed("get", "/metrics"), 'get path "/metrics"'),
    ],
)
def test_a_refusal_says_what_is_needed_and_nothing_of_what_exists(need: Need, words: str) -> None:
    world = World()
    world.gate.admit("t")
    answer = world.call("t", b"", Needs(AUTHENTICATED, lambda _: [need]))
    assert answer == Status(Code.PERMISSION_DENIED, f"user 'user-of-t' cannot {words}")


def test_an_open_method_asks_nobody() -> None:
    world = World()
    assert world.call("", b"x", Needs(OPEN)) == b"x"
    session = world.open("", Needs(OPEN))
    session.receive(b"x")
    assert session.next() == b"x"
    assert not world.gate.asked
    session.close()


def test_open_streams_of_nobody_keep_out_nobody_who_waits_to_be_known() -> None:
    world = World(Limits(streams_per_client_max=2, streams_max=20))
    world.gate.admit("a", SHOP)
    anonymous = world.open("", Needs(OPEN))
    method = StreamMethod(PATH, world._open, MANY, {}, Needs(OPEN), client_streaming=True)
    refused = world.sessions.open(method, caller(""), world.wake)
    assert isinstance(refused, Status)
    assert refused == Status(
        Code.RESOURCE_EXHAUSTED,
        "callers at this address who do not say who they are have 1 streams open, which is the "
        "limit (streams_per_client_max); say who asks, with a token or a client certificate",
    )
    world.gate.open = False
    waiting = [world.open("a"), world.open("a")]
    assert world.unknown == 2
    world.gate.answer()
    for session in waiting:
        session.receive(b"shop")
        assert session.next() == b"shop"
    for session in (anonymous, *waiting):
        session.close()
    for places in (
        world.admission._streams,
        world.admission._strangers,
        world.admission._newcomers,
        world.admission._anonymous,
    ):
        assert not places._of_client


def test_open_calls_of_nobody_take_no_pace_of_callers_who_wait_to_be_known() -> None:
    world = World(Limits(calls_per_second_max=10, calls_burst_max=20))
    world.gate.admit("a", SHOP)
    for _ in range(2):
        assert world.call("", b"x", Needs(OPEN)) == b"x"
    refused = world.call("", b"x", Needs(OPEN))
    assert isinstance(refused, Status)
    assert refused.code is Code.RESOURCE_EXHAUSTED
    assert "who do not say who they are make more than 1 calls a second" in refused.message
    world.gate.open = False
    waiting = world.call("a")
    assert isinstance(waiting, WaitingCall)
    world.gate.answer()
    assert waiting.answer() == b"shop"


def test_an_open_stream_counts_for_its_caller_if_that_is_known() -> None:
    world = World()
    owner = world.gate.admit("a")
    world.gate.remembered.add("a")
    session = world.open("a", Needs(OPEN))
    session.receive(b"x")
    assert session.next() == b"x"
    assert world.admission._streams.of(f"user:{owner}") == 1
    assert not world.gate.asked, "that it is known costs no question"
    session.close()
    assert not world.admission._streams._of_client


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_a_caller_who_was_known_counts_for_itself_while_that_is_asked_again(kind: str) -> None:
    world = World(Limits(streams_per_client_max=1))
    owner = world.gate.admit("a", SHOP)
    world.gate.open = False
    assert isinstance(world.call("stolen"), WaitingCall)  # It takes its connection's place,
    assert isinstance(world.call("stolen"), WaitingCall)  # and this one the last of strangers.
    assert isinstance(world.call("b"), Status)
    world.gate.remembered.add("a")
    if kind == "unary":
        waiting = world.call("a")
        assert isinstance(waiting, WaitingCall)
        assert world.admission._streams.of(f"user:{owner}") == 1
        world.gate.answer()
        assert waiting.answer() == b"shop"
    else:
        session = world.open("a")
        assert world.admission._streams.of(f"user:{owner}") == 1
        session.receive(b"shop")
        world.gate.answer()
        assert session.next() == b"shop"
        session.close()
    assert not world.admission._streams.in_all


def test_a_call_waits_for_a_verdict_and_is_woken_by_it() -> None:
    world = World()
    world.gate.admit("t", SHOP)
    world.gate.open = False
    waiting = world.call("t")
    assert isinstance(waiting, WaitingCall)
    assert waiting.answer() is None
    newcomers = world.admission._newcomers
    assert newcomers.of("newcomer:ipv4:192.0.2.1:50000") == 1, "it counts while it waits"
    world.gate.answer()
    assert world.wakes == 1
    assert waiting.answer() == b"shop"
    assert [call.username for call in world.handled] == ["user-of-t"]
    assert world.counts.request_bytes == len(b"shop"), "it is read once"
    assert not world.gate.passes
    assert not world.admission._streams.in_all
    assert not world.unknown


@pytest.mark.parametrize("first", [0, 1])
def test_calls_that_wait_have_a_bound(first: int) -> None:
    """One of a connection, and those of strangers at an address."""
    world = World(Limits(streams_per_client_max=1))
    world.gate.open = False
    waiting = [world.call("t"), world.call("t")]
    assert code_of(world.call("t")) is Code.RESOURCE_EXHAUSTED
    leaves = waiting[first]
    assert isinstance(leaves, WaitingCall)
    leaves.close()
    assert isinstance(world.call("t"), WaitingCall)
    assert code_of(world.call("t")) is Code.RESOURCE_EXHAUSTED


def test_bytes_of_calls_that_wait_have_a_bound() -> None:
    world = World(Limits(taking_in_bytes_max=4 * 10))
    world.gate.open = False
    assert isinstance(world.call("t", b"x" * 8), WaitingCall)
    assert code_of(world.call("t", b"x" * 8)) is Code.RESOURCE_EXHAUSTED
    assert code_of(world.call("t", b"x" * 8, port=50_001)) is Code.RESOURCE_EXHAUSTED
    assert world.unknown == 1


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_strangers_who_wait_take_no_place_of_callers_who_are_known(kind: str) -> None:
    world = World(Limits(streams_per_client_max=1, streams_max=1, taking_in_bytes_max=40))
    world.gate.admit("a", SHOP, BANK)
    world.gate.open = False
    waiting = world.call("stolen", b"x" * 10)
    assert isinstance(waiting, WaitingCall)
    world.gate.told = {AUTHENTICATED, SHOP}  # Who calls is known from now on, and this right.
    assert ended(world, kind, "a") is Code.OK
    # One who is known, and waits for a right, does not wait with strangers.
    known = world.call("a", b"bank" + b" bank" * 1)
    assert isinstance(known, WaitingCall)
    assert world.admission._streams.of("user:user-of-a") == 1
    known.close()
    waiting.close()
    assert not world.sessions.taking_in._kept._of_client
    assert not world.sessions.taking_in._of_strangers
    here = world.admission
    for places in (here._streams, here._strangers, here._newcomers):
        assert not places._of_client


def test_a_call_that_waits_counts_for_its_caller_once_that_is_known() -> None:
    world = World()
    world.gate.admit("a", SHOP)
    world.gate.open = False
    waiting = world.call("a")
    assert isinstance(waiting, WaitingCall)
    world.gate.told = {AUTHENTICATED}
    assert waiting.answer() is None
    assert world.admission._streams.of("user:user-of-a") == 1
    assert not world.unknown
    world.gate.answer()
    assert waiting.answer() == b"shop"
    assert not world.admission._streams.in_all


def test_nothing_of_a_strangers_request_is_read() -> None:
    world = World(Limits(request_fields_max=10))
    world.gate.admit("t")
    world.gate.open = False
    session = world.open("t", Needs(AUTHENTICATED))
    session.receive(b"\x08\x01" * 50_000)
    for _ in range(3):
        assert session.next() is HELD
    world.gate.answer()
    while isinstance(said := session.next(), Later):
        pass
    assert code_of(said) is Code.RESOURCE_EXHAUSTED
    session.close()
    stranger = world.open("stolen", Needs(AUTHENTICATED))
    stranger.receive(b"\x08\x01" * 50_000)
    assert code_of(stranger.next()) is Code.UNAUTHENTICATED
    stranger.close()
    assert not world.sessions.taking_in._kept._of_client


def test_a_call_that_is_closed_while_it_waits_is_woken_no_more() -> None:
    world = World()
    world.gate.admit("t", SHOP)
    world.gate.open = False
    waiting = world.call("t")
    assert isinstance(waiting, WaitingCall)
    waiting.close()
    world.gate.answer()
    assert world.wakes == 0
    assert not world.handled


def test_a_stream_holds_its_request_until_the_verdict_is_known() -> None:
    world = World()
    world.gate.admit("t", SHOP)
    world.gate.open = False
    session = world.open("t")
    assert world.wakes == 1, "it is asked soon, to find out who calls"
    session.close()
    session = world.open("t")
    session.receive(b"shop")
    assert session.next() is HELD
    assert session.in_hand, "no other request is handed in meanwhile"
    session.half_close()
    assert not world.streams
    world.gate.answer()
    assert session.next() == b"shop"
    assert world.streams[0].happened == ["receive shop", "half_close"]
    assert [call.username for call in world.handled] == ["user-of-t"]
    session.close()


def test_a_stream_goes_on_as_long_as_all_that_it_was_granted_is() -> None:
    world = World()
    user = world.gate.admit("t", SHOP, BANK)
    session = world.open("t")
    session.receive(b"shop bank")
    assert session.next() == b"shop bank"
    assert session.quiet
    world.gate.grant(user, UrlNeed("get", "/metrics"))
    assert session.next() is None
    world.gate.revoke(user, BANK)
    ending = session.next()
    assert code_of(ending) is Code.PERMISSION_DENIED
    session.close()
    assert not world.gate.passes


def test_a_stream_ends_when_its_token_does() -> None:
    world = World()
    world.gate.admit("t", SHOP)
    session = world.open("t")
    session.receive(b"shop")
    assert session.next() == b"shop"
    world.gate.expire("t")
    assert code_of(session.next()) is Code.UNAUTHENTICATED
    session.close()


def test_a_verdict_that_changes_while_others_are_awaited_counts() -> None:
    world = World()
    user = world.gate.admit("t", SHOP, BANK)
    session = world.open("t")
    session.receive(b"shop")
    assert session.next() == b"shop"
    world.gate.open = False
    session.receive(b"bank")
    assert session.next() is HELD
    world.gate.revoke(user, SHOP)
    world.gate.answer()
    assert code_of(session.next()) is Code.PERMISSION_DENIED
    session.close()


def test_nobody_can_say_what_a_caller_may_do() -> None:
    world = World()
    world.gate.admit("t", SHOP)
    world.gate.away = True
    answer = world.call("t")
    assert code_of(answer) is Code.UNAVAILABLE
    assert isinstance(answer, Status)
    assert answer.details, "it says when to try again"
    session = world.open("t")
    assert code_of(session.next()) is Code.UNAVAILABLE
    session.close()


def test_many_needs_are_asked_for_in_slices() -> None:
    names = [f"ns-{number}" for number in range(2_500)]
    world = World()
    world.gate.admit("t", *(endpoints_in("get", name) for name in names))
    session = world.open("t")
    session.receive(" ".join(names).encode())
    turns = 0
    while not isinstance(said := session.next(), bytes):
        assert isinstance(said, Later)
        turns += 1
    assert turns >= 1
    assert max(world.gate.asked.values()) <= 2
    session.close()


def test_many_needs_are_looked_at_again_in_slices_and_none_is_missed() -> None:
    names = [f"ns-{number}" for number in range(2_500)]
    world = World()
    user = world.gate.admit("t", *(endpoints_in("get", name) for name in names))
    world.gate.open = False
    session = world.open("t")
    session.receive(" ".join(names).encode())
    while isinstance(session.next(), Later):
        pass
    assert session.next() is HELD
    world.gate.answer()
    while isinstance(said := session.next(), Later):
        pass
    assert isinstance(said, bytes)
    world.gate.grant(user, BANK)
    world.gate.asked.clear()
    assert isinstance(session.next(), Later)
    assert world.gate.asked.total() <= 1_001
    # One that has been looked at already is taken away meanwhile.
    world.gate.revoke(user, endpoints_in("get", names[0]))
    while isinstance(said := session.next(), Later):
        pass
    assert code_of(said) is Code.PERMISSION_DENIED
    session.close()


def test_what_a_call_was_asked_for_is_not_let_go() -> None:
    world = World()
    user = world.gate.admit("t", SHOP)
    session = world.open("t")
    session.receive(b"shop")
    assert session.next() == b"shop"
    access = world.handled[0].access
    for need in (SHOP, BANK):
        access.check(need)
        access.let_go(need)
    (entered,) = world.gate.passes
    assert (SHOP in entered._known, BANK in entered._known) == (True, False)
    world.gate.revoke(user, SHOP)
    assert code_of(session.next()) is Code.PERMISSION_DENIED
    session.close()


def test_a_stream_counts_for_who_calls_and_not_for_its_address() -> None:
    world = World(Limits(streams_per_client_max=2))
    for token in "ab":
        world.gate.admit(token, SHOP)
    sessions = []
    for token in "aabb":
        session = world.open(token)
        session.receive(b"shop")
        assert session.next() == b"shop"
        sessions.append(session)
    assert ended(world, "stream", "a") is Code.RESOURCE_EXHAUSTED
    for session in sessions:
        session.close()
    assert not world.admission._streams._of_client
    assert world.counts.streams_open == {PATH: 0}


def test_bytes_of_a_request_count_for_who_calls() -> None:
    size = 100_000
    world = World(Limits(taking_in_bytes_max=4 * size))
    world.gate.admit("t")
    world.gate.open = False
    session = world.open("t", Needs(AUTHENTICATED))
    session.receive(b"x" * size)
    assert world.sessions.taking_in._kept.of("stranger:ipv4:192.0.2.1") == size
    world.gate.answer()
    while isinstance(said := session.next(), Later):
        pass
    assert said == b"x" * size
    assert not world.sessions.taking_in._kept._of_client
    session.close()


def ended(world: World, kind: str, token: str, port: int = 50_000) -> Code:
    """How a call ends."""
    if kind == "unary":
        answer = world.call(token, port=port)
        return Code.OK if answer == b"shop" else code_of(answer)
    method = StreamMethod(
        PATH, world._open, MANY, {}, Needs(AUTHENTICATED, of_request), client_streaming=True
    )
    session = world.sessions.open(method, caller(token, port), world.wake)
    if isinstance(session, Status):
        return session.code
    session.receive(b"shop")
    said = session.next()
    session.close()
    return Code.OK if said == b"shop" else code_of(said)


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_each_caller_has_a_pace_and_strangers_share_that_of_their_address(kind: str) -> None:
    world = World(Limits(calls_per_second_max=1, calls_burst_max=3))
    for token in "ab":
        world.gate.admit(token, SHOP)
    assert [ended(world, kind, "a") for _ in range(4)] == [*[Code.OK] * 3, Code.RESOURCE_EXHAUSTED]
    assert world.counts.refusals == {"calls_per_second_max": 1}
    found = [ended(world, kind, f"stolen-{number}") for number in range(6)]
    assert found == [*[Code.UNAUTHENTICATED] * 5, Code.RESOURCE_EXHAUSTED]
    world.now += 1
    assert ended(world, kind, "b") is Code.OK
    assert ended(world, kind, "a") is Code.OK
    assert ended(world, kind, "a") is Code.RESOURCE_EXHAUSTED
    assert not world.admission._streams.in_all


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_strangers_keep_nobody_out_who_is_known_at_their_address(kind: str) -> None:
    world = World(Limits(calls_per_second_max=1, calls_burst_max=3))
    world.gate.admit("a", SHOP)
    for token in ("", "stolen"):
        while ended(world, kind, token) is Code.UNAUTHENTICATED:
            pass
        assert ended(world, kind, token) is Code.RESOURCE_EXHAUSTED
    assert [ended(world, kind, "a") for _ in range(4)] == [*[Code.OK] * 3, Code.RESOURCE_EXHAUSTED]
    assert not world.gate.passes
    assert not world.admission._streams.in_all


def begun(world: World, kind: str, port: int) -> Any:
    """A call of somebody who is not known yet, by the connection from that port."""
    if kind == "unary":
        return world.call("a", port=port)
    method = StreamMethod(
        PATH, world._open, MANY, {}, Needs(AUTHENTICATED, of_request), client_streaming=True
    )
    return world.sessions.open(method, caller("a", port), world.wake)


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_who_makes_up_tokens_keeps_out_nobody_who_comes_from_there(kind: str) -> None:
    """Neither by calls in vain nor by calls that wait."""
    world = World(Limits(streams_per_client_max=1, calls_per_second_max=1, calls_burst_max=3))
    while ended(world, kind, "stolen") is Code.UNAUTHENTICATED:
        pass
    world.gate.open = False
    assert code_of(begun(world, kind, 50_000)) is Code.RESOURCE_EXHAUSTED, "it was in vain here"
    others = [begun(world, kind, 50_001)]
    assert not isinstance(others[0], Status)
    world.now += 1
    others.append(world.call("stolen"))
    assert isinstance(others[1], WaitingCall), "it has the last place of strangers"
    others.append(begun(world, kind, 50_002))
    assert not isinstance(others[2], Status)
    assert code_of(begun(world, kind, 50_002)) is Code.RESOURCE_EXHAUSTED, "it has one already"
    for other in others:
        other.close()
    assert not world.unknown


@pytest.mark.parametrize("ends", ["held", "open", "denied"])
def test_a_stream_that_is_over_is_in_no_cycle(ends: str) -> None:
    """The collector looks so seldom that the memory of all clients that go would pile up."""

    def come_and_go() -> None:
        session = world.open("t")
        session.receive(b"shop")
        session.next()
        session.close()

    world = World()
    world.gate.admit("t", *([] if ends == "denied" else [SHOP]))
    world.gate.open = ends != "held"
    come_and_go()
    gc.collect()
    gc.disable()
    try:
        come_and_go()
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        pytest.param(lambda waiting: waiting.close(), Code.CANCELLED, id="its client goes away"),
        pytest.param(
            lambda waiting: waiting.fail(RpcError(Code.DEADLINE_EXCEEDED, "too late")),
            Code.DEADLINE_EXCEEDED,
            id="its time is over",
        ),
    ],
)
def test_a_call_that_ends_while_it_waits_is_counted_once(
    ends: Callable[[WaitingCall], object], code: Code
) -> None:
    world = World()
    world.gate.open = False
    waiting = world.call("t")
    assert isinstance(waiting, WaitingCall)
    assert (world.counts.started, world.counts.calls) == ({PATH: 1}, {})
    ends(waiting)
    waiting.close()
    assert (world.counts.started, world.counts.calls) == ({PATH: 1}, {(PATH, code): 1})
    assert not world.gate.passes
