"""Which states are fed, whatever a watch yields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.feed.states import DB, WEB, absent, endpoint, state
from vmsvc.errors import UnavailableError
from vmsvc.feed.held import Held
from vmsvc.feed.policies import Policies, Policy
from vmsvc.model import AbsenceReason, ServiceState
from vmsvc.state import Disconnected, Event, Synced

KEEP = Policies(absent=Policy.KEEP, no_endpoints=Policy.KEEP)
EMPTY = Policies(absent=Policy.EMPTY, no_endpoints=Policy.EMPTY)
LOST = Disconnected(UnavailableError("gone"), 1.0)
GOOD = state(WEB, "10.0.0.1")
OTHER = state(WEB, "10.0.0.2")
NONE = state(WEB)
NOT_READY = state(WEB, endpoint("10.0.0.1", ready=False))
REFUSED = absent(WEB, reason=AbsenceReason.REFUSED)


class Watched:
    """Gives events to `held` as a watch does, which has the states that it has yielded."""

    def __init__(self, held: Held) -> None:
        self.held = held
        self.complete: dict[str, ServiceState] = {}

    def take(self, *events: Event) -> bool:
        """Whether the last one brought something to feed."""
        news = False
        for event in events:
            if isinstance(event, ServiceState):
                self.complete[event.service] = event
            news = self.held.take(event, self.complete)
        return news


@pytest.mark.parametrize(
    ("policies", "events", "fed"),
    [
        pytest.param(EMPTY, [GOOD, Synced()], GOOD, id="what is there is fed"),
        pytest.param(EMPTY, [GOOD, Synced(), OTHER], OTHER, id="the newest state is fed"),
        pytest.param(EMPTY, [GOOD, Synced(), LOST], GOOD, id="a lost stream changes nothing"),
        pytest.param(EMPTY, [GOOD, Synced(), LOST, OTHER], OTHER, id="news counts before all is"),
        pytest.param(EMPTY, [GOOD, Synced(), absent(WEB)], absent(WEB), id="absent is fed as such"),
        pytest.param(EMPTY, [GOOD, Synced(), REFUSED], REFUSED, id="refused is fed as such"),
        pytest.param(EMPTY, [GOOD, Synced(), NONE], NONE, id="none is fed as such"),
        pytest.param(EMPTY, [absent(WEB), Synced()], absent(WEB), id="absent from the beginning"),
        pytest.param(KEEP, [GOOD, Synced(), absent(WEB)], GOOD, id="absent is kept away"),
        pytest.param(KEEP, [GOOD, Synced(), REFUSED], GOOD, id="refused is kept away"),
        pytest.param(KEEP, [GOOD, Synced(), NONE], GOOD, id="none is kept away"),
        pytest.param(KEEP, [GOOD, Synced(), NOT_READY], GOOD, id="none ready is kept away"),
        pytest.param(
            KEEP, [GOOD, Synced(), absent(WEB), NONE, OTHER], OTHER, id="until one is there"
        ),
        pytest.param(
            KEEP, [absent(WEB), Synced()], None, id="nothing good is known: nothing is fed"
        ),
        pytest.param(KEEP, [NOT_READY, Synced()], None, id="none is ready, nothing is known"),
        pytest.param(
            Policies(absent=Policy.KEEP, no_endpoints=Policy.EMPTY),
            [GOOD, Synced(), NONE, absent(WEB)],
            NONE,
            id="each case has its policy",
        ),
    ],
)
def test_feeds(policies: Policies, events: list[Event], fed: ServiceState | None) -> None:
    held = Held([WEB], policies)
    Watched(held).take(*events)
    assert held.fed().get(WEB) == fed


def test_nothing_is_fed_before_every_service_has_been_answered() -> None:
    held = Held([], EMPTY)
    watched = Watched(held)
    assert not watched.take(GOOD)
    assert not held.known
    assert watched.take(Synced())
    assert held.known


def test_states_of_an_earlier_feed_are_fed_at_once_and_outlive_the_start() -> None:
    held = Held([WEB], EMPTY, [GOOD])
    assert held.known
    watched = Watched(held)
    assert not watched.take(LOST)
    assert not watched.take(GOOD, Synced()), "the same again is no news"
    assert watched.take(OTHER)


def test_a_service_that_went_while_nobody_fed_goes_once_all_is_known() -> None:
    gone = state("shop/gone", "10.0.0.9")
    held = Held([], EMPTY, [GOOD, gone])
    watched = Watched(held)
    watched.take(GOOD)
    assert held.fed()["shop/gone"] == gone
    assert watched.take(Synced())
    fed = held.fed()
    assert not fed["shop/gone"].present
    held.applied(fed)
    assert held.fed().keys() == {WEB}


def test_what_the_server_says_of_a_service_that_went_is_fed_as_it_is() -> None:
    held = Held([], EMPTY)
    watched = Watched(held)
    watched.take(GOOD, Synced(), LOST, absent(WEB))
    del watched.complete[WEB]  # As a watch does for a service that it does not name.
    assert not watched.take(Synced())
    assert held.fed() == {WEB: absent(WEB)}


def test_a_named_service_that_is_absent_is_fed_for_as_long_as_it_is() -> None:
    held = Held([WEB], EMPTY)
    Watched(held).take(absent(WEB), Synced())
    held.applied(held.fed())
    assert held.fed() == {WEB: absent(WEB)}


def test_what_came_while_the_last_states_were_applied_is_not_forgotten() -> None:
    held = Held([], EMPTY)
    watched = Watched(held)
    watched.take(GOOD, Synced(), absent(WEB))
    applied = held.fed()
    watched.take(OTHER)
    held.applied(applied)
    assert held.fed() == {WEB: OTHER}


def test_counts_what_is_kept_by_policy() -> None:
    held = Held([WEB], KEEP)
    watched = Watched(held)
    watched.take(GOOD, Synced(), absent(WEB), absent(WEB))
    assert held.kept == 1
    watched.take(OTHER)
    assert held.kept == 0


STATES = st.sampled_from(
    [
        each
        for name in (WEB, DB)
        for each in (
            state(name, "10.0.0.1"),
            state(name, "10.0.0.1", "10.0.0.2"),
            state(name),
            absent(name),
            absent(name, AbsenceReason.REFUSED),
        )
    ]
)


@given(st.lists(st.one_of(STATES, st.just(Synced()), st.just(LOST))), st.booleans())
def test_says_of_each_change_that_there_is_news(events: list[Event], named: bool) -> None:
    # Who applies at each word of news, and never else, has the newest states.
    held = Held([WEB, DB] if named else [], EMPTY)
    watched = Watched(held)
    applied: dict[str, ServiceState] = {}
    for event in events:
        if watched.take(event):
            fed = held.fed()
            applied = {k: v for k, v in fed.items() if v.present or named}
            held.applied(fed)
        if held.known:
            assert applied == {k: v for k, v in held.fed().items() if v.present or named}
    gone = {k for k, v in watched.complete.items() if v == absent(k)}
    if held.known and not named:
        assert held.fed() == {k: v for k, v in watched.complete.items() if k not in gone}
