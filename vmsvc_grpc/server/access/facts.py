"""What has been found out about a token, or about a right: the answer, its age, who relies on it.

Pure: time is an argument, in seconds of a clock that never goes back. Decides nothing; `verdicts`
does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from vmsvc_grpc.server.access.needs import Need, ResourceNeed, UrlNeed
from vmsvc_grpc.server.access.principal import Principal


class Standing(Enum):
    """What a call has of a fact."""

    WAITING = "waiting"
    """It waits for an answer that is new enough."""
    RELYING = "relying"
    """It goes by the answer, until there is another one, or this one is too old."""
    FAILED = "failed"
    """It cannot be found out; that may still change."""


class Refusal(NamedTuple):
    """A token is nobody's; `reason` is a sentence for the caller."""

    reason: str


class Asking(Enum):
    """Whether a fact is being asked about."""

    NO = "no"
    QUEUED = "queued"
    UNDER_WAY = "under way"


class Secret:
    """A text that is shown nowhere: not by `repr`, a log line or a traceback."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text. Hand it to the API server, and to nobody else."""
        return self._text

    def __repr__(self) -> str:
        return "<secret>"


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token of a call from `client`, by its connection from `peer`.

    It is known by its `digest`, an HMAC.
    """

    client: str
    digest: bytes
    secret: Secret
    peer: str = ""


class Seat:
    """One call, and the facts that it goes by.

    It shows a `token`, or it is known to be `principal` until it `expires`, or neither: `problem`
    says why. `wake` is called when it should check again.
    """

    __slots__ = ("expires", "principal", "problem", "rights", "token", "token_fact", "wake")

    def __init__(
        self,
        wake: Callable[[], None],
        *,
        token: Token | None = None,
        principal: Principal | None = None,
        expires: float | None = None,
        problem: str = "",
    ) -> None:
        self.wake = wake
        self.token = token
        self.principal = principal
        self.expires = expires
        self.problem = problem
        self.token_fact: TokenFact | None = None
        self.rights: dict[Need, RightFact] = {}


Answer = TypeVar("Answer", Principal | Refusal, bool)


class Fact(Generic[Answer]):
    """A question to the API server, and its newest answer, which came at `answered_at`.

    The answer is true until it `expires`; None: as far as is known.

    `caller` is for whom it is asked, and `source` the connection that asked first; `failures`
    counts how often it could not be answered since then. `due` is when it should be asked again for
    those who rely on it. `waiting` is how many calls wait for an answer, and `waiting_since` when
    the first of them began to.
    """

    __slots__ = (
        "answer",
        "answered_at",
        "asking",
        "caller",
        "due",
        "expires",
        "failures",
        "seats",
        "source",
        "waiting",
        "waiting_since",
    )

    def __init__(self, caller: str, source: str = "") -> None:
        self.caller = caller
        self.source = source
        self.answer: Answer | None = None
        self.answered_at = 0.0
        self.asking = Asking.NO
        self.due = 0.0
        self.expires: float | None = None
        self.failures = 0
        self.seats: dict[Seat, Standing] = {}
        self.waiting = 0
        self.waiting_since = 0.0

    @property
    def granted(self) -> bool:
        """Whether the answer is a yes."""
        return bool(self.answer) and not isinstance(self.answer, Refusal)

    def is_known(self, now: float, within_s: float) -> bool:
        """Whether there is an answer that is younger than that."""
        return self.answer is not None and now < self.answered_at + within_s

    def expired(self, now: float) -> bool:
        """Whether there was an answer that is true no more."""
        return self.expires is not None and now >= self.expires

    def join(self, seat: Seat, standing: Standing) -> None:
        """Have a call stand so, which had nothing of the fact yet."""
        assert seat not in self.seats, "a call joins once"
        self.seats[seat] = standing
        self.waiting += standing is Standing.WAITING

    def leave(self, seat: Seat) -> None:
        """Have a call have nothing of it any more."""
        self.waiting -= self.seats.pop(seat) is Standing.WAITING

    def move(self, standings: tuple[Standing, ...], to: Standing) -> list[Seat]:
        """Have all calls that stand so stand otherwise; they are returned. O(calls)."""
        moved = [seat for seat, standing in self.seats.items() if standing in standings]
        self.seats.update(dict.fromkeys(moved, to))
        self.waiting = sum(standing is Standing.WAITING for standing in self.seats.values())
        return moved


class TokenFact(Fact[Principal | Refusal]):
    """Whose a token is. It is known by an HMAC; its text is kept only while a call has it."""

    __slots__ = ("digest", "secret")

    def __init__(self, token: Token) -> None:
        super().__init__(token.client, token.peer)
        self.digest = token.digest
        self.secret: Secret | None = token.secret


class RightFact(Fact[bool]):
    """Whether a principal may do something."""

    __slots__ = ("need", "principal")

    def __init__(self, principal: Principal, need: ResourceNeed | UrlNeed) -> None:
        super().__init__(principal.username)
        self.principal = principal
        self.need = need
