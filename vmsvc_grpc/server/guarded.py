"""Calls of callers who are asked who they are: nothing reaches a method before that is allowed.

Knows no transport and no task: a verdict that is not known yet wakes its call, as news does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from vmsvc_grpc.model.problem import quoted
from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.gate import Gate, Pass, Verdict
from vmsvc_grpc.server.access.needs import AUTHENTICATED, OPEN, Need, ResourceNeed, UrlNeed
from vmsvc_grpc.server.call import (
    HELD,
    LATER,
    Call,
    Code,
    Held,
    Later,
    RpcError,
    Shared,
    Stream,
    StreamMethod,
    Wake,
)

# So many needs are asked for, or looked at again, before others have their turn: some ms.
_NEEDS_A_TURN = 1_000


class Clearance:
    """What one call has asked for, and whether all of that is granted, and still is.

    `changes` rises with each wake: it is the call's `Access`, too.
    """

    __slots__ = (
        "_asked",
        "_looked",
        "_looking",
        "_pass",
        "_pending",
        "_wake",
        "_wished",
        "changes",
        "unfinished",
    )

    def __init__(self, gate: Gate, caller: Caller, wake: Wake) -> None:
        """`wake` is called when `granted` may have another result."""
        self.changes = 0
        self._wake = wake
        self._asked: dict[Need, None] = {}
        # Those of which the verdict was not known yet, in the order in which they were asked for.
        self._pending: deque[Need] = deque()
        self._wished: list[Need] = []
        self._looked = 0  # `changes` when everything that was asked for was looked at last.
        self._looking: Iterator[Need] | None = None  # What is left of such a look.
        self.unfinished = False
        self._pass: Pass = gate.enter(caller, self._woken)

    @property
    def username(self) -> str:
        """The caller's name; "" as long as it is not known."""
        return self._pass.username

    def username_at_once(self, entry: Need) -> str:
        """Ask for what a call needs to enter; the caller's name as far as it is known at once.

        That is the last name that was known, while it is found out whether that is still true.
        Raises nothing: asking again does.
        """
        try:
            self.ask(entry)
        except RpcError as error:
            return self.username if error.code is Code.PERMISSION_DENIED else ""
        return self._pass.last_username

    def check(self, need: Need) -> Verdict:
        """Whether a need is granted, as it is known now; `granted` does not depend on it."""
        return self._pass.check(need)

    def let_go(self, need: Need) -> None:
        """Go by a need no more, unless `granted` depends on it."""
        if need not in self._asked and need not in self._wished:
            self._pass.let_go(need)

    def ask(self, need: Need) -> None:
        """Have `granted` depend on a need. Raises RpcError as it does."""
        if need is not OPEN and need not in self._asked:
            if not self._allows(need):
                self._pending.append(need)
            self._asked[need] = None

    def wish(self, needs: Iterable[Need]) -> None:
        """Have `granted` wait until it is known whether these are granted."""
        self._wished += needs

    def granted(self) -> bool:
        """Whether all that was asked for is granted, and wishes known; False: not known yet.

        Raises RpcError: PERMISSION_DENIED if anything is denied, and as `Pass.check` does. Looks
        at what was not granted before, up to the first that is still not known: verdicts come one
        by one, and each wakes. Looks at everything once all are known and any has changed. If that
        is much, it is False, and `unfinished`: look again in another turn.
        """
        self.unfinished = self._look_at_pending() or self._look_at_all()
        if self._wished and not self._pending:
            check = self._pass.check
            self._wished = [need for need in self._wished if check(need) is Verdict.PENDING]
        return not (self._pending or self._wished or self.unfinished)

    def _look_at_pending(self) -> bool:
        """Look at what was not known; whether there is more of that to look at."""
        for _ in range(_NEEDS_A_TURN):
            if not (self._pending and self._allows(self._pending[0])):
                return False
            self._pending.popleft()
        return True

    def _look_at_all(self) -> bool:
        """Look at everything, if all was known and any has changed; whether there is more."""
        if self._looking is None:
            if self._pending or self._looked == self.changes:
                return False
            self._looked = self.changes
            self._looking = iter(tuple(self._asked))
        looks = 0
        for need in islice(self._looking, _NEEDS_A_TURN):
            looks += 1
            if not self._allows(need):
                self._pending.append(need)
        if looks == _NEEDS_A_TURN:
            return True
        self._looking = None
        # What has changed meanwhile may be among what was looked at first.
        return not self._pending and self._looked != self.changes

    def waits(self) -> Later | Held | None:
        """What to wait for until all that was asked for is granted. Raises as `granted` does."""
        if self.granted():
            return None
        return LATER if self.unfinished else HELD

    def close(self) -> None:
        """The call is over. May be called twice."""
        self._pass.close()
        self._wake = _nobody_waits

    def _allows(self, need: Need) -> bool:
        verdict = self._pass.check(need)
        if verdict is Verdict.DENIED:
            raise RpcError(Code.PERMISSION_DENIED, _denial(self._pass.username, need))
        return verdict is Verdict.ALLOWED

    def _woken(self) -> None:
        self.changes += 1
        self._wake()


class GuardedStream:
    """The stream of a method, opened once it is known that the caller may call it.

    It is asked for messages as long as all that was granted still is.
    """

    __slots__ = (
        "_clearance",
        "_enters",
        "_half_closed",
        "_inner",
        "_method",
        "_needing",
        "_peer",
        "_request",
        "_settled",
        "_wake",
    )

    _enters: Callable[[str, str], None]

    def __init__(self, method: StreamMethod, caller: Caller, gate: Gate, wake: Wake) -> None:
        """`begin` comes next."""
        self._method = method
        self._peer = caller.peer
        self._wake = wake
        self._inner: Stream | None = None
        self._request: bytes | None = None  # One that its method may not see yet.
        self._needing: Iterator[Need] | None = None  # What that needs, as far as it was not asked.
        self._half_closed = False
        self._settled = False  # Whether nothing is left to be looked at.
        self._clearance = Clearance(gate, caller, self._doubt)

    def begin(self, enters: Callable[[str, str], None]) -> None:
        """Ask who calls. `enters` is called once, with peer and username; it may raise RpcError."""
        self._enters = enters
        self._wake()

    def username_at_once(self) -> str:
        """The caller's name if it is known already, or ""; as `Clearance` says."""
        return self._clearance.username_at_once(self._method.needs.entry)

    def receive(self, request: bytes) -> None:
        """Take in a request: for its method only once what it needs is granted."""
        self._request = request
        self._settled = False
        self._settle()

    def half_close(self) -> None:
        """The client sends no more. Its method learns that after the last request."""
        self._half_closed = True
        self._settled = False

    def next_message(self) -> bytes | Later | Held | None:
        """The next message; HELD while it is not known whether the caller may have it."""
        if not self._settled and (wait := self._settle()) is not None:
            return wait
        assert self._inner is not None, "it is settled"
        return self._inner.next_message()

    @property
    def quiet(self) -> bool:
        """Whether its stream is, and nothing is left to be looked at."""
        return self._settled and self._inner is not None and self._inner.quiet

    @property
    def shared(self) -> Shared | None:
        """What its stream shares with others, if nothing is left to be looked at."""
        return self._inner.shared if self._settled and self._inner is not None else None

    def close(self) -> None:
        """Release everything."""
        self._clearance.close()
        if self._inner is not None:
            self._inner.close()
        self._inner = self._request = self._needing = None
        self._wake = _nobody_waits
        self._enters = _nobody_enters

    def _doubt(self) -> None:
        """A verdict is known, or has changed."""
        self._settled = False
        self._wake()

    def _settle(self) -> Later | Held | None:
        """Hand on what may be handed on. What to wait for; None if nothing is left."""
        self._settled = True  # Unless a verdict comes meanwhile.
        waits = self.enter() or self._take()
        if waits is not None:
            self._settled = False
        elif self._half_closed:
            self._half_closed = False
            assert self._inner is not None, "it has entered"
            self._inner.half_close()
        return waits

    def enter(self) -> Later | Held | None:
        """Open the stream once its caller may enter; what to wait for until that is known.

        Raises RpcError if it may not, or not any more.
        """
        if self._inner is None:
            self._clearance.ask(self._method.needs.entry)
        if (waits := self._clearance.waits()) is not None:
            return waits
        if self._inner is None:
            self._enters(self._peer, self._clearance.username)
            call = Call(self._peer, self._clearance.username, self._clearance)
            self._inner = self._method.open(call, self._wake)
        return None

    def _take(self) -> Later | Held | None:
        """Hand in a request once what it needs is granted."""
        if self._request is None:
            return None
        if self._needing is None:
            self._needing = iter(self._method.needs.beyond_entry(self._request))
            self._clearance.wish(self._method.needs.wishes)
        asked = 0
        for need in islice(self._needing, _NEEDS_A_TURN):
            self._clearance.ask(need)
            asked += 1
        if asked == _NEEDS_A_TURN:
            return LATER
        if (waits := self._clearance.waits()) is not None:
            return waits
        request, self._request, self._needing = self._request, None, None
        assert self._inner is not None, "it has entered"
        self._inner.receive(request)
        return None


def _denial(username: str, need: Need) -> str:
    """Why a call is refused, as Kubernetes says it. Says nothing of whether anything exists."""
    who = f"user {quoted(username)} cannot"
    if isinstance(need, ResourceNeed):
        where = f"in the namespace {quoted(need.namespace)}" if need.namespace else "everywhere"
        return f'{who} {need.verb} resource "{need.resource}" in API group "{need.group}" {where}'
    if need is AUTHENTICATED:
        return f"{who} call this server"
    assert isinstance(need, UrlNeed), "nobody is denied what is open"
    return f'{who} {need.verb} path "{need.path}"'


def _nobody_waits() -> None:
    """Wakes nobody: the call is over."""


def _nobody_enters(_peer: str, _username: str) -> None:
    """Counts for nobody: the call is over."""
