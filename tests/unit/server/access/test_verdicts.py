"""When the API server is asked, what calls are told meanwhile, and who is woken."""

from __future__ import annotations

import pytest

from vmsvc_grpc.server.access.facts import Refusal, RightFact, Seat, Secret, Token, TokenFact
from vmsvc_grpc.server.access.gate import Verdict
from vmsvc_grpc.server.access.needs import AUTHENTICATED, OPEN, ResourceNeed
from vmsvc_grpc.server.access.principal import Principal
from vmsvc_grpc.server.access.verdicts import Question, VerdictBounds, Verdicts
from vmsvc_grpc.server.call import Code, RpcError

ANN = Principal(username="ann")
DEFAULTS = VerdictBounds()
NOBODY = Refusal("it is nobody's")


def watch(namespace: str) -> ResourceNeed:
    return ResourceNeed("watch", "", "endpoints", namespace)


SHOP = watch("shop")


class Desk:
    """Verdicts, and an API server that answers when it is told to."""

    def __init__(self, bounds: VerdictBounds = DEFAULTS, jitter: float = 0.0) -> None:
        self.now = 0.0
        self.verdicts = Verdicts(bounds, lambda: jitter)
        self.woken: list[Seat] = []
        self.asked = 0

    def token(self, digest: bytes = b"t", client: str = "ipv4:192.0.2.1") -> Seat:
        seat = Seat(lambda: self.woken.append(seat), token=Token(client, digest, Secret("text")))
        return seat

    def certificate(self, who: Principal = ANN, expires: float | None = None) -> Seat:
        seat = Seat(lambda: self.woken.append(seat), principal=who, expires=expires)
        return seat

    def check(self, seat: Seat, need: ResourceNeed = SHOP) -> Verdict | Code:
        try:
            return self.verdicts.check(seat, need, self.now)
        except RpcError as error:
            return error.code

    def questions(self) -> list[Question]:
        found = list(self.verdicts.questions())
        self.asked += len(found)
        return found

    def answer(
        self,
        *,
        owner: Principal | Refusal = ANN,
        allowed: bool = True,
        expires: float | None = None,
    ) -> int:
        """Answer all that is asked; how much that was."""
        found = self.questions()
        for question in found:
            if isinstance(question, TokenFact):
                self.verdicts.token_answered(question, owner, expires, self.now)
            else:
                self.verdicts.right_answered(question, allowed, self.now)
        return len(found)

    def fail(self) -> int:
        found = self.questions()
        for question in found:
            self.verdicts.failed(question, self.now)
        return len(found)

    def go(self, to: float) -> None:
        """Let time pass; the API server says nothing."""
        while (at := self.verdicts.next_at()) is not None and at <= to:
            self.now = max(self.now, at)
            self.verdicts.advance(self.now)
        self.now = to


def test_a_token_and_then_a_right_are_asked_about_once_for_all_calls() -> None:
    desk = Desk()
    seats = [desk.token() for _ in range(100)]
    assert {desk.check(seat) for seat in seats} == {Verdict.PENDING}
    assert desk.answer() == 1
    assert len(desk.woken) == 100
    assert {desk.check(seat) for seat in seats} == {Verdict.PENDING}
    assert desk.answer() == 1
    assert {desk.check(seat) for seat in seats} == {Verdict.ALLOWED}
    assert desk.asked == 2


def test_what_is_open_asks_nobody() -> None:
    desk = Desk()
    assert desk.verdicts.check(desk.token(), OPEN, 0.0) is Verdict.ALLOWED
    assert desk.verdicts.check(Seat(lambda: None), OPEN, 0.0) is Verdict.ALLOWED
    assert not desk.questions()


def test_whose_a_token_was_last_is_known_until_it_expires_or_the_answer_is_too_old() -> None:
    desk = Desk(VerdictBounds(yes_s=30.0, stale_s=600.0))

    def last(seat: Seat) -> Principal | None:
        return desk.verdicts.last_principal(seat, desk.now)

    first = desk.token()
    assert last(first) is None
    desk.check(first)
    assert last(first) is None
    desk.answer(expires=500.0)
    desk.verdicts.close(first)  # Nobody holds it any more.
    desk.go(40.0)
    again = desk.token()
    assert last(again) == ANN
    assert not desk.questions(), "that asks nothing"
    assert desk.check(again) is Verdict.PENDING, "it is too old for a call to go by it"
    assert last(again) == ANN
    desk.go(500.0)
    assert last(again) is None
    desk.answer(owner=NOBODY)
    assert last(again) is None
    other = desk.token(b"other")
    desk.check(other)
    desk.answer()
    desk.verdicts.close(other)
    desk.now += 600.0
    assert last(desk.token(b"other")) is None
    assert last(desk.certificate(expires=desk.now + 1)) == ANN
    assert last(desk.certificate(expires=desk.now)) is None


def test_a_call_without_credentials_is_told_what_to_send() -> None:
    with pytest.raises(RpcError, match="Bearer") as refused:
        Desk().verdicts.check(Seat(lambda: None), AUTHENTICATED, 0.0)
    assert refused.value.code is Code.UNAUTHENTICATED
    with pytest.raises(RpcError, match="no common name"):
        Desk().verdicts.check(Seat(lambda: None, problem="no common name"), AUTHENTICATED, 0.0)


@pytest.mark.parametrize(("allowed", "new_s"), [(True, 30.0), (False, 5.0)], ids=["yes", "no"])
def test_a_call_that_begins_has_an_answer_that_is_new(allowed: bool, new_s: float) -> None:
    desk = Desk()
    first = desk.certificate()
    desk.check(first)
    desk.answer(allowed=allowed)
    known = desk.check(first)
    desk.verdicts.close(first)
    desk.go(new_s - 0.01)
    assert desk.check(desk.certificate()) is known
    desk.go(new_s)
    assert desk.check(desk.certificate()) is Verdict.PENDING
    assert desk.answer(allowed=allowed) == 1


@pytest.mark.parametrize(("jitter", "again_s"), [(0.0, 60.0), (1.0, 48.0)])
def test_an_open_call_is_asked_about_again_and_woken_if_the_answer_differs(
    jitter: float, again_s: float
) -> None:
    desk = Desk(jitter=jitter)
    seats = [desk.certificate() for _ in range(3)]
    for seat in seats:
        desk.check(seat)
    desk.answer()
    desk.woken.clear()
    desk.go(again_s - 0.01)
    assert not desk.questions()
    desk.go(again_s)
    assert {desk.check(seat) for seat in seats} == {Verdict.ALLOWED}
    assert desk.answer() == 1, "once for all of them"
    assert not desk.woken
    desk.go(2 * again_s)
    assert desk.answer(allowed=False) == 1
    assert desk.woken == seats
    assert desk.check(seats[0]) is Verdict.DENIED


def test_a_token_that_is_taken_away_ends_who_has_it_and_nobody_else() -> None:
    desk = Desk()
    gone, other = desk.token(b"gone"), desk.token(b"other")
    for seat in (gone, other):
        desk.check(seat)
    desk.answer()
    for seat in (gone, other):
        desk.check(seat)
    desk.answer()
    desk.woken.clear()
    desk.go(60.0)
    for question in desk.questions():
        if isinstance(question, RightFact):
            desk.verdicts.right_answered(question, True, desk.now)
        else:
            owner = NOBODY if question.digest == b"gone" else ANN
            desk.verdicts.token_answered(question, owner, None, desk.now)
    assert desk.woken == [gone]
    assert desk.check(gone) is Code.UNAUTHENTICATED
    assert desk.check(other) is Verdict.ALLOWED


def test_a_token_ends_when_it_expires_and_the_certificate_too() -> None:
    desk = Desk()
    seat, certified = desk.token(), desk.certificate(expires=20.0)
    for each in (seat, certified):
        desk.check(each)
    desk.answer(expires=10.0)
    desk.check(seat)
    desk.answer()
    desk.woken.clear()
    desk.go(9.9)
    assert not desk.woken
    assert desk.check(seat) is Verdict.ALLOWED
    desk.go(10.0)
    assert desk.woken == [seat]
    assert desk.check(seat) is Code.UNAUTHENTICATED
    desk.go(20.0)
    assert desk.woken == [seat, certified]
    assert desk.check(certified) is Code.UNAUTHENTICATED


def test_what_is_known_holds_while_the_api_server_is_away_and_then_no_more() -> None:
    desk = Desk()
    known = desk.certificate()
    desk.check(known)
    desk.answer()
    desk.woken.clear()
    while desk.now < 590.0:
        desk.fail()
        assert desk.check(known) is Verdict.ALLOWED
        desk.go(desk.now + 5.0)
    again, new = desk.certificate(), desk.certificate(Principal(username="bob"))
    assert desk.check(again) is Verdict.ALLOWED, "a call of one who is known"
    assert desk.check(new) is Verdict.PENDING
    desk.fail()
    assert desk.check(new) is Code.UNAVAILABLE
    assert desk.woken == [new]
    desk.go(599.9)
    assert desk.check(known) is Verdict.ALLOWED
    desk.go(600.0)
    assert desk.check(known) is Code.UNAVAILABLE
    assert known in desk.woken
    late = desk.certificate()
    assert desk.check(late) is Verdict.PENDING
    desk.fail()
    assert desk.check(late) is Code.UNAVAILABLE
    desk.go(640.0)
    desk.woken.clear()
    assert desk.answer()
    assert known in desk.woken
    assert desk.check(known) is Verdict.ALLOWED


def test_an_error_is_remembered_for_nobody() -> None:
    desk = Desk()
    assert desk.check(desk.certificate()) is Verdict.PENDING
    desk.fail()
    assert desk.check(second := desk.certificate()) is Verdict.PENDING
    desk.answer()
    assert desk.check(second) is Verdict.ALLOWED


def test_who_is_refused_for_want_of_an_answer_is_told_when_to_try_again() -> None:
    desk = Desk()
    seat = desk.token()
    desk.check(seat)
    desk.fail()
    with pytest.raises(RpcError) as refused:
        desk.verdicts.check(seat, SHOP, desk.now)
    assert refused.value.code is Code.UNAVAILABLE
    (detail,) = refused.value.details
    assert detail.DESCRIPTOR.full_name == "google.rpc.RetryInfo"


def test_who_is_not_even_asked_about_waits_only_while_others_are_answered() -> None:
    desk = Desk(VerdictBounds(questions_max=1))
    seats = [desk.token(b"%d" % number, f"ipv4:192.0.2.{number}") for number in range(8)]
    for seat in seats:
        desk.check(seat)
    # The API server is slow: 4 s for each. Nobody is refused.
    for _ in range(4):
        (question,) = desk.questions()
        desk.go(desk.now + 4.0)
        assert isinstance(question, TokenFact)
        desk.verdicts.token_answered(question, ANN, None, desk.now)
    desk.woken.clear()
    # Now it says nothing at all.
    desk.questions()
    desk.go(desk.now + 4.9)
    assert not desk.woken
    desk.go(desk.now + 0.1)
    assert len(desk.woken) == 3
    assert {desk.check(seat) for seat in desk.woken} == {Code.UNAVAILABLE}


def test_questions_of_calls_that_are_over_are_not_asked() -> None:
    desk = Desk()
    for number in range(1000):
        seat = desk.token(b"%d" % number)
        desk.check(seat)
        desk.verdicts.close(seat)
    assert not desk.questions()
    assert (desk.verdicts.tokens, desk.verdicts.rights) == (0, 0)


def test_a_token_whose_owner_changes_has_the_rights_of_the_new_one() -> None:
    desk = Desk()
    seat = desk.token()
    desk.check(seat)
    desk.answer()
    desk.check(seat)
    desk.answer()
    desk.go(60.0)
    desk.woken.clear()
    for question in desk.questions():
        if isinstance(question, TokenFact):
            owner = Principal(username="ann", groups=("less",))
            desk.verdicts.token_answered(question, owner, None, desk.now)
        else:
            desk.verdicts.right_answered(question, True, desk.now)
    assert desk.woken == [seat]
    assert desk.check(seat) is Verdict.PENDING
    desk.answer(allowed=False)
    assert desk.check(seat) is Verdict.DENIED


def test_a_caller_with_very_many_namespaces_is_stopped_and_nobody_else() -> None:
    desk = Desk(VerdictBounds(verdicts_per_caller_max=10, verdicts_max=15))
    many, other = desk.certificate(), desk.certificate(Principal(username="bob"))
    for number in range(10):
        assert desk.check(many, watch(f"n-{number}")) is Verdict.PENDING
    with pytest.raises(RpcError, match="verdicts_per_caller_max") as refused:
        desk.verdicts.check(many, watch("n-10"), 0.0)
    assert refused.value.limit == "verdicts_per_caller_max"
    assert desk.check(many, watch("n-9")) is Verdict.PENDING
    for number in range(5):
        assert desk.check(other, watch(f"n-{number}")) is Verdict.PENDING
    assert desk.check(other, watch("n-5")) is Code.RESOURCE_EXHAUSTED
    desk.verdicts.close(many)
    assert desk.check(other, watch("n-5")) is Verdict.PENDING


def test_calls_that_come_and_go_leave_a_bounded_memory() -> None:
    bounds = VerdictBounds(idle_tokens_max=40, idle_refusals_max=8)
    desk = Desk(bounds)
    for number in range(2000):
        seat = desk.token(b"%d" % number, f"ipv4:192.0.2.{number % 50}")
        desk.check(seat)
        desk.answer(owner=NOBODY if number % 2 else ANN)
        desk.verdicts.close(seat)
    assert desk.verdicts.tokens == 48
    assert len(desk.verdicts._alarms._heap) < 200


def test_what_is_known_of_one_owner_is_kept_once_however_many_tokens() -> None:
    desk = Desk()
    seats = [desk.token(b"%d" % number) for number in range(3)]
    for number, seat in enumerate(seats):
        desk.check(seat)
        groups = tuple(f"group-{each}" for each in range(3 if number < 2 else 2))
        desk.answer(owner=Principal(username="ann", groups=groups, expires_at=float(number)))
        desk.check(seat)
        desk.answer()
    first, second, other = (seat.principal for seat in seats)
    assert first is not None
    assert second is not None
    assert other is not None
    assert first.groups is second.groups
    assert (first.expires_at, second.expires_at) == (0.0, 1.0)
    assert len(other.groups) == 2


def test_a_token_is_kept_only_while_a_call_has_it_and_shown_never() -> None:
    desk = Desk()
    seat = desk.token()
    desk.check(seat)
    (question,) = desk.questions()
    assert isinstance(question, TokenFact)
    assert "text" not in f"{question.secret!r} {question.secret} {seat.token!r}"
    desk.verdicts.token_answered(question, ANN, None, desk.now)
    kept = [question.secret is not None]
    desk.verdicts.close(seat)
    kept.append(question.secret is not None)
    assert kept == [True, False]
    assert seat.token is None
    assert desk.verdicts.tokens == 1


def test_a_right_that_a_call_lets_go_is_asked_about_for_it_no_more() -> None:
    desk = Desk()
    seat = desk.certificate()
    assert desk.check(seat) is Verdict.PENDING
    desk.verdicts.let_go(seat, SHOP)
    assert not desk.questions()
    assert desk.check(seat) is Verdict.PENDING
    desk.answer()
    assert desk.check(seat) is Verdict.ALLOWED
    desk.verdicts.let_go(seat, SHOP)
    desk.verdicts.let_go(seat, SHOP)
    assert not desk.verdicts._rights.in_use.in_all
    desk.verdicts.close(seat)


def test_calls_of_tokens_that_expire_at_once_are_woken_in_slices_and_none_is_missed() -> None:
    desk = Desk(VerdictBounds(recheck_s=60.0))
    seats = [desk.token(b"%d" % (number % 10)) for number in range(1_000)]
    for seat in seats:
        desk.check(seat)
    desk.answer(expires=20.0)
    desk.woken.clear()
    desk.now = 20.0
    while (at := desk.verdicts.next_at()) is not None and at <= desk.now:
        before = len(desk.woken)
        desk.verdicts.advance(desk.now)
        assert 0 < len(desk.woken) - before <= 500
    assert set(desk.woken) == set(seats)


def test_a_call_with_very_many_rights_gives_them_back_in_slices() -> None:
    desk = Desk()
    first, other = desk.certificate(), desk.certificate()
    for number in range(2_000):
        for seat in (first, other):
            assert desk.check(seat, watch(f"n{number}")) is Verdict.PENDING
    in_use = desk.verdicts._rights.in_use
    for seat in (first, other):
        desk.verdicts.close(seat)
        desk.verdicts.close(seat)
    turns, left = 0, in_use.in_all
    while desk.verdicts.leaving:
        desk.verdicts.advance(desk.now)
        assert left - in_use.in_all <= 500
        turns, left = turns + 1, in_use.in_all
    assert turns == 8
    assert left == 0
    assert not desk.questions()
    assert not desk.woken
