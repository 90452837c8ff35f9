"""Two candidates and one lease: never do two believe at once that they may write."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vmsvc_grpc.reconciler.leader import Election, LeaseRecord, LeaseSettings

SETTINGS = LeaseSettings(duration_s=15.0, margin_s=5.0, renew_s=2.0)
FREE = LeaseRecord()
OTHERS = LeaseRecord(holder="other", duration_s=15.0, resource_version="1")


def candidate(record: LeaseRecord, now: float = 0.0) -> Election:
    election = Election("me", SETTINGS)
    election.observe(record, now)
    return election


def test_a_lease_that_does_not_exist_is_claimed() -> None:
    claim = candidate(FREE).claim(0.0)
    assert claim == LeaseRecord(holder="me", duration_s=15.0)


def test_a_lease_that_was_given_back_is_claimed_at_once() -> None:
    claim = candidate(replace(OTHERS, holder="", transitions=3)).claim(0.0)
    assert claim is not None
    assert (claim.holder, claim.transitions, claim.resource_version) == ("me", 4, "1")


def test_another_holder_is_left_alone_until_it_has_not_renewed_for_its_duration() -> None:
    election = candidate(OTHERS)
    assert election.claim(14.9) is None
    election.observe(replace(OTHERS, resource_version="2"), 14.9)
    assert election.claim(29.8) is None
    election.observe(replace(OTHERS, resource_version="2"), 29.8)
    assert election.claim(29.9) is not None


def test_writing_ends_before_others_may_take_over_counted_from_the_request() -> None:
    election = candidate(FREE)
    claim = election.claim(100.0)
    assert claim is not None
    election.claimed(replace(claim, resource_version="1"), asked_at=100.0, now=104.0)
    assert election.leads(109.9)
    assert not election.leads(110.0)


def test_who_sees_another_holder_does_not_lead() -> None:
    election = candidate(FREE)
    election.claimed(LeaseRecord(holder="me", duration_s=15.0), asked_at=0.0, now=0.0)
    election.observe(OTHERS, 1.0)
    assert not election.leads(1.0)


class Replica:
    """A candidate whose clock has its own origin, and whose requests may hang."""

    def __init__(self, name: str, offset: float) -> None:
        self.offset = offset
        self.election = Election(name, SETTINGS)
        self.asked: tuple[LeaseRecord, float] | None = None
        self.answer: tuple[LeaseRecord, float] | None = None


class ElectionMachine(RuleBasedStateMachine):
    """Replicas that read, ask, are stopped and woken at any time, over one real lease."""

    @initialize(offsets=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3))
    def start(self, offsets: list[float]) -> None:
        self.now = 0.0
        self.version = 0
        self.lease = LeaseRecord()
        self.replicas = [Replica(f"r{i}", offset) for i, offset in enumerate(offsets)]

    which = st.integers(0, 2)

    @rule(seconds=st.floats(0.01, 20.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(which=which)
    def read(self, which: int) -> None:
        one = self.replicas[which]
        one.election.observe(self.lease, self.now + one.offset)

    @rule(which=which)
    def ask(self, which: int) -> None:
        one = self.replicas[which]
        now = self.now + one.offset
        if one.asked is None and one.answer is None and (claim := one.election.claim(now)):
            one.asked = (claim, now)

    @rule(which=which)
    def arrive(self, which: int) -> None:
        """The request reaches the API server, which refuses what is not the newest."""
        one = self.replicas[which]
        if one.asked is None:
            return
        (claim, asked_at), one.asked = one.asked, None
        if claim.resource_version == self.lease.resource_version:
            self.version += 1
            self.lease = replace(claim, resource_version=str(self.version))
            one.answer = (self.lease, asked_at)

    @rule(which=which)
    def hear(self, which: int) -> None:
        """The answer reaches the replica, however late."""
        one = self.replicas[which]
        if one.answer is not None:
            (record, asked_at), one.answer = one.answer, None
            one.election.claimed(record, asked_at, self.now + one.offset)

    @invariant()
    def at_most_one_leads(self) -> None:
        leading = [r for r in self.replicas if r.election.leads(self.now + r.offset)]
        assert len(leading) <= 1


TestElectionMachine = ElectionMachine.TestCase
TestElectionMachine.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
