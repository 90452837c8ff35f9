"""Who yields to whom, when, and for how long: by a clock of the test's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.objects import WEB, service
from vmsvc_grpc.model.objects import ACCEPTED, Condition, Ingress, ObjectMeta, StoredService
from vmsvc_grpc.reconciler.held import HeldObjects
from vmsvc_grpc.reconciler.plan import Change, plan
from vmsvc_grpc.reconciler.yielding import Patience, Target, Yielding, target

PATIENCE = Patience(
    rounds_max=3, pause_first_s=10.0, pause_max_s=600.0, quiet_s=60.0, memory_s=3600.0
)
META = ObjectMeta(key=WEB, uid="uid")
OURS = StoredService(meta=META, type="ClusterIP")
THEIRS = replace(OURS, type="NodePort")
ABOUT = Target(OURS.kind, WEB, False)


class Desk:
    """One object, what we want it to say, and how often we wrote it."""

    def __init__(self, wanted: StoredService = OURS, patience: Patience = PATIENCE) -> None:
        self.now = 1000.0
        self.wanted: StoredService | None = wanted
        self.held: StoredService | None = THEIRS
        self.yielding = Yielding(patience)
        self.written: list[float] = []

    def turn(self) -> bool:
        """What the loop does when it looks at the service; whether it wrote."""
        observed, wanted = HeldObjects(service=self.held), HeldObjects(service=self.wanted)
        changes = self.yielding.allowed(WEB, plan(wanted, observed), self.now)
        if not changes:
            return False
        self.held = changes[0].after  # type: ignore[assignment]
        self.yielding.written(WEB, changes[0], self.now)
        self.written.append(self.now)
        # It is planned anew after each write.
        self.yielding.allowed(WEB, plan(wanted, HeldObjects(service=self.held)), self.now)
        return True

    @property
    def disputed(self) -> bool:
        return bool(self.yielding.failures(WEB))

    def rounds(self, number: int, theirs: StoredService | None = THEIRS) -> int:
        """So often we look and they change it back at once; how often we wrote."""
        wrote = 0
        for _ in range(number):
            wrote += self.turn()
            self.held = theirs
            self.now += 1
        return wrote


def test_what_several_hands_do_once_each_is_no_disagreement() -> None:
    """A Service is deleted, and its Endpoints with it; these are deleted, too; and then edited."""
    desk = Desk()
    desk.held = None
    for theirs in (None, None, THEIRS, replace(OURS, external_name="x")):
        assert desk.turn()
        desk.held = theirs
        desk.now += 1
    assert desk.turn()
    assert not desk.disputed


def test_one_who_deletes_and_edits_in_turns_is_yielded_to() -> None:
    desk = Desk()
    desk.held = None
    wrote = 0
    for _ in range(10):
        for theirs in (None, THEIRS):
            wrote += desk.turn()
            desk.held = theirs
            desk.now += 1
    assert wrote <= 6
    assert desk.disputed


def test_what_was_changed_back_three_times_in_a_row_is_left_alone() -> None:
    desk = Desk()
    assert desk.rounds(3) == 3
    assert not desk.disputed
    assert desk.rounds(5) == 0
    ((about, fields),) = desk.yielding.undecided(WEB)
    assert about == ABOUT
    assert set(fields) == {("spec", "type")}
    desk.yielding.found(WEB, ABOUT, "'manager'")
    assert list(desk.yielding.undecided(WEB)) == []
    (failure,) = desk.yielding.failures(WEB)
    assert failure.reason == "ChangesDoNotStay"
    assert failure.message == (
        "Service shop/web: spec.type changed back 3 times in a row by 'manager'; left as it is, "
        "and tried again ever more seldom"
    )


def test_the_pause_doubles_at_each_vain_attempt_up_to_ten_minutes() -> None:
    desk = Desk()
    desk.rounds(4)
    attempts: list[float] = []
    for _ in range(10):
        due = desk.yielding.due(WEB, desk.now)
        assert due is not None
        began = desk.now
        desk.now = due - 0.1
        assert not desk.turn()
        desk.now = due
        assert desk.turn()
        desk.held = THEIRS
        desk.turn()
        attempts.append(round(due - began, 1))
    assert attempts[1:] == [20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0, 600.0, 600.0]


def test_something_else_that_we_want_is_written_at_once_and_once() -> None:
    desk = Desk()
    desk.rounds(4)
    desk.wanted = replace(OURS, type="LoadBalancer")
    assert desk.rounds(5) == 1
    assert desk.disputed


@pytest.mark.parametrize(
    "theirs",
    [
        pytest.param(lambda n: replace(OURS, selector={f"k{n}": "v"}), id="another key each time"),
        pytest.param(
            lambda n: replace(THEIRS, meta=replace(META, annotations={"count": str(n)})),
            id="with a mark of their own that counts",
        ),
        pytest.param(lambda n: replace(THEIRS, load_balancer_ip=f"192.0.2.{n}"), id="more fields"),
        pytest.param(lambda _: None, id="they delete it"),
    ],
)
def test_it_counts_what_we_want_and_not_how_they_differ(theirs: Any) -> None:
    desk = Desk()
    desk.held = theirs(0)
    wrote = 0
    for number in range(1, 10):
        held = desk.held
        kept = held.meta.annotations if held else {}
        desk.wanted = replace(OURS, meta=replace(META, annotations=kept))  # Others' marks stay.
        wrote += desk.turn()
        desk.held = theirs(number)
        desk.now += 1
    assert wrote == 3
    assert desk.disputed


def test_a_change_by_hand_now_and_then_is_no_disagreement() -> None:
    desk = Desk()
    for _ in range(10):
        assert desk.turn()
        desk.now += 3601
        desk.turn()
        desk.held = THEIRS
    assert not desk.disputed


def come_back(desk: Desk, until: float) -> None:
    """Let time pass, in which we look at what is due; whatever they do, they do at its end."""
    while (due := desk.yielding.due(WEB, desk.now)) is not None and due < until:
        desk.now = max(due, desk.now + 0.001)
        desk.turn()
    desk.now = until


@given(st.one_of(st.sampled_from([1.0, 59.0, 61.0, 90.0, 180.0, 1800.0]), st.floats(0.1, 3500.0)))
@settings(deadline=None)
def test_one_who_comes_by_ever_again_is_yielded_to_and_told_of_until_the_end(
    period_s: float,
) -> None:
    """A tool that syncs now and then, and changes it back each time, for 60 rounds."""
    desk = Desk()
    disputed = []
    for _ in range(60):
        desk.turn()
        come_back(desk, desk.now + period_s)
        disputed.append(desk.disputed)
        desk.held = THEIRS
    assert disputed == [False] * 3 + [True] * 57, "it begins after three rounds, and never flaps"
    # Those that come by seldom find one attempt each time; they have at most 600 s of ours.
    assert len(desk.written) <= 60
    if period_s < PATIENCE.quiet_s:
        assert len(desk.written) < 20


@given(st.lists(st.floats(0.1, 3500.0), min_size=60, max_size=60))
@settings(deadline=None)
def test_one_who_comes_by_at_any_time_is_told_of_with_few_breaks(waits_s: list[float]) -> None:
    """Each break is of one who stayed away at least twice as long as ever before."""
    desk = Desk()
    breaks = 0
    for wait_s in waits_s:
        desk.turn()
        before = desk.disputed
        come_back(desk, desk.now + wait_s)
        breaks += before and not desk.disputed
        desk.held = THEIRS
    assert breaks <= 6  # From a minute to an hour.
    desk.turn()
    assert desk.disputed


def test_what_is_over_is_on_again_if_it_is_changed_back_once_more() -> None:
    """And is over after twice the time for which it stayed."""
    desk = Desk()
    disputed = []
    desk.rounds(4)
    come_back(desk, desk.now + 100)
    assert desk.held == OURS
    disputed.append(desk.disputed)
    desk.held = THEIRS
    assert not desk.turn()
    disputed.append(desk.disputed)
    come_back(desk, desk.now + 250)
    assert desk.held == OURS
    disputed.append(desk.disputed)
    assert disputed == [False, True, False]


def test_an_hour_later_it_is_no_longer_remembered() -> None:
    desk = Desk()
    desk.rounds(4)
    come_back(desk, desk.now + 3700)
    desk.held = THEIRS
    assert desk.turn()
    assert not desk.disputed


def test_how_long_our_own_result_was_right_does_not_count() -> None:
    """It changes after half an hour, and is fought over then: over after a quiet minute."""
    desk = Desk()
    desk.turn()
    desk.now += 1800
    desk.turn()
    desk.wanted = replace(OURS, type="LoadBalancer")
    desk.rounds(4)
    assert desk.disputed
    desk.held = desk.wanted
    desk.turn()
    assert desk.yielding.due(WEB, desk.now) == desk.now + 60


def test_what_we_want_to_and_fro_is_no_disagreement() -> None:
    desk = Desk()
    for number in range(20):
        desk.wanted = OURS if number % 2 else replace(OURS, type="LoadBalancer")
        assert desk.turn()
        desk.now += 1
    assert not desk.disputed


def test_objects_that_are_deleted_and_made_anew_are_no_disagreement() -> None:
    desk = Desk()
    for number in range(20):
        desk.wanted = None if number % 2 else OURS
        assert desk.turn()
        desk.now += 1
    assert not desk.disputed


def test_it_is_over_after_a_quiet_minute_and_not_before() -> None:
    desk = Desk()
    desk.rounds(4)
    desk.held = OURS  # They have given in.
    desk.turn()
    assert desk.yielding.due(WEB, desk.now) == desk.now + 60
    desk.now += 59
    desk.turn()
    assert desk.yielding.failures(WEB) != ()
    desk.now += 1
    desk.turn()
    assert desk.yielding.failures(WEB) == ()
    assert desk.yielding.due(WEB, desk.now) is None
    desk.now += 3600
    desk.turn()
    assert not desk.yielding._records


def test_a_pause_that_they_cut_short_is_over_with_the_dispute() -> None:
    """They give in during a long pause, and want it otherwise again before its end."""
    desk = Desk()
    desk.rounds(4)
    for _ in range(4):  # The pause is 160 s now, longer than it takes for all to be quiet.
        pause_ends = desk.yielding.due(WEB, desk.now)
        assert pause_ends is not None
        desk.now = pause_ends
        assert desk.turn()
        desk.held = THEIRS
        desk.turn()
    pause_ends = desk.yielding.due(WEB, desk.now)
    assert pause_ends == desk.now + 160
    desk.held = OURS
    desk.turn()
    desk.now += 61
    desk.turn()
    assert not desk.disputed
    assert desk.now < pause_ends
    desk.held = THEIRS
    assert not desk.turn()
    assert desk.yielding.failures(WEB) != ()
    assert desk.yielding.due(WEB, desk.now) == desk.now + PATIENCE.pause_first_s


def test_a_status_is_a_thing_of_its_own() -> None:
    before = service()
    condition = Condition(type=ACCEPTED, status="False")
    assert target(Change(before, replace(before, conditions=(condition,)))).status
    claimed = replace(before, meta=replace(before.meta, finalizers=("a/b",)))
    assert not target(Change(before, claimed)).status


def test_what_was_written_long_ago_is_not_kept() -> None:
    yielding = Yielding(replace(PATIENCE, memory_s=120.0))
    for number in range(1000):
        key = WEB._replace(name=f"s{number}")
        one = replace(OURS, meta=replace(META, key=key))
        yielding.written(key, Change(None, one), float(number))
    # Two minutes of writes, one a second, and some that wait for their turn.
    assert len(yielding._records) <= 240


@pytest.mark.parametrize("owned", [True, False], ids=["with its VMService", "without"])
def test_what_was_written_of_services_that_are_gone_is_kept_for_a_minute(owned: bool) -> None:
    """Each name that there was stayed for an hour, at some 2 KB."""
    yielding = Yielding(PATIENCE)
    for number in range(1000):
        key, now = WEB._replace(name=f"s{number}"), float(number)
        one = replace(OURS, meta=replace(META, key=key))
        yielding.written(key, Change(None, one), now)
        yielding.written(key, Change(one, None), now)
        if owned:
            held = service(key, deleting=True)
            claimed = replace(held, meta=replace(held.meta, finalizers=("a/b",)))
            told = replace(claimed, ingress=(Ingress("10.0.0.1", ""),))
            yielding.written(key, Change(claimed, told), now)
            yielding.written(key, Change(claimed, held), now)
    # A minute of writes, one service a second, and some that wait for their turn.
    assert len(yielding._records) <= 120


def test_what_somebody_makes_again_after_its_end_is_yielded_to() -> None:
    desk = Desk()
    desk.turn()
    desk.wanted = None
    assert desk.rounds(20, OURS) == 4
    assert desk.disputed
    # Others' writes are what old records are forgotten by.
    for number in range(100):
        key = WEB._replace(name=f"s{number}")
        one = replace(OURS, meta=replace(META, key=key))
        desk.yielding.written(key, Change(None, one), desk.now + number)
    assert desk.disputed


TYPES = ("ClusterIP", "LoadBalancer")
SHORT = Patience(rounds_max=3, pause_first_s=4.0, pause_max_s=32.0, quiet_s=8.0, memory_s=50.0)


class TwoWriters(RuleBasedStateMachine):
    """We and another writer, with an hour of a clock that either may let pass.

    Whatever they do: our writes are few in any window, the dispute lasts as long as it must,
    and once they stop, what is held is what we want.
    """

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(patience=SHORT)
        self.own_changes = 0
        self.disagreed_at = float("-inf")
        self._turn()

    def _turn(self) -> None:
        desk = self.desk
        before = desk.disputed
        if desk.held != desk.wanted:
            self.disagreed_at = desk.now
        desk.turn()
        if before and not desk.disputed:
            assert desk.now >= self.disagreed_at + SHORT.quiet_s

    @rule(kind=st.sampled_from([*TYPES, "NodePort", None]))
    def they_write(self, kind: str | None) -> None:
        self.desk.held = replace(OURS, type=kind) if kind else None
        self._turn()

    @rule(kind=st.sampled_from(TYPES))
    def we_want(self, kind: str) -> None:
        wanted = replace(OURS, type=kind)
        self.own_changes += wanted != self.desk.wanted
        self.desk.wanted = wanted
        self._turn()

    @rule(passed_s=st.sampled_from([0.5, 1.0, 5.0, 9.0, 40.0]))
    def time_passes(self, passed_s: float) -> None:
        self.desk.now += passed_s
        self._turn()

    @precondition(lambda self: self.desk.disputed)
    @rule()
    def we_come_back_when_it_is_due(self) -> None:
        due = self.desk.yielding.due(WEB, self.desk.now)
        assert due is not None
        self.desk.now = due
        self._turn()

    @invariant()
    def writes_are_few(self) -> None:
        """In a window as long as the first pause: three rounds, and one write for each wish."""
        window = [at for at in self.desk.written if at > self.desk.now - SHORT.pause_first_s]
        assert len(window) <= 2 * SHORT.rounds_max * (1 + self.own_changes)

    @invariant()
    def all_is_right_once_they_stop(self) -> None:
        desk = self.desk
        held, wanted, now = desk.held, desk.wanted, desk.now
        if held == wanted:
            return
        due = desk.yielding.due(WEB, now)
        assert due is not None, "what is left alone is come back to"
        assert due <= now + SHORT.pause_max_s

    def teardown(self) -> None:
        """They stop: what we want is held after one pause, and a quiet while ends all."""
        desk, stopped = self.desk, self.desk.now
        while (due := desk.yielding.due(WEB, desk.now)) is not None:
            desk.now = due
            self._turn()
        assert desk.held == desk.wanted
        assert desk.now <= stopped + SHORT.pause_max_s + SHORT.memory_s


TestTwoWriters = TwoWriters.TestCase
TestTwoWriters.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(st.lists(st.floats(0.01, 30.0), min_size=1, max_size=200))
@settings(deadline=None)
def test_one_who_never_stops_gets_few_writes(waits: list[float]) -> None:
    """Three rounds, and one write for each pause; each pause is longer than the one before."""
    desk = Desk()
    began = desk.now
    for wait_s in waits:
        desk.turn()
        desk.held = THEIRS
        desk.now += wait_s
    elapsed_s = desk.now - began
    attempts, spent_s, pause_s = 3, 0.0, PATIENCE.pause_first_s
    while spent_s + pause_s <= elapsed_s:
        spent_s, attempts = spent_s + pause_s, attempts + 1
        pause_s = min(2 * pause_s, PATIENCE.pause_max_s)
    assert len(desk.written) <= attempts
