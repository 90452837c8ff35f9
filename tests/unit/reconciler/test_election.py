"""Candidates and one Lease: never do two believe at once that they may write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vmsvc_grpc.model.validate import is_dns_1123_subdomain
from vmsvc_grpc.reconciler.election import (
    Election,
    LeaseRecord,
    LeaseSettings,
    is_named_after,
    lease_name,
)

SETTINGS = LeaseSettings(duration_s=15.0, margin_s=5.0, renew_s=2.0)
ABSENT = LeaseRecord()
OTHERS = LeaseRecord(holder="other", duration_s=15.0, resource_version="1")
YEARS_68_S = 2.0**31 - 1


def candidate(record: LeaseRecord, now: float = 0.0) -> Election:
    election = Election("me", SETTINGS)
    election.observe(record, now)
    return election


def holder(now: float = 0.0) -> Election:
    """A candidate that has taken over a Lease that was given back."""
    election = candidate(replace(OTHERS, holder="", duration_s=1.0), now)
    claim = election.claim(now)
    assert claim is not None
    election.claimed(claim, replace(claim, resource_version="2"), asked_at=now, now=now)
    assert election.leads(now)
    return election


def test_nothing_is_claimed_before_a_look() -> None:
    assert Election("me", SETTINGS).claim(0.0) is None


def test_a_lease_that_was_given_back_is_claimed_at_once() -> None:
    claim = candidate(replace(OTHERS, holder="", duration_s=1.0, transitions=3)).claim(0.0)
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
    election = candidate(replace(OTHERS, holder="", duration_s=1.0), 100.0)
    claim = election.claim(100.0)
    assert claim is not None
    election.claimed(claim, replace(claim, resource_version="2"), asked_at=100.0, now=104.0)
    assert election.leads(109.9)
    assert not election.leads(110.0)


def test_who_sees_another_holder_does_not_lead() -> None:
    election = holder()
    election.observe(replace(OTHERS, resource_version="3"), 1.0)
    assert not election.leads(1.0)


# -- A Lease that is not there. --


def test_one_that_was_never_seen_is_created_at_once_and_led_by_once_a_deleted_one_has_ended() -> (
    None
):
    election = candidate(ABSENT, 100.0)
    claim = election.claim(100.0)
    assert claim == LeaseRecord(holder="me", duration_s=15.0)
    created = replace(claim, resource_version="1")
    election.claimed(claim, created, asked_at=100.0, now=101.0)
    election.claimed(created, replace(created, resource_version="2"), asked_at=108.0, now=108.0)
    assert not election.leads(110.9)
    assert election.leads(111.0)


def test_one_that_is_deleted_counts_as_its_holders_silence() -> None:
    election = candidate(OTHERS)
    election.observe(ABSENT, 10.0)
    # Its holder goes first; then whoever creates it waits as for one that does not renew.
    assert election.claim(14.9) is None
    claim = election.claim(15.0)
    assert claim is not None
    created = replace(claim, resource_version="3")
    election.claimed(claim, created, asked_at=15.0, now=15.0)
    election.claimed(created, replace(created, resource_version="4"), asked_at=24.0, now=24.0)
    assert not election.leads(24.9)
    assert election.leads(25.0)


def test_its_holder_creates_it_again_and_writes_on_once_another_would_have_ended() -> None:
    election = holder(0.0)
    election.observe(ABSENT, 2.0)
    assert election.leads(2.0)
    claim = election.claim(2.0)
    assert claim is not None
    created = replace(claim, resource_version="3")
    election.claimed(claim, created, asked_at=2.0, now=3.0)
    assert not election.leads(3.0)
    election.claimed(created, replace(created, resource_version="4"), asked_at=12.0, now=12.0)
    assert not election.leads(12.9)
    assert election.leads(13.0)


def test_what_was_given_back_and_then_deleted_had_no_holder_to_go_first() -> None:
    election = candidate(replace(OTHERS, holder="", duration_s=1.0))
    election.observe(ABSENT, 1.0)
    assert election.claim(1.0) is not None


# -- What somebody else wrote there. --


@pytest.mark.parametrize(
    ("duration_s", "silence_s"),
    [
        pytest.param(YEARS_68_S, 60.0, id="68 years are a minute"),
        pytest.param(30.0, 30.0, id="another setting than ours"),
        pytest.param(1.0, 15.0, id="no less than ours: it may have been edited"),
        pytest.param(0.0, 15.0, id="none at all"),
    ],
)
def test_how_long_anothers_silence_is_waited_for(duration_s: float, silence_s: float) -> None:
    election = candidate(replace(OTHERS, duration_s=duration_s))
    assert election.claim(silence_s - 0.1) is None
    assert election.claim(silence_s) is not None


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param(replace(OTHERS, holder="", resource_version="2"), id="holder taken out"),
        pytest.param(LeaseRecord(resource_version="2"), id="everything taken out"),
        pytest.param(replace(OTHERS, holder="x", resource_version="2"), id="a third holder"),
        pytest.param(replace(OTHERS, holder="me", resource_version="2"), id="our own name"),
        pytest.param(replace(OTHERS, duration_s=1.0, resource_version="2"), id="shortened"),
    ],
)
def test_what_is_edited_by_hand_says_nothing_of_who_held_it(edited: LeaseRecord) -> None:
    election = candidate(OTHERS)
    election.observe(edited, 10.0)
    if (claim := election.claim(24.9)) is not None:  # Our name may well be renewed.
        election.claimed(claim, replace(claim, resource_version="3"), asked_at=24.9, now=24.9)
    assert not election.leads(24.9)
    assert election.claim(25.0) is not None


def test_a_longer_duration_is_still_waited_for_after_it_was_shortened() -> None:
    election = candidate(replace(OTHERS, duration_s=40.0))
    election.observe(replace(OTHERS, resource_version="2"), 1.0)
    assert election.claim(39.9) is None
    assert election.claim(40.0) is not None


def test_a_holder_that_renews_says_for_how_long_whatever_stood_there_for_a_while() -> None:
    election = candidate(replace(OTHERS, renew_time="1"))
    edited = replace(OTHERS, duration_s=YEARS_68_S, renew_time="1", resource_version="2")
    election.observe(edited, 1.0)
    assert election.claim(60.9) is None
    election.observe(replace(OTHERS, renew_time="2", resource_version="3"), 2.0)
    assert election.claim(16.9) is None
    assert election.claim(17.0) is not None


def test_a_holder_renews_with_its_own_duration() -> None:
    election = holder()
    edited = LeaseRecord(holder="me", duration_s=YEARS_68_S, resource_version="3")
    election.observe(edited, 2.0)
    claim = election.claim(2.0)
    assert claim is not None
    assert claim.duration_s == 15.0
    assert election.leads(2.0)


def test_transitions_end_where_kubernetes_can_count_no_further() -> None:
    most = 2**31 - 1
    claim = candidate(replace(OTHERS, holder="", duration_s=1.0, transitions=most)).claim(0.0)
    assert claim is not None
    assert claim.transitions == most


def test_our_name_in_place_of_one_who_took_over_from_us_is_not_our_renewal() -> None:
    election = holder(0.0)
    election.observe(LeaseRecord(holder="me", duration_s=15.0, resource_version="9"), 100.0)
    claim = election.claim(100.0)
    assert claim is not None
    election.claimed(claim, replace(claim, resource_version="10"), asked_at=100.0, now=100.0)
    assert not election.leads(100.0)


# -- Giving it back. --


def test_it_is_given_back_so_that_nobody_waits() -> None:
    freed = holder().resigned(1.0)
    assert freed is not None
    assert freed.released
    assert candidate(freed, 1.0).claim(1.0) is not None


def test_it_is_not_given_back_while_an_earlier_holder_may_believe_in_it() -> None:
    election = candidate(ABSENT)
    claim = election.claim(0.0)
    assert claim is not None
    election.claimed(claim, replace(claim, resource_version="1"), asked_at=0.0, now=0.0)
    assert election.resigned(9.9) is None
    assert election.resigned(10.0) is not None


# -- Its name. --


@pytest.mark.parametrize(
    ("namespaces", "name"),
    [
        pytest.param((), "vmsvc-grpc", id="all"),
        pytest.param(("shop",), "vmsvc-grpc.shop", id="one"),
        pytest.param(("shop", "data"), "vmsvc-grpc.data.shop", id="two"),
        pytest.param(("data", "shop", "data"), "vmsvc-grpc.data.shop", id="in any order"),
        pytest.param(("a-b",), "vmsvc-grpc.a-b", id="a name that looks like two"),
        pytest.param(("all",), "vmsvc-grpc.all", id="a name that means something else to us"),
    ],
)
def test_deployments_for_the_same_namespaces_share_a_lease(
    namespaces: tuple[str, ...], name: str
) -> None:
    assert lease_name(namespaces) == name
    assert is_named_after(name, "vmsvc-grpc")


def test_names_too_long_for_an_object_are_shortened_and_still_differ() -> None:
    many = tuple(f"{n:03}".rjust(63, "n") for n in range(8))
    names = {lease_name(many), lease_name(many[:-1]), lease_name(tuple(reversed(many)))}
    assert len(names) == 2
    assert all(is_dns_1123_subdomain(name) for name in names)
    assert not any(name.startswith("vmsvc-grpc.") for name in names)
    assert all(is_named_after(name, "vmsvc-grpc") for name in names)
    assert not is_named_after("vmsvc-grpc-canary", "vmsvc-grpc")


@dataclass
class Request:
    """A write on its way, of a replica that runs or has ended."""

    claim: LeaseRecord
    asked_at: float


class Replica:
    """A candidate whose clock has its own origin, and whose requests may hang."""

    def __init__(self, name: str, offset: float, settings: LeaseSettings) -> None:
        self.offset = offset
        self.settings = settings
        self.election = Election(name, settings)
        self.asked: Request | None = None
        self.answer: tuple[Request, LeaseRecord] | None = None


def durations(*seconds: float) -> list[LeaseSettings]:
    return [LeaseSettings(duration_s=s, margin_s=s / 3, renew_s=s / 15) for s in seconds]


class ElectionMachine(RuleBasedStateMachine):
    """Replicas that read, ask, are stopped, woken, killed and begun at any time, over one Lease.

    Somebody deletes and edits it meanwhile. There are few rules, and few lengths of time, of
    which most are those that count: so hypothesis comes to what is rare.
    """

    edited_durations_s = (1.0, 15.0, YEARS_68_S)
    differing = False
    which = st.integers(0, 2)
    holders = st.sampled_from(("", "nobody", "r1", "r2", "r3"))

    @initialize(
        offsets=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
        lengths=st.permutations((6.0, 15.0, 60.0)),
    )
    def start(self, offsets: list[float], lengths: list[float]) -> None:
        self.now = 0.0
        self.version = 0
        self.begun = 0
        self.lease = ABSENT
        self.late: list[Request] = []
        each = durations(*lengths) if self.differing else [SETTINGS] * 3
        self.replicas = [self.new(*both) for both in zip(offsets, each, strict=True)]
        self.put(LeaseRecord(duration_s=1.0))

    def new(self, offset: float, of: LeaseSettings) -> Replica:
        self.begun += 1
        return Replica(f"r{self.begun}", offset, of)

    @rule(which=which)
    def calm(self, which: int) -> None:
        """One leads in the end, and renews; what may go wrong comes after that."""
        for _ in range(4):
            self.now += 61.0
            self.turn(which, 4)
        self.turn(which, 4)

    @rule(seconds=st.sampled_from((0.1, 2.0, 5.0, 10.0, 15.0)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(which=which, steps=st.integers(1, 4))
    def turn(self, which: int, steps: int) -> None:
        """What a replica does over and over, as far as it comes."""
        for step in self.steps[:steps]:
            step(self, self.replicas[which])

    @rule(which=which, lost=st.booleans())
    def go_on(self, which: int, lost: bool) -> None:
        """A request that hung arrives, or its answer does, if it is not lost."""
        one = self.replicas[which]
        if lost:
            one.asked, one.answer = None, None
        (self.arrive if one.asked is not None else self.hear)(one)

    def read(self, one: Replica) -> None:
        one.election.observe(self.lease, self.now + one.offset)

    def ask(self, one: Replica) -> None:
        now = self.now + one.offset
        if one.asked is None and one.answer is None and (claim := one.election.claim(now)):
            one.asked = Request(claim, now)

    def arrive(self, one: Replica) -> None:
        """The request reaches the API server."""
        request, one.asked = one.asked, None
        if request is not None and self.written(request):
            one.answer = (request, self.lease)

    def hear(self, one: Replica) -> None:
        """The answer reaches the replica, however late."""
        if one.answer is not None:
            (request, record), one.answer = one.answer, None
            now = self.now + one.offset
            one.election.claimed(request.claim, record, request.asked_at, now)

    steps = (read, ask, arrive, hear)

    def written(self, request: Request) -> bool:
        """Whether the API server takes it: it refuses what is not of the newest, or is no more."""
        if request.claim.resource_version != self.lease.resource_version:
            return False
        self.put(replace(request.claim, renew_time=f"{self.version}"))
        return True

    def put(self, record: LeaseRecord) -> None:
        self.version += 1
        self.lease = replace(record, resource_version=str(self.version))

    @rule(which=which, gives_back=st.booleans())
    def end(self, which: int, gives_back: bool) -> None:
        """It ends, and another begins in its place; what it has asked for may still arrive."""
        one = self.replicas[which]
        now = self.now + one.offset
        freed = one.election.resigned(now)
        if gives_back and freed is not None:
            self.written(Request(freed, now))
        elif one.asked is not None:
            self.late.append(one.asked)
        self.replicas[which] = self.new(one.offset, one.settings)

    @rule()
    def arrive_from_one_that_has_ended(self) -> None:
        if self.late:
            self.written(self.late.pop(0))

    @rule()
    def delete(self) -> None:
        self.lease = ABSENT

    @rule(holder=holders, most=st.booleans(), duration=st.integers(0, 2))
    def edit(self, holder: str, most: bool, duration: int) -> None:
        """By hand. What looks as if it were given back is, so that is not among it."""
        duration_s = self.edited_durations_s[duration]
        if self.lease.exists and (holder or duration_s > 1.0):
            transitions = 2**31 - 1 if most else 0
            edited = replace(self.lease, holder=holder, duration_s=duration_s)
            self.put(replace(edited, transitions=transitions))

    @invariant()
    def at_most_one_leads(self) -> None:
        leading = [r for r in self.replicas if r.election.leads(self.now + r.offset)]
        assert len(leading) <= 1

    @invariant()
    def the_lease_can_be_written(self) -> None:
        assert self.lease.transitions < 2**31


class MixedElectionMachine(ElectionMachine):
    """The same while a rollout changes the duration; nobody deletes or shortens it then."""

    edited_durations_s = (60.0, 60.0, YEARS_68_S)
    differing = True

    @rule()
    def delete(self) -> None:
        """No candidate can know the duration of a holder that it never saw."""


TestElectionMachine = ElectionMachine.TestCase
TestMixedElectionMachine = MixedElectionMachine.TestCase
_MUCH = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestElectionMachine.settings = _MUCH
TestMixedElectionMachine.settings = _MUCH


@pytest.mark.parametrize("machine", [ElectionMachine, MixedElectionMachine])
def test_walks_at_random(machine: type[ElectionMachine]) -> None:
    """2,000 of them come to more of what is rare than hypothesis does in the same time."""
    for seed in range(2000):
        random = Random(seed)
        walk = machine()
        walk.start([0.0, 1e6, -1e6], random.sample([6.0, 15.0, 60.0], 3))
        for _ in range(50):
            take_a_step(walk, random)
            walk.at_most_one_leads()


def take_a_step(walk: ElectionMachine, random: Random) -> None:
    which = random.randrange(3)
    step: Callable[[], None] = random.choice(
        (
            lambda: walk.calm(which),
            lambda: walk.time_passes(random.choice((0.1, 2.0, 5.0, 10.0, 15.0))),
            lambda: walk.turn(which, random.randint(1, 4)),
            lambda: walk.go_on(which, random.random() < 0.3),
            lambda: walk.end(which, random.random() < 0.5),
            walk.arrive_from_one_that_has_ended,
            walk.delete,
            lambda: walk.edit(random.choice(("", "nobody", "r1", "r2")), True, random.randrange(3)),
        )
    )
    step()
