"""Verdicts beside a model of an API server, with any mix of calls, answers, failures and time.

What the API server would say changes; tokens expire; it is away; clocks of the day are set, which
shows in when a token is said to expire. Time here never goes back.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vmsvc_grpc.server.access.facts import Refusal, Seat, Secret, Token, TokenFact
from vmsvc_grpc.server.access.gate import Verdict
from vmsvc_grpc.server.access.needs import AUTHENTICATED, OPEN, Need, ResourceNeed
from vmsvc_grpc.server.access.principal import Principal
from vmsvc_grpc.server.access.verdicts import Question, VerdictBounds, Verdicts
from vmsvc_grpc.server.call import Code, RpcError

BOUNDS = VerdictBounds(
    questions_max=3, questions_per_caller_max=2, idle_tokens_max=4, idle_verdicts_max=4,
    idle_refusals_max=4,
)  # fmt: skip
TOKENS = [b"a", b"b", b"c"]
USERS = ["ann", "bob"]
NEEDS = [ResourceNeed("watch", "", "endpoints", name) for name in ("shop", "data")]
CERTIFIED = Principal(username="bob", groups=("certified",))
LATE_S = 1e-6  # Rounding.

Seen = Verdict | Code


class Call:
    """One call: what it has checked, and what it knew then."""

    def __init__(self) -> None:
        self.woken = False
        self.seat: Seat = Seat(self.wake)
        self.seen: dict[Need, Seen] = {}
        self.closed = False

    def wake(self) -> None:
        assert not self.closed, "a call that is over was woken"
        self.woken = True


class VerdictsBesideAModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.verdicts = Verdicts(BOUNDS, lambda: 0.5)
        self.calls: list[Call] = []
        self.asked: list[Question] = []
        # The truth: whose a token is, until when, and who may do what.
        self.owners: dict[bytes, str] = dict.fromkeys(TOKENS, "ann")
        self.ends: dict[bytes, float] = {}
        self.grants: set[tuple[str, Need]] = set()
        # What was answered last, when, and whether asking has failed since.
        self.answers: dict[Any, tuple[object, float, float | None]] = {}
        self.failed: set[Any] = set()

    # Calls.

    @rule(token=st.sampled_from(TOKENS))
    def call_with_token(self, token: bytes) -> None:
        call = Call()
        call.seat = Seat(call.wake, token=Token("ipv4:192.0.2.1", token, Secret(token.decode())))
        self.calls.append(call)

    @rule(lasts_s=st.none() | st.floats(1, 2000))
    def call_with_certificate(self, lasts_s: float | None) -> None:
        call = Call()
        expires = None if lasts_s is None else self.now + lasts_s
        call.seat = Seat(call.wake, principal=CERTIFIED, expires=expires)
        self.calls.append(call)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), need=st.sampled_from([OPEN, AUTHENTICATED, *NEEDS]))
    def check(self, data: st.DataObject, need: Need) -> None:
        call = data.draw(st.sampled_from(self.calls))
        begins = need not in call.seen
        seen = call.seen[need] = self.seen(call, need)
        self.is_sound(call, need, seen, begins=begins)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.calls))
        self.calls.remove(call)
        call.closed = True
        self.verdicts.close(call.seat)
        self.verdicts.close(call.seat)

    # The API server.

    @rule(token=st.sampled_from(TOKENS), owner=st.sampled_from(["", *USERS]))
    def token_is_whose(self, token: bytes, owner: str) -> None:
        self.owners[token] = owner

    @rule(token=st.sampled_from(TOKENS), lasts_s=st.floats(-10, 2000))
    def token_ends(self, token: bytes, lasts_s: float) -> None:
        """So it does by our clock of the day, which may be set at any time."""
        self.ends[token] = self.now + lasts_s

    @rule(user=st.sampled_from(USERS), need=st.sampled_from(NEEDS))
    def right_given_or_taken(self, user: str, need: Need) -> None:
        self.grants ^= {(user, need)}

    @rule()
    def ask(self) -> None:
        self.asked += self.verdicts.questions()

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        self.give_answer(data.draw(st.sampled_from(self.asked)))

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), retry_after_s=st.sampled_from([0.0, 20.0]))
    def fail(self, data: st.DataObject, retry_after_s: float) -> None:
        question = data.draw(st.sampled_from(self.asked))
        self.asked.remove(question)
        self.failed.add(key(question))
        self.verdicts.failed(question, self.now, retry_after_s=retry_after_s)

    @rule(seconds=st.sampled_from([0.1, 3.0, 6.0, 31.0, 61.0, 601.0]))
    def time_passes(self, seconds: float) -> None:
        self.pass_until(self.now + seconds)

    @rule()
    def all_is_well_for_a_while(self) -> None:
        """Everything is answered at once. Then everybody knows the truth."""
        end = self.now + BOUNDS.recheck_s
        while True:
            self.answer_all()
            at = self.verdicts.next_at()
            if at is None or at > end:
                break
            self.pass_until(max(self.now, at))
        self.pass_until(end)
        self.answer_all()
        for call in self.calls:
            for need in call.seen:
                seen = call.seen[need] = self.seen(call, need)
                while seen is Verdict.PENDING:
                    self.answer_all()
                    seen = call.seen[need] = self.seen(call, need)
                # A call whose token has expired is over: nobody asks again for it.
                if not (over(call, self.now) and seen is Code.UNAUTHENTICATED):
                    assert seen == self.truth(call, need)

    # What holds.

    @invariant()
    def nothing_changes_in_silence(self) -> None:
        for call in self.calls:
            if call.woken:
                call.woken = False
                call.seen = {need: self.seen(call, need) for need in call.seen}
            for need, before in call.seen.items():
                assert self.seen(call, need) == before, "changed, and nobody was woken"
            call.woken = False

    @invariant()
    def questions_are_bounded_and_asked_once(self) -> None:
        assert len(self.asked) == self.verdicts.under_way <= BOUNDS.questions_max
        assert len({key(question) for question in self.asked}) == len(self.asked)
        of_caller = [question.caller for question in self.asked]
        assert all(of_caller.count(c) <= BOUNDS.questions_per_caller_max for c in of_caller)

    @invariant()
    def who_waits_is_being_asked_for(self) -> None:
        pending = any(Verdict.PENDING in call.seen.values() for call in self.calls)
        assert not pending or self.asked or self.verdicts.waiting

    @invariant()
    def nothing_is_left_of_calls_that_are_over(self) -> None:
        if not self.calls and not self.asked:
            assert not self.verdicts._tokens.in_use.in_all
            assert not self.verdicts._rights.in_use.in_all
            assert not self.verdicts.waiting
            assert not len(self.verdicts._alarms)
            tokens = self.verdicts._tokens
            idle = [*tokens._granted._kept.values(), *tokens._refused._kept.values()]
            assert all(fact.secret is None for fact in idle)

    # How it goes.

    def seen(self, call: Call, need: Need) -> Seen:
        before = call.woken
        try:
            return self.verdicts.check(call.seat, need, self.now)
        except RpcError as error:
            # All but the first come with the time to try again.
            return error.code if error.details else Code.UNAUTHENTICATED
        finally:
            assert call.woken == before, "woken within check"

    def is_sound(self, call: Call, need: Need, seen: Seen, *, begins: bool) -> None:
        """What a call is allowed, the API server has said not too long ago."""
        if need is OPEN:
            assert seen is Verdict.ALLOWED
            return
        facts: list[tuple[Any, bool]] = []
        if call.seat.token is not None and seen in (Verdict.ALLOWED, Verdict.DENIED):
            facts.append((call.seat.token.digest, True))
        if need is not AUTHENTICATED and seen in (Verdict.ALLOWED, Verdict.DENIED):
            assert call.seat.principal is not None
            facts.append(((call.seat.principal, need), seen is Verdict.ALLOWED))
        for fact, expected in facts:
            said, at, ends = self.answers[fact]
            assert bool(said) == expected
            assert self.now < at + BOUNDS.stale_s + LATE_S
            assert ends is None or self.now < ends
            if begins and fact not in self.failed and fact != getattr(call.seat.token, "digest", 0):
                assert self.now < at + (BOUNDS.yes_s if said else BOUNDS.no_s) + LATE_S

    def truth(self, call: Call, need: Need) -> Seen:
        if need is OPEN:
            return Verdict.ALLOWED
        if (token := call.seat.token) is not None:
            user = self.owners[token.digest]
            if not user or self.ends.get(token.digest, self.now + 1) <= self.now:
                return Code.UNAUTHENTICATED
        else:
            user = CERTIFIED.username
            if call.seat.expires is not None and call.seat.expires <= self.now:
                return Code.UNAUTHENTICATED
        if need is AUTHENTICATED or (user, need) in self.grants:
            return Verdict.ALLOWED
        return Verdict.DENIED

    def answer_all(self) -> None:
        self.asked += self.verdicts.questions()
        while self.asked:
            self.give_answer(self.asked[0])
            self.asked += self.verdicts.questions()

    def give_answer(self, question: Question) -> None:
        self.asked.remove(question)
        self.failed.discard(key(question))
        if isinstance(question, TokenFact):
            owner = self.owners[question.digest]
            ends = self.ends.get(question.digest) if owner else None
            answer = Principal(username=owner) if owner else Refusal("it is nobody's")
            self.answers[question.digest] = owner, self.now, ends
            self.verdicts.token_answered(question, answer, ends, self.now)
        else:
            granted = (question.principal.username, question.need) in self.grants
            self.answers[key(question)] = granted, self.now, None
            self.verdicts.right_answered(question, granted, self.now)

    def pass_until(self, end: float) -> None:
        for _ in range(1000):
            at = self.verdicts.next_at()
            if at is None or at > end:
                self.now = end
                return
            self.now = max(self.now, at)
            self.verdicts.advance(self.now)
            self.nothing_changes_in_silence()
        raise AssertionError("it is always due")


def over(call: Call, now: float) -> bool:
    return call.seat.token_fact is not None and call.seat.token_fact.expired(now)


def key(question: Question) -> Any:
    if isinstance(question, TokenFact):
        return question.digest
    return question.principal, question.need


TestVerdictsBesideAModel = VerdictsBesideAModel.TestCase
TestVerdictsBesideAModel.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None
)
