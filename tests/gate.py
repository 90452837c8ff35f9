"""A gate of rights that a test sets: users by their tokens, and when a verdict becomes known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from google.rpc import error_details_pb2

from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.gate import Verdict
from vmsvc_grpc.server.access.needs import AUTHENTICATED, OPEN, Need, ResourceNeed
from vmsvc_grpc.server.call import Code, RpcError


class RightsGate:
    """A Gate. A right in all namespaces ("") is one in each, as in Kubernetes.

    `open` False: nothing that is not known yet becomes known, until `answer`. `away`: it cannot.
    Whose the tokens in `remembered` are was known before.
    """

    def __init__(self) -> None:
        self.users: dict[str, str] = {}
        self.rights: dict[str, set[Need]] = {}
        self.open = True
        self.told: set[Need] = set()
        self.away = False
        self.asked: Counter[Need] = Counter()
        self.passes: dict[_RightsPass, None] = {}
        self.remembered: set[str] = set()

    def admit(self, token: str, *rights: Need) -> str:
        """Know the token, as that of a user of its own, who has these rights."""
        user = f"user-of-{token}"
        self.users[token] = user
        self.rights[user] = set(rights)
        return user

    def grant(self, user: str, *rights: Need) -> None:
        self.rights[user].update(rights)
        self._changed()

    def revoke(self, user: str, *rights: Need) -> None:
        self.rights[user].difference_update(rights)
        self._changed()

    def expire(self, token: str) -> None:
        del self.users[token]
        self._changed()

    def answer(self) -> None:
        """Everything becomes known."""
        self.open = True
        self._changed()

    def tell(self, need: Need) -> None:
        """One verdict becomes known, and who asks."""
        self.told |= {need, AUTHENTICATED}
        self._changed()

    def _changed(self) -> None:
        for each in list(self.passes):
            each.wake()

    def allows(self, user: str, need: Need) -> bool:
        rights = self.rights[user]
        if need in (OPEN, AUTHENTICATED) or need in rights:
            return True
        return isinstance(need, ResourceNeed) and need._replace(namespace="") in rights

    def enter(self, caller: Caller, wake: Callable[[], None]) -> _RightsPass:
        assert caller.guarded, "others have no need of a gate"
        entered = _RightsPass(self, caller.token, caller.problem or "show a token", wake)
        self.passes[entered] = None
        return entered


class _RightsPass:
    def __init__(
        self, gate: RightsGate, token: str, problem: str, wake: Callable[[], None]
    ) -> None:
        self._gate = gate
        self._token = token
        self._problem = problem
        self.wake = wake
        self._known: set[Need] = set()

    def check(self, need: Need) -> Verdict:
        gate = self._gate
        assert self in gate.passes, "no call asks once it is over"
        gate.asked[need] += 1
        if need is OPEN:
            return Verdict.ALLOWED
        if not self._token:
            raise RpcError(Code.UNAUTHENTICATED, self._problem)
        if not gate.open and need not in self._known | gate.told:
            return Verdict.PENDING
        if gate.away and need not in self._known:
            retry = error_details_pb2.RetryInfo()
            raise RpcError(Code.UNAVAILABLE, "nobody can say what you may do", [retry])
        if self._token not in gate.users:
            raise RpcError(Code.UNAUTHENTICATED, "this token is not valid, or not any more")
        self._known.add(need)
        allowed = gate.allows(gate.users[self._token], need)
        return Verdict.ALLOWED if allowed else Verdict.DENIED

    def let_go(self, need: Need) -> None:
        self._known.discard(need)

    @property
    def username(self) -> str:
        known = AUTHENTICATED in self._known
        return self._gate.users.get(self._token, "") if known else ""

    @property
    def last_username(self) -> str:
        remembered = self._token in self._gate.remembered
        return self._gate.users.get(self._token, "") if remembered else self.username

    def close(self) -> None:
        self._gate.passes.pop(self, None)
        self.wake = _nobody


def _nobody() -> None:
    """Wakes nobody."""
