"""Who calls and what they may do, as far as an API server has said so: the rules of time.

Pure: no task, no clock, no connection. It is told what calls check and what was answered, and says
what to ask, and wakes calls. All times are seconds of a clock that never goes back.

A yes is new for `yes_s` and a no for `no_s`: so long it is given to calls that begin. A call that
has an answer goes by it, while the question is asked again every `recheck_s`. Where no answer can
be had, the last one holds until it is `stale_s` old; a call that has none is refused. An error is
never an answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from weakref import WeakValueDictionary

from vmsvc_grpc.backoff import Backoff
from vmsvc_grpc.server.access.alarms import Alarms
from vmsvc_grpc.server.access.facts import (
    Asking,
    Refusal,
    RightFact,
    Seat,
    Standing,
    Token,
    TokenFact,
)
from vmsvc_grpc.server.access.gate import Verdict
from vmsvc_grpc.server.access.line import Line
from vmsvc_grpc.server.access.memory import Memory
from vmsvc_grpc.server.access.needs import OPEN, Entry, Need, ResourceNeed, UrlNeed
from vmsvc_grpc.server.access.principal import Principal
from vmsvc_grpc.server.call import Code, RpcError, unavailable

Question = TokenFact | RightFact
"""What is asked of the API server: whose a token is, or whether somebody has a right."""

_NO_CREDENTIALS = (
    "this call does not say who asks; send a bearer token (metadata `authorization: Bearer "
    "TOKEN`), or connect with a client certificate"
)
_EXPIRED = "the bearer token has expired; send a new one"
_CERTIFICATE_EXPIRED = "the client's certificate has expired; connect with a new one"

# Re-asks come up to a fifth earlier, so that they do not come all at once.
_RECHECK_SPREAD = 0.2
# So many alarms, or calls that one may wake, are dealt with in one piece, and rights of calls that
# are over: some 5 ms each.
_ALARMS_A_TURN = 500
_RIGHTS_A_TURN = 500

_ALL = tuple(Standing)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictBounds:
    """How long answers count, and how many questions and answers there may be.

    Who waits for a question that is not even asked is refused after `wait_s` in which the API
    server has answered nobody. `retry` is for questions of calls that go on without an answer;
    `retry_delay_s` is what refused clients are told. Verdicts are those that open calls go by:
    `verdicts_max` in all, `verdicts_per_caller_max` of one name. Beyond them some are remembered,
    the newest `idle_*_max`.
    """

    yes_s: float = 30.0
    no_s: float = 5.0
    recheck_s: float = 60.0
    stale_s: float = 600.0
    wait_s: float = 5.0
    retry: Backoff = field(default_factory=lambda: Backoff(2.0, 30.0))
    retry_delay_s: float = 1.0
    questions_max: int = 64
    questions_per_caller_max: int = 16
    verdicts_max: int = 200_000
    verdicts_per_caller_max: int = 20_000
    idle_tokens_max: int = 20_000
    idle_verdicts_max: int = 40_000
    idle_refusals_max: int = 4_000


class Verdicts:
    """The verdicts of one server. One event loop owns it.

    After any of its methods, `questions` may have new ones, and `advance` is due at `next_at`.
    Seats are woken by `advance` and by answers, never by `check` or `close`.
    """

    def __init__(self, bounds: VerdictBounds, jitter: Callable[[], float]) -> None:
        """`jitter` returns a random number from 0 to 1."""
        self._bounds = bounds
        self._jitter = jitter
        self._tokens = Memory[bytes, TokenFact](bounds.idle_tokens_max, bounds.idle_refusals_max)
        self._rights = Memory[tuple[Principal, Need], RightFact](
            bounds.idle_verdicts_max, bounds.idle_refusals_max
        )
        self._line = Line[Question](bounds.questions_max, bounds.questions_per_caller_max)
        self._alarms = Alarms[Question | Seat]()
        # Of each name one whom a token has been found to be of.
        self._owners = WeakValueDictionary[str, Principal]()
        # Calls that are over, and have more rights than are given back in one piece.
        self._leaving: deque[Seat] = deque()
        self._answered_at = float("-inf")

    @property
    def tokens(self) -> int:
        """How many tokens are remembered, as HMACs."""
        return len(self._tokens)

    @property
    def rights(self) -> int:
        """How many answers about rights are remembered."""
        return len(self._rights)

    @property
    def waiting(self) -> int:
        """How many questions wait to be asked."""
        return self._line.waiting

    @property
    def under_way(self) -> int:
        """How many questions wait for their answers."""
        return self._line.under_way

    @property
    def leaving(self) -> bool:
        """Whether `advance` has to give back rights of calls that are over: it is due at once."""
        return bool(self._leaving)

    def check(self, seat: Seat, need: Need, now: float) -> Verdict:
        """Whether a call has what it needs. Raises RpcError, as `gate.Pass` says.

        PENDING may come back: what a token says of its owner may change.
        """
        if need is OPEN:
            return Verdict.ALLOWED
        principal = self._principal(seat, now)
        if principal is None:
            return Verdict.PENDING
        if isinstance(need, Entry):
            return Verdict.ALLOWED
        fact = seat.rights.get(need)
        if fact is None:
            fact = self._right(principal, need)
            self._join(fact, seat, now)
            seat.rights[need] = fact
        if not self._relies(fact, seat, "what the caller may do"):
            return Verdict.PENDING
        return Verdict.ALLOWED if fact.answer else Verdict.DENIED

    def last_principal(self, seat: Seat, now: float) -> Principal | None:
        """Who calls, by the last answer, if that still holds where there is no newer one.

        A call that begins may not go by it, but counts for its owner. Asks nothing.
        """
        if seat.token is None:
            over = seat.expires is not None and now >= seat.expires
            return None if over else seat.principal
        fact = seat.token_fact or self._tokens.peek(seat.token.digest)
        if fact is None or fact.expired(now) or not fact.is_known(now, self._bounds.stale_s):
            return None
        return fact.answer if isinstance(fact.answer, Principal) else None

    def let_go(self, seat: Seat, need: Need) -> None:
        """A call does not go by a need any more."""
        if (fact := seat.rights.pop(need, None)) is not None:
            self._leave(fact, seat)

    def close(self, seat: Seat) -> None:
        """A call is over: it is woken no more. May be called twice."""
        if seat.wake is _nobody:
            return
        seat.wake = _nobody
        if len(seat.rights) > _RIGHTS_A_TURN:
            self._leaving.append(seat)
        else:
            self._leave_rights(seat)
        if (fact := seat.token_fact) is not None:
            seat.token_fact = None
            self._leave(fact, seat)
        seat.token = None
        self._alarms.set(seat, None)

    def questions(self) -> Iterator[Question]:
        """The questions to ask now. Each is to be answered, or to fail, once."""
        while (fact := self._line.next()) is not None:
            fact.asking = Asking.UNDER_WAY
            yield fact

    def token_answered(
        self, fact: TokenFact, answer: Principal | Refusal, expires: float | None, now: float
    ) -> None:
        """It is known whose a token is, and until when it is valid."""
        before = fact.answer, fact.expired(now)
        fact.answer = self._with_shared(answer) if isinstance(answer, Principal) else answer
        fact.expires = expires
        self._answered(fact, now, differs=before != (answer, fact.expired(now)))

    def _with_shared(self, owner: Principal) -> Principal:
        """The same, with the groups and extras of another equal one, where there is one.

        Else thousands of tokens of somebody in a thousand groups would take 85 KB each.
        """
        known = self._owners.get(owner.username)
        if known == owner:
            return replace(owner, groups=known.groups, extra=known.extra)
        self._owners[owner.username] = owner
        return owner

    def right_answered(self, fact: RightFact, answer: bool, now: float) -> None:
        """It is known whether somebody has a right."""
        differs = answer != fact.answer
        fact.answer = answer
        self._answered(fact, now, differs=differs)

    def failed(self, fact: Question, now: float, *, retry_after_s: float = 0.0) -> None:
        """There was no answer; `retry_after_s` is for how long none should be asked for."""
        self._line.done(fact.caller)
        fact.asking = Asking.NO
        fact.failures += 1
        longest_s = self._bounds.retry.longest_s(fact.failures)
        fact.due = now + max(retry_after_s, longest_s * (1 + self._jitter()) / 2)
        self._settle(fact, now, self._give_up(fact, now))

    def next_at(self) -> float | None:
        """When `advance` should be called next."""
        return self._alarms.next_at()

    def advance(self, now: float) -> None:
        """Deal with what is due: not with all of it, if that is much. See `next_at` then."""
        if self._leaving:
            self._give_back(self._leaving[0])
        left = _ALARMS_A_TURN
        while left > 0 and (due := self._alarms.due(now)) is not None:
            if isinstance(due, Seat):
                left -= 1
                due.wake()
            else:
                left -= max(1, len(due.seats))  # All of them may be woken.
                self._look_at(due, now)

    # Who calls.

    def _principal(self, seat: Seat, now: float) -> Principal | None:
        """Who calls; None if that is not known yet. Raises RpcError."""
        if seat.token is not None:
            return self._owner(seat, seat.token, now)
        if seat.principal is None:
            raise _unauthenticated(seat.problem or _NO_CREDENTIALS)
        if seat.expires is not None:
            if now >= seat.expires:
                raise _unauthenticated(_CERTIFICATE_EXPIRED)
            self._alarms.set(seat, seat.expires)
        return seat.principal

    def _owner(self, seat: Seat, token: Token, now: float) -> Principal | None:
        fact = seat.token_fact
        if fact is None:
            fact = self._tokens.find(token.digest)
            if fact is None:
                fact = TokenFact(token)
                self._tokens.use(token.digest, fact)
            fact.secret = token.secret
            self._join(fact, seat, now)
            seat.token_fact = fact
        if not self._relies(fact, seat, "who asks"):
            return None
        if fact.expired(now):
            raise _unauthenticated(_EXPIRED)
        if isinstance(fact.answer, Refusal):
            raise _unauthenticated(fact.answer.reason)
        if seat.principal != fact.answer:
            self._leave_rights(seat)
            seat.principal = fact.answer
        return seat.principal

    def _right(self, principal: Principal, need: ResourceNeed | UrlNeed) -> RightFact:
        """The fact about a right, in use. Raises RpcError if there is no room for another one."""
        key = (principal, need)
        if not self._rights.uses(key):
            held = self._rights.in_use
            bounds = self._bounds
            for have, most, whose, limit in (
                (
                    held.of(principal.username),
                    bounds.verdicts_per_caller_max,
                    "of this caller",
                    "verdicts_per_caller_max",
                ),
                (held.in_all, bounds.verdicts_max, "of all callers", "verdicts_max"),
            ):
                if have >= most:
                    raise RpcError(
                        Code.RESOURCE_EXHAUSTED,
                        f"the open calls {whose} go by {most} verdicts about what they may do, "
                        f"which is the server's limit ({limit}); name fewer namespaces, or all",
                        limit=limit,
                    )
        fact = self._rights.find(key)
        if fact is None:
            fact = RightFact(principal, need)
            self._rights.use(key, fact)
        return fact

    # What calls have of facts.

    def _join(self, fact: Question, seat: Seat, now: float) -> None:
        if self._is_new(fact, now) or self._is_held(fact, now):
            fact.join(seat, Standing.RELYING)
        else:
            if not fact.waiting:
                fact.waiting_since = now
            fact.join(seat, Standing.WAITING)
            self._queue(fact)
        self._set_alarm(fact, now)

    def _is_new(self, fact: Question, now: float) -> bool:
        """Whether the last answer is new enough for a call that begins."""
        yes = fact.granted and not fact.expired(now)
        return fact.is_known(now, self._bounds.yes_s if yes else self._bounds.no_s)

    def _is_held(self, fact: Question, now: float) -> bool:
        """Whether the last answer has to do, as the question has just been asked in vain."""
        trying = fact.asking is not Asking.NO or now < fact.due
        return fact.failures > 0 and trying and fact.is_known(now, self._bounds.stale_s)

    def _leave(self, fact: Question, seat: Seat) -> None:
        fact.leave(seat)
        if not fact.seats and fact.asking is not Asking.UNDER_WAY:
            self._release(fact)

    def _give_back(self, seat: Seat) -> None:
        """Give back some rights of a call that is over."""
        for _ in range(min(_RIGHTS_A_TURN, len(seat.rights))):
            self._leave(seat.rights.popitem()[1], seat)
        if not seat.rights:
            self._leaving.popleft()

    def _leave_rights(self, seat: Seat) -> None:
        for fact in seat.rights.values():
            self._leave(fact, seat)
        seat.rights.clear()

    def _release(self, fact: Question) -> None:
        """No call has a fact any more."""
        if fact.asking is Asking.QUEUED:
            self._line.remove(fact.caller, fact, fact.source)
            fact.asking = Asking.NO
        self._alarms.set(fact, None)
        keep = fact.answer is not None
        if isinstance(fact, TokenFact):
            fact.secret = None
            self._tokens.release(fact.digest, fact, keep=keep)
        else:
            self._rights.release((fact.principal, fact.need), fact, keep=keep)

    def _relies(self, fact: Question, seat: Seat, what: str) -> bool:
        """Whether a call may go by the answer; if not, it is to come. Raises RpcError."""
        standing = fact.seats[seat]
        if standing is not Standing.FAILED:
            return standing is Standing.RELYING
        raise unavailable(
            f"{what} cannot be found out now, as the API server does not answer; try again",
            self._bounds.retry_delay_s,
        )

    # Questions and their ends.

    def _queue(self, fact: Question) -> None:
        if fact.asking is Asking.NO:
            fact.asking = Asking.QUEUED
            self._line.add(fact.caller, fact, fact.source)

    def _answered(self, fact: Question, now: float, *, differs: bool) -> None:
        self._line.done(fact.caller)
        self._answered_at = fact.answered_at = now
        fact.asking = Asking.NO
        fact.failures = 0
        fact.due = now + self._bounds.recheck_s * (1 - _RECHECK_SPREAD * self._jitter())
        those = _ALL if differs else (Standing.WAITING, Standing.FAILED)
        self._settle(fact, now, fact.move(those, Standing.RELYING))

    def _give_up(self, fact: Question, now: float) -> list[Seat]:
        """Have those who wait for a fact go by its last answer, or fail."""
        holds = fact.is_known(now, self._bounds.stale_s)
        return fact.move((Standing.WAITING,), Standing.RELYING if holds else Standing.FAILED)

    def _settle(self, fact: Question, now: float, changed: Iterable[Seat]) -> None:
        """A fact has changed for these."""
        if fact.seats:
            self._set_alarm(fact, now)
        elif fact.asking is not Asking.UNDER_WAY:
            self._release(fact)
        for seat in changed:
            seat.wake()

    def _look_at(self, fact: Question, now: float) -> None:
        """Deal with a fact whose alarm has come."""
        over = self._is_over(fact, now)
        changed = list(fact.seats) if over else []
        if not fact.is_known(now, self._bounds.stale_s):
            changed += fact.move((Standing.RELYING,), Standing.FAILED)
        if fact.asking is Asking.QUEUED and fact.waiting and now >= self._patience_ends(fact):
            changed += self._give_up(fact, now)
        if fact.asking is Asking.NO and now >= fact.due and not over:
            self._queue(fact)
        self._settle(fact, now, changed)

    def _is_over(self, fact: Question, now: float) -> bool:
        """Whether a token has expired, so that nobody needs to ask about it again."""
        return fact.expired(now) and fact.is_known(now, self._bounds.stale_s)

    def _patience_ends(self, fact: Question) -> float:
        """Until when those wait for a fact that it has not been asked about."""
        return max(fact.waiting_since, self._answered_at) + self._bounds.wait_s

    def _set_alarm(self, fact: Question, now: float) -> None:
        self._alarms.set(fact, min(self._times(fact, now), default=None))

    def _times(self, fact: Question, now: float) -> Iterator[float]:
        """When something happens to a fact by itself."""
        if fact.expires is not None and not fact.expired(now):
            yield fact.expires
        if fact.is_known(now, self._bounds.stale_s):
            yield fact.answered_at + self._bounds.stale_s
        if fact.asking is Asking.NO:
            if not self._is_over(fact, now):
                yield fact.due
        elif fact.asking is Asking.QUEUED and fact.waiting:
            yield self._patience_ends(fact)


def _nobody() -> None:
    """Wake nobody: the call is over."""


def _unauthenticated(message: str) -> RpcError:
    return RpcError(Code.UNAUTHENTICATED, message)
