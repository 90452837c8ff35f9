"""Messages of a watch in, each service's state out: the contract's rules, one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.unit.client.told import (
    DB,
    HTTP,
    METRICS,
    SYNCED,
    WEB,
    current,
    delta,
    endpoint,
    not_found,
    refused,
    snapshot,
)
from vmsvc import AbsenceReason, Event, ProtocolError, Readiness, ServiceState, Synced
from vmsvc.state import Scope, WatchState
from vmsvc.v1 import endpoint_service_pb2 as pb

ONE = Scope(services=(WEB,))
TWO = Scope(services=(WEB, DB))
SHOP = Scope(namespaces=("shop",))

Messages = Sequence[pb.WatchEndpointsResponse]


def receive(state: WatchState, messages: Messages) -> list[Event]:
    return [event for message in messages for event in state.receive(message)]


def told(events: Sequence[Event]) -> list[str]:
    """Each event as one short text."""
    return [_text(event) for event in events]


def _text(event: Event) -> str:
    if isinstance(event, Synced):
        return "synced"
    assert isinstance(event, ServiceState)
    if event.absence is not None:
        return f"{event.service} {event.absence.reason.value}"
    shown = [e.address if e.ready else f"({e.address})" for e in event.endpoints]
    return f"{event.service} {' '.join(shown)}".rstrip()


ONE_STREAM = [
    pytest.param(ONE, [snapshot(WEB, 1, "a"), SYNCED], ["shop/web a", "synced"], id="a snapshot"),
    pytest.param(ONE, [snapshot(WEB, 1)], ["shop/web"], id="a service with no endpoints is told"),
    pytest.param(
        ONE, [snapshot(WEB, 1, "b", "a")], ["shop/web a b"], id="endpoints are sorted by address"
    ),
    pytest.param(
        ONE,
        [snapshot(WEB, 1, "a"), delta(WEB, 2, upserted=[endpoint("0")])],
        ["shop/web a", "shop/web 0 a"],
        id="endpoints of a delta are sorted in",
    ),
    pytest.param(
        ONE,
        [snapshot(WEB, 1, "a", "b"), delta(WEB, 2, removed=["a"])],
        ["shop/web a b", "shop/web b"],
        id="a delta removes",
    ),
    pytest.param(
        ONE,
        [
            snapshot(WEB, 1, "a"),
            delta(WEB, 2, removed=["a"], upserted=[endpoint("a", ready=False)]),
        ],
        ["shop/web a", "shop/web (a)"],
        id="removed comes first: what is removed and upserted is there",
    ),
    pytest.param(
        ONE,
        [snapshot(WEB, 1, "a"), delta(WEB, 2, removed=["a"], upserted=[endpoint("a", "other")])],
        ["shop/web a", "shop/web a"],
        id="an address that moves to another VM stays (linkerd2: the client ended empty)",
    ),
    pytest.param(
        ONE,
        [snapshot(WEB, 1, "a"), delta(WEB, 2, upserted=[endpoint("a", ready=False)])],
        ["shop/web a", "shop/web (a)"],
        id="upserted replaces the one of the same address and uid",
    ),
    pytest.param(
        ONE,
        [snapshot(WEB, 1, "a"), snapshot(WEB, 2, "a")],
        ["shop/web a"],
        id="the same content again tells nothing",
    ),
    pytest.param(
        ONE,
        [
            not_found(WEB),
            SYNCED,
            snapshot(WEB, 1, "a"),
            delta(WEB, 2, removed=["a"]),
            not_found(WEB),
            snapshot(WEB, 3),
        ],
        [
            "shop/web NOT_FOUND",
            "synced",
            "shop/web a",
            "shop/web",
            "shop/web NOT_FOUND",
            "shop/web",
        ],
        id="absent, created, changed, deleted, created again",
    ),
    pytest.param(
        ONE,
        [not_found(WEB, "is being deleted"), not_found(WEB, "there is none")],
        ["shop/web NOT_FOUND"],
        id="being deleted and deleted are one thing",
    ),
    pytest.param(
        ONE,
        [refused(WEB, "port 0"), refused(WEB, "port 70000"), not_found(WEB)],
        ["shop/web REFUSED", "shop/web REFUSED", "shop/web NOT_FOUND"],
        id="another reason to refuse is told, and that it is gone",
    ),
    pytest.param(TWO, [SYNCED, SYNCED], ["synced", "synced"], id="synced is told as it comes"),
    pytest.param(
        SHOP,
        [refused(WEB), not_found(DB)],
        ["shop/web REFUSED"],
        id="of a namespace, what is gone before it was ever told is not told",
    ),
    pytest.param(
        ONE,
        [pb.WatchEndpointsResponse(), SYNCED],
        ["synced"],
        id="an event not known is passed over",
    ),
]


@pytest.mark.parametrize(("scope", "messages", "expected"), ONE_STREAM)
def test_one_stream(scope: Scope, messages: Messages, expected: list[str]) -> None:
    state = WatchState(scope)
    state.begin()
    assert told(receive(state, messages)) == expected


RESUMED = [
    pytest.param(
        ONE,
        [snapshot(WEB, 7, "a"), SYNCED],
        {WEB: "a"},
        [current(WEB, 1, "a"), SYNCED, delta(WEB, 2, removed=["a"])],
        ["synced", "shop/web"],
        id="what is still true is not repeated, and deltas build on it",
    ),
    pytest.param(
        ONE,
        [snapshot(WEB, 7, "a"), SYNCED],
        {WEB: "a"},
        [snapshot(WEB, 1, "a", revision="of another release"), SYNCED],
        ["synced"],
        id="a snapshot with what is held tells nothing",
    ),
    pytest.param(
        ONE,
        [snapshot(WEB, 7, "a"), SYNCED],
        {WEB: "a"},
        [snapshot(WEB, 1, "b"), SYNCED],
        ["shop/web b", "synced"],
        id="a change made while away",
    ),
    pytest.param(
        TWO,
        [snapshot(WEB, 7, "a"), not_found(DB), SYNCED],
        {WEB: "a", DB: ""},
        [not_found(DB), not_found(WEB), SYNCED],
        ["shop/web NOT_FOUND", "synced"],
        id="of those named, the ones gone while away",
    ),
    pytest.param(
        SHOP,
        [snapshot(WEB, 7, "a"), refused(DB), SYNCED],
        {WEB: "a", DB: ""},
        [current(WEB, 1, "a"), not_found(DB), SYNCED],
        ["shop/db NOT_FOUND", "synced"],
        id="of a namespace, all that is held is named, the refused too",
    ),
    pytest.param(
        SHOP,
        [snapshot(WEB, 7, "a"), snapshot(DB, 8, "b"), not_found(WEB), SYNCED],
        {DB: "b"},
        [current(DB, 1, "b"), SYNCED],
        ["synced"],
        id="of a namespace, what was deleted is forgotten",
    ),
    pytest.param(
        SHOP,
        [snapshot(WEB, 7, "a"), SYNCED],
        {WEB: "a"},
        [SYNCED],
        ["shop/web NOT_FOUND", "synced"],
        id="what has had no answer when all have is gone",
    ),
    pytest.param(
        ONE,
        [snapshot(WEB, 7, "a")],
        {WEB: "a"},
        [current(WEB, 1, "a"), SYNCED],
        ["synced"],
        id="a stream that ended before it was synced is resumed too",
    ),
]


@pytest.mark.parametrize(("scope", "before", "asked", "after", "expected"), RESUMED)
def test_a_resumed_stream(
    scope: Scope, before: Messages, asked: dict[str, str], after: Messages, expected: list[str]
) -> None:
    state = WatchState(scope)
    state.begin()
    receive(state, before)
    state.lost()
    assert not state.synced
    request = state.begin()
    assert {s.service: s.revision for s in request.services} == asked
    assert told(receive(state, after)) == expected
    assert state.synced


VIOLATIONS = [
    pytest.param([delta(WEB, 2)], "a delta came before", id="a delta with nothing held"),
    pytest.param(
        [not_found(WEB), delta(WEB, 2)], "a delta came before", id="a delta of one that is absent"
    ),
    pytest.param(
        [snapshot(WEB, 2, "a"), delta(WEB, 3, removed=["b"])],
        "removes b, which is not held",
        id="a delta from another state",
    ),
    pytest.param(
        [snapshot(WEB, 2, "a"), delta(WEB, 2, removed=["a"])],
        "version 2 came after 2",
        id="a delta that is not newer",
    ),
    pytest.param(
        [snapshot(WEB, 2, "a"), snapshot(WEB, 1)],
        "version 1 came after 2",
        id="a snapshot that is older",
    ),
    pytest.param([current(WEB, 2, "a")], "that is not held", id="current, with nothing held"),
    pytest.param(
        [snapshot(WEB, 2, "a"), current(WEB, 3, "b")],
        "that is not held",
        id="current, of another revision",
    ),
]


@pytest.mark.parametrize(("messages", "sentence"), VIOLATIONS)
def test_what_the_contract_rules_out(messages: Messages, sentence: str) -> None:
    state = WatchState(ONE)
    state.begin()
    receive(state, messages[:-1])
    before = dict(state.states)
    with pytest.raises(ProtocolError, match=f"service shop/web: .*{sentence}"):
        state.receive(messages[-1])
    assert state.states == before


def test_a_delta_builds_on_nothing_of_an_earlier_stream() -> None:
    state = WatchState(ONE)
    state.begin()
    receive(state, [snapshot(WEB, 7, "a")])
    state.lost()
    state.begin()
    with pytest.raises(ProtocolError, match="a delta came before"):
        receive(state, [delta(WEB, 8, removed=["a"])])


def test_after_a_violation_revisions_are_not_sent_until_all_is_known_anew() -> None:
    state = WatchState(SHOP)
    state.begin()
    receive(state, [snapshot(WEB, 1, "a"), snapshot(DB, 2, "b"), SYNCED])
    state.lost(resume=False)
    assert not state.begin().services
    state.lost()
    assert not state.begin().services
    assert told(receive(state, [snapshot(WEB, 3, "a"), SYNCED])) == [
        "shop/db NOT_FOUND",
        "synced",
    ]
    state.lost()
    assert [s.service for s in state.begin().services] == [WEB]


def test_ports_of_a_delta_replace_all_ports_only_if_they_changed() -> None:
    state = WatchState(ONE)
    state.begin()
    receive(state, [snapshot(WEB, 1, ports=[HTTP]), delta(WEB, 2, upserted=[endpoint("a")])])
    assert [port.name for port in state.states[WEB].ports] == ["http"]
    receive(state, [delta(WEB, 3, ports=[METRICS])])
    assert [port.name for port in state.states[WEB].ports] == ["metrics"]
    receive(state, [delta(WEB, 4, ports=[])])
    assert state.states[WEB].ports == ()


def test_a_state_carries_the_newest_version_and_revision() -> None:
    state = WatchState(ONE)
    state.begin()
    receive(state, [snapshot(WEB, 1, "a"), delta(WEB, 5, removed=["a"], revision="r5")])
    assert (state.states[WEB].version, state.states[WEB].revision) == (5, "r5")


def test_a_reason_that_is_not_known_is_an_absence_all_the_same() -> None:
    state = WatchState(ONE)
    state.begin()
    absent = pb.Absent(service=WEB, reason=9, message="new")  # type: ignore[arg-type] # as a newer server
    receive(state, [pb.WatchEndpointsResponse(absent=absent)])
    absence = state.states[WEB].absence
    assert absence is not None
    assert absence.reason is AbsenceReason.UNKNOWN


def test_a_request_says_what_the_scope_says() -> None:
    scope = Scope.of([WEB, WEB], "shop", all_services=False, readiness=Readiness.ALL)
    request = WatchState(scope).begin()
    assert request == pb.WatchEndpointsRequest(
        services=[pb.WatchedService(service=WEB)],
        namespaces=["shop"],
        readiness=pb.READINESS_ALL,
    )
