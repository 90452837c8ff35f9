"""The store of objects, as the loop sees it: it makes changes, which may fail in these ways."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.reconciler.held import Failure, Held
from vmsvc_grpc.reconciler.patch import PatchPath
from vmsvc_grpc.reconciler.plan import Change


class ChangeError(Exception):
    """A change cannot be made now; the message says which and why. It is tried again later."""

    def __init__(
        self, reason: str, message: str, *, passing: bool = False, retry_after_s: float = 0.0
    ) -> None:
        """`reason` is a word in camel case, `message` a sentence for the operator.

        `passing`: the failure is transient, so the VMService need not report it.
        It is tried again no sooner than in `retry_after_s`.
        """
        super().__init__(message)
        self.failure = Failure(reason, message)
        self.passing = passing
        self.retry_after_s = retry_after_s


class Conflict(Exception):  # noqa: N818 - not an error: somebody else was first.
    """The object is no longer what was observed: observe it again, and plan again.

    `found` is the object that is there instead, if the store has looked. `cause` says why:
    it is reported if the conflicts go on.
    """

    def __init__(self, found: Held | None = None, *, cause: str) -> None:
        super().__init__(cause)
        self.found = found
        self.cause = cause
        self.change: Change | None = None
        """The change that could not be made, once that is known."""


class Gone(Exception):  # noqa: N818 - not an error: somebody else was first.
    """The object that was to be changed or deleted does not exist any more."""


class NotWriting(Exception):  # noqa: N818 - not an error: another replica writes.
    """This process may not begin a write now."""


class Store(Protocol):
    """Where objects are held. The only thing that writes."""

    async def apply(self, change: Change) -> Held | None:
        """Make one change; the object as it is held now, or None if it is gone.

        Raises Conflict, Gone, ChangeError or NotWriting, and has then changed nothing. If
        cancelled, it may or may not have.
        """


class Witness(Protocol):
    """Questions to the store, beyond what the source reads all the time."""

    async def find(self, kind: Kind, key: Key) -> Held | None:
        """The object as it is held now, ours or not; None if there is none.

        Raises ChangeError.
        """

    async def other_writer(self, kind: Kind, key: Key, fields: Collection[PatchPath]) -> str:
        """The last other writer of these fields of an object; "" if that is not known."""
