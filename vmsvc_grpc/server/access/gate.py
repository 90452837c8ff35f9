"""The gate that callers go through, and the pass that each call has from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.needs import Need


class Verdict(Enum):
    """Whether a need is granted."""

    ALLOWED = "allowed"
    DENIED = "denied"
    PENDING = "pending"
    """Not known yet: the pass wakes its call as soon as it is."""


class Pass(Protocol):
    """What one call may do, as far as that is known. One call owns it, on one event loop."""

    def check(self, need: Need) -> Verdict:
        """Whether the caller has what a call needs, as it is known now. Never waits.

        Raises RpcError: UNAUTHENTICATED if the caller does not say who it is, or not any more;
        UNAVAILABLE, with RetryInfo, if it cannot be found out. OPEN is always allowed.
        """

    def let_go(self, need: Need) -> None:
        """Go by the verdict on a need no more: wake the call for it no more, and keep nothing."""

    @property
    def username(self) -> str:
        """The caller's name; "" until it is known, and on a listener that asks nobody."""

    @property
    def last_username(self) -> str:
        """The caller's name as it was known last, though perhaps not so lately as to go by it.

        "" if it was not, or cannot be true any more. Asks nothing.
        """

    def close(self) -> None:
        """The call is over: wake it no more, and keep nothing of it. May be called twice."""


class Access(Protocol):
    """The part of a pass that a method may use, for what follows from more than a request."""

    changes: int
    """Rises when a verdict may have changed. Its stream is woken then."""

    def check(self, need: Need) -> Verdict:
        """As `Pass.check` does."""

    def let_go(self, need: Need) -> None:
        """As `Pass.let_go` does, unless the call needs it in another way, too."""


class GateError(Exception):
    """A gate cannot do its work. Its text is one line that says why."""


class Gate(Protocol):
    """Gives a pass to each call."""

    def enter(self, caller: Caller, wake: Callable[[], None]) -> Pass:
        """The pass of a call, which must close it. Never raises: `check` does.

        `wake` is called when a PENDING becomes known, when a verdict changes that the pass was
        asked for, and when the caller's token expires: then check again. It is not called within
        `enter` or `check`, nor after `close`.
        """


class CountedPass:
    """What passes have in common that count refused calls: each once, for its first refusal."""

    __slots__ = ("_refusals", "_refused")

    def __init__(self, refusals: Counter[str]) -> None:
        """`refusals` counts calls, by the code with which they end, or as denied."""
        self._refusals = refusals
        self._refused = False

    def count(self, refusal: str) -> None:
        """Count the call, unless it is counted."""
        if not self._refused:
            self._refused = True
            self._refusals[refusal] += 1


class _OpenPass:
    username = ""
    last_username = ""
    changes = 0

    def check(self, need: Need) -> Verdict:  # noqa: ARG002 - the Protocol says it
        return Verdict.ALLOWED

    def let_go(self, need: Need) -> None:
        pass

    def close(self) -> None:
        pass


_OPEN_PASS = _OpenPass()

EVERYTHING: Access = _OPEN_PASS
"""The access of a caller to whom everything is allowed."""


class ShutGate:
    """Lets nobody in: the gate of a server that has no guarded listener."""

    def enter(self, caller: Caller, wake: Callable[[], None]) -> Pass:  # noqa: ARG002 - as above
        """Raises AssertionError."""
        raise AssertionError("a guarded listener needs a gate")


class OpenGate:
    """Allows everything, and asks nobody who they are."""

    def enter(self, caller: Caller, wake: Callable[[], None]) -> Pass:  # noqa: ARG002 - as above
        """The same pass for all."""
        return _OPEN_PASS
