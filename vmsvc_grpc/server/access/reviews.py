"""The gate that asks an API server: tasks, clocks and the log around `verdicts`."""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

import msgspec

from vmsvc_grpc.kube.errors import ApiServerError
from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.facts import Refusal, RightFact, Seat, Secret, Token, TokenFact
from vmsvc_grpc.server.access.gate import CountedPass, OpenGate, Pass, Verdict
from vmsvc_grpc.server.access.needs import Need, ResourceNeed, UrlNeed
from vmsvc_grpc.server.access.principal import CertificateRules, Principal
from vmsvc_grpc.server.access.verdicts import Question, VerdictBounds, Verdicts
from vmsvc_grpc.server.admission import client_of
from vmsvc_grpc.server.call import RpcError

ASK_S = 5.0
"""How long an answer of the API server may take: clients wait meanwhile."""

# An API server that is asked too much says 429, and when to try again; that is some second.
_TOO_MANY_S = 1.0

# Something may always fail once; so many times in a row, it is trouble.
_TROUBLE_FAILURES = 3

# The API server cannot read this one question.
_REFUSED_QUESTION = frozenset(
    (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    )
)

_WHAT = {TokenFact: "token", RightFact: "access"}
_RESOURCES = {
    "token": "tokenreviews.authentication.k8s.io",
    "access": "subjectaccessreviews.authorization.k8s.io",
}


class Reviews(Protocol):
    """Answers what a gate asks. Both raise ApiServerError, and msgspec.DecodeError."""

    async def owner(self, token: Secret) -> Principal | Refusal:
        """Whose a token is."""

    async def allowed(self, principal: Principal, need: ResourceNeed | UrlNeed) -> bool:
        """Whether somebody has a right."""


class ReviewGate:
    """Lets calls through as an API server says. Run it while the server does.

    `reviews` counts answers by what was asked (token, access) and the result (yes, no, failed), and
    `refusals` the calls that were refused, by code or as denied.
    """

    def __init__(
        self,
        bounds: VerdictBounds,
        certificates: CertificateRules,
        log: Callable[[int, str], object],
        *,
        ask_s: float = ASK_S,
        clock: Callable[[], float] = time.monotonic,
        clock_of_day: Callable[[], float] = time.time,
    ) -> None:
        """`log` logs a line at a level, unless there were too many."""
        self.reviews: Counter[tuple[str, str]] = Counter()
        self.refusals: Counter[str] = Counter()
        self._verdicts = Verdicts(bounds, random.random)
        self._certificates = certificates
        self._log = log
        self._ask_s = ask_s
        self._clock = clock
        self._clock_of_day = clock_of_day
        self._key = secrets.token_bytes(32)
        self._news = asyncio.Event()
        self._sleeps_until = math.inf
        self._answered_at: float | None = None
        self._failures: Counter[str] = Counter()
        self._troubles: dict[str, str] = {}

    def enter(self, caller: Caller, wake: Callable[[], None]) -> Pass:
        """The pass of a call. A token counts before a certificate."""
        if not caller.guarded:
            return _OPEN.enter(caller, wake)
        return _ReviewedPass(self, self._seat(caller, wake))

    def _seat(self, caller: Caller, wake: Callable[[], None]) -> Seat:
        if caller.token:
            digest = hmac.digest(self._key, caller.token.encode(), "sha256")
            shown = Token(client_of(caller.peer), digest, Secret(caller.token), caller.peer)
            return Seat(wake, token=shown)
        principal, problem = self._certificates.named_by(caller)
        expires = None if principal is None else self._moment(principal.expires_at)
        return Seat(wake, principal=principal, expires=expires, problem=problem)

    def _moment(self, at: float | None) -> float | None:
        """A time of day, by the clock that is never set."""
        return None if at is None else self._clock() + at - self._clock_of_day()

    def check(self, seat: Seat, need: Need) -> Verdict:
        """As `Verdicts.check`, now."""
        verdict = self._verdicts.check(seat, need, self._clock())
        # A verdict that is remembered leads to no question now, but to one that is due.
        at = self._verdicts.next_at()
        if verdict is Verdict.PENDING or (at is not None and at < self._sleeps_until):
            self._news.set()
        return verdict

    def last_principal(self, seat: Seat) -> Principal | None:
        """As `Verdicts.last_principal`, now."""
        return self._verdicts.last_principal(seat, self._clock())

    def let_go(self, seat: Seat, need: Need) -> None:
        """As `Verdicts.let_go`."""
        self._verdicts.let_go(seat, need)

    def close(self, seat: Seat) -> None:
        """As `Verdicts.close`."""
        self._verdicts.close(seat)
        if self._verdicts.leaving:
            self._news.set()

    @property
    def troubles(self) -> tuple[str, ...]:
        """Why questions have no answers now."""
        return tuple(self._troubles.values())

    @property
    def silence_s(self) -> float | None:
        """Seconds since the API server last answered a question; None: it never has."""
        return None if self._answered_at is None else self._clock() - self._answered_at

    @property
    def remembered(self) -> dict[str, int]:
        """How many answers are remembered, by what was asked."""
        return {"token": self._verdicts.tokens, "access": self._verdicts.rights}

    @property
    def waiting(self) -> int:
        """How many questions have no answer yet."""
        return self._verdicts.waiting + self._verdicts.under_way

    async def run(self, reviews: Reviews) -> None:
        """Ask, until cancelled. Calls whose questions have no answers wait, or are refused."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._news.clear()
                self._verdicts.advance(self._clock())
                for question in self._verdicts.questions():
                    tasks.create_task(self._ask(reviews, question))
                at = self._clock() if self._verdicts.leaving else self._verdicts.next_at()
                self._sleeps_until = math.inf if at is None else at
                left_s = None if at is None else max(0.0, at - self._clock())
                alarm = None if left_s is None else loop.call_later(left_s, self._news.set)
                await self._news.wait()
                if alarm is not None:
                    alarm.cancel()

    async def _ask(self, reviews: Reviews, question: Question) -> None:
        what = _WHAT[type(question)]
        try:
            async with asyncio.timeout(self._ask_s):
                answer = await self._answer(reviews, question)
        except (ApiServerError, msgspec.DecodeError, TimeoutError) as error:
            self._failed(question, what, error)
        else:
            self._answered(question, what, answer)
        self._news.set()

    async def _answer(self, reviews: Reviews, question: Question) -> Principal | Refusal | bool:
        while True:
            try:
                if isinstance(question, RightFact):
                    return await reviews.allowed(question.principal, question.need)
                assert question.secret is not None, "its calls are there, or it is under way"
                return await reviews.owner(question.secret)
            except ApiServerError as error:
                if error.status != HTTPStatus.TOO_MANY_REQUESTS:
                    raise
                await asyncio.sleep(error.retry_after_s or _TOO_MANY_S)

    def _answered(self, question: Question, what: str, answer: Principal | Refusal | bool) -> None:
        now = self._answered_at = self._clock()
        if isinstance(question, RightFact):
            assert isinstance(answer, bool), "an answer about a right"
            self._verdicts.right_answered(question, answer, now)
        else:
            assert not isinstance(answer, bool), "an answer about a token"
            expires_at = answer.expires_at if isinstance(answer, Principal) else None
            self._verdicts.token_answered(question, answer, self._moment(expires_at), now)
        self.reviews[what, "yes" if question.granted else "no"] += 1
        self._failures[what] = 0
        if self._troubles.pop(what, None) is not None:
            self._log(logging.INFO, f"{_RESOURCES[what]} are answered again")

    def _failed(self, question: Question, what: str, error: Exception) -> None:
        self.reviews[what, "failed"] += 1
        retry_after_s = error.retry_after_s if isinstance(error, ApiServerError) else 0.0
        self._verdicts.failed(question, self._clock(), retry_after_s=retry_after_s)
        trouble = _trouble(_RESOURCES[what], error, self._ask_s)
        if trouble is None:
            return
        self._failures[what] += 1
        lasts = _is_about_us(error) or self._failures[what] >= _TROUBLE_FAILURES
        if lasts and self._troubles.get(what) != trouble:
            self._troubles[what] = trouble
            self._log(logging.WARNING, trouble)


class _ReviewedPass(CountedPass):
    __slots__ = ("_gate", "_seat")

    def __init__(self, gate: ReviewGate, seat: Seat) -> None:
        super().__init__(gate.refusals)
        self._gate = gate
        self._seat = seat

    @property
    def username(self) -> str:
        principal = self._seat.principal
        return "" if principal is None else principal.username

    @property
    def last_username(self) -> str:
        principal = self._gate.last_principal(self._seat)
        return "" if principal is None else principal.username

    def check(self, need: Need) -> Verdict:
        try:
            verdict = self._gate.check(self._seat, need)
        except RpcError as error:
            self.count(error.code.name.lower())
            raise
        if verdict is Verdict.DENIED:
            self.count("denied")
        return verdict

    def let_go(self, need: Need) -> None:
        self._gate.let_go(self._seat, need)

    def close(self) -> None:
        self._gate.close(self._seat)


_OPEN = OpenGate()


def _is_about_us(error: Exception) -> bool:
    """Whether an error is about this server's own account: it will not pass by itself."""
    ours = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    return isinstance(error, ApiServerError) and error.status in ours


def _trouble(resource: str, error: Exception, ask_s: float) -> str | None:
    """What keeps the API server from answering, and what to do; None if it is just one question.

    It has no words of the API server's answer, which might repeat the question.
    """
    why = "its answer is not one"
    match error:
        case ApiServerError(status=HTTPStatus.FORBIDDEN):
            return (
                f"this server's account may not create {resource}, so no new caller is let in; "
                "bind it to the ClusterRole system:auth-delegator"
            )
        case ApiServerError(status=0):
            why = error.message
        case ApiServerError(status=status):
            if status in _REFUSED_QUESTION:
                return None
            why = f"it answers {status}"
        case TimeoutError():
            why = f"no answer within {ask_s:g} s"
    return f"the API server does not answer {resource}, so no new caller is let in: {why}"
