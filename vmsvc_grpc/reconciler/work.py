"""One turn on one service: one change after another, and how it is broken off."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.logs.about import about
from vmsvc_grpc.model.events import Answer, AnswerGone, Event
from vmsvc_grpc.model.objects import Key, StoredEndpointSlice
from vmsvc_grpc.model.ownership import is_our_slice_of
from vmsvc_grpc.reconciler.asking import Asking
from vmsvc_grpc.reconciler.bounds import ReconcilerBounds
from vmsvc_grpc.reconciler.counts import Attempt, ReconcilerCounts
from vmsvc_grpc.reconciler.handover import HandOver
from vmsvc_grpc.reconciler.held import Failure, Held
from vmsvc_grpc.reconciler.names import TakenNames
from vmsvc_grpc.reconciler.plan import Change
from vmsvc_grpc.reconciler.planning import Planning
from vmsvc_grpc.reconciler.queue import TokenBucket
from vmsvc_grpc.reconciler.store import ChangeError, Conflict, Gone, NotWriting, Store
from vmsvc_grpc.reconciler.telling import Telling
from vmsvc_grpc.reconciler.yielding import Target, Yielding, target

_log = logging.getLogger(__name__)


class Done(NamedTuple):
    """How a turn ended: whether it wrote, and whether there is more to do after a pause.

    `waits`: Kubernetes has to mirror first; look again after a while.
    """

    wrote: bool
    more: bool
    failures: tuple[Failure, ...] = ()
    waits: bool = False


def _conflicts(conflict: Conflict, times: int) -> Failure:
    """The failure to report after many conflicts in a row."""
    change = conflict.change
    assert change is not None, "only a change conflicts"
    return Failure(
        f"{change.verb.name.title()}{change.kind.value}Conflicts",
        f"cannot {change}, tried {times} times in a row: {conflict.cause}",
    )


class Work:
    """Brings services in line, each as often as it is asked to."""

    def __init__(
        self,
        cache: Cache,
        store: Store,
        planning: Planning,
        asking: Asking,
        *,
        bounds: ReconcilerBounds,
        counts: ReconcilerCounts,
        telling: Telling,
        yielding: Yielding,
        taken: TakenNames,
        hand_over: HandOver,
        may_write: Callable[[], bool],
        enqueue: Callable[[Iterable[Key]], None],
        asked: Callable[[Key], AbstractContextManager[None]],
    ) -> None:
        """`enqueue` is called with the other services that an answer of the store concerns.

        `asked` is entered while an answer is waited for.
        """
        self._cache = cache
        self._store = store
        self._planning = planning
        self._asking = asking
        self._bounds = bounds
        self._counts = counts
        self._telling = telling
        self._yielding = yielding
        self._taken = taken
        self._hand_over = hand_over
        self._may_write = may_write
        self._enqueue = enqueue
        self._asked = asked
        # How many times in a row a transient failure ended the work on a service.
        self._retries: Counter[Key] = Counter()
        self._bucket = TokenBucket(per_s=bounds.writes_per_s, burst=bounds.writes_burst)

    async def reconcile(self, key: Key) -> Done:
        """Bring everything of a key in line. Raises ChangeError, Conflict and NotWriting."""
        try:
            with self._asked(key):
                await self._asking.look_at_taken(key)
            done = await self._make_all(key)
            if not done.more and not done.failures and self._asking.leaves_slices(key):
                with self._asked(key):
                    handed_over = await self._asking.handed_over(key)
                if not handed_over:
                    return done._replace(waits=True)
                done = await self._make_all(key)
                self._hand_over.forget(key)
        except Conflict as conflict:
            self._note_conflict(key, conflict)
            if not self._in_vain(key):
                raise
            failure = self._as_reported(key, _conflicts(conflict, self._bounds.retries_max))
            await self._report_failure(key, failure)
            raise ChangeError(failure.reason, failure.message) from conflict
        except ChangeError as error:
            error.passing = error.passing and not self._is_lasting(key, error)
            error.failure = self._as_reported(key, error.failure)
            if not error.passing:
                await self._report_failure(key, error.failure)
            raise
        self._retries.pop(key, None)
        return done

    def _as_reported(self, key: Key, failure: Failure) -> Failure:
        service = self._cache.services.get(key)
        return self._telling.as_reported(key, service.object if service else None, failure)

    def _is_lasting(self, key: Key, error: ChangeError) -> bool:
        """Whether a transient failure has repeated too often, or is to be waited for too long."""
        in_vain = self._in_vain(key)
        return in_vain or error.retry_after_s > self._bounds.backoff.max_s

    def _in_vain(self, key: Key) -> bool:
        """Note that the work failed; whether it has failed too often in a row."""
        self._retries[key] += 1
        return self._retries[key] >= self._bounds.retries_max

    def _note_conflict(self, key: Key, conflict: Conflict) -> None:
        """Take the object that is there instead into the cache."""
        if conflict.found is not None:
            self._take_in(key, Answer(conflict.found))

    async def _note_taken(self, key: Key, conflict: Conflict) -> None:
        """Note that another's slice has the name that ours would have.

        Raises the conflict if it is about something else, and ChangeError after each `retries_max`
        names, so that the VMService says so meanwhile.
        """
        found = conflict.found
        if not isinstance(found, StoredEndpointSlice) or is_our_slice_of(found, key):
            raise conflict
        self._taken.seen(key, found.key, asyncio.get_running_loop().time())
        if found.meta.uid == self._yielding.uid(key, target(Change(None, found))):
            with self._asked(key):
                await self._asking.look_who_took(key, found.key)
        failures = self._taken.failures(key)
        if len(failures) % self._bounds.retries_max == 0:
            raise ChangeError(*failures[-1]) from conflict

    async def _make_all(self, key: Key, failed: Failure | None = None) -> Done:
        """Make one change and plan again, until no change is left.

        So no change is based on an observation that an earlier change has outdated, and none is
        made once an object is found in the way. Later changes of the inputs wait for the next turn,
        so that many of them become few writes.
        """
        clock = asyncio.get_running_loop().time
        written: set[tuple[Target, bool]] = set()
        while True:
            change, failures = self._planning.next_change(key, failed)
            with self._asked(key):
                found = await self._asking.found_writers(key)
            if found or (change is not None and await self._waited_for_token()):
                change, failures = self._planning.next_change(key, failed)
            if change is None:
                return Done(wrote=bool(written), more=False, failures=failures)
            about = target(change), change.after is None
            if about in written:
                return Done(wrote=True, more=True, failures=failures)
            try:
                held = await self._make(key, change)
            except Conflict as conflict:
                await self._note_taken(key, conflict)
                continue  # With the next name.
            self._yielding.written(key, change, clock(), uid=held.meta.uid if held else "")
            written.add(about)

    async def _report_failure(self, key: Key, failure: Failure) -> None:
        """Write to the VMService why its objects are not as they should be.

        If that fails too, it is tried again with the next attempt.
        """
        with contextlib.suppress(ChangeError, Conflict):
            await self._make_all(key, failure)

    async def _waited_for_token(self) -> bool:
        """Wait until a write is allowed; whether that took any time."""
        delay_s = self._bucket.take(asyncio.get_running_loop().time())
        if delay_s:
            await asyncio.sleep(delay_s)
        return delay_s > 0

    async def _make(self, key: Key, change: Change) -> Held | None:
        """Make one change, and take it into the cache before planning again; what is held now."""
        if not self._may_write():
            raise NotWriting
        clock = asyncio.get_running_loop().time
        began, attempt = clock(), Attempt.FAILED
        try:
            with self._asked(key):
                held = await self._store.apply(change)
            attempt = Attempt.WRITTEN
        except Gone:
            attempt = Attempt.GONE
            self._take_in(key, _answer_gone(change))
            return None
        except Conflict as conflict:
            attempt = Attempt.CONFLICT
            conflict.change = change
            raise
        finally:
            self._counts.attempted(change.kind, change.verb, attempt, clock() - began)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("wrote: %s", change, extra=about(change.kind, change.key, reason="Wrote"))
        service = self._cache.services.get(key)
        self._telling.made(service.object if service else None, change)
        self._take_in(key, _answer_gone(change) if held is None else Answer(held))
        return held

    def _take_in(self, key: Key, event: Event) -> None:
        # The key itself is planned again anyway. What the cache leaves to its owner is done later.
        self._enqueue(self._cache.take_in(event) - {key})


def _answer_gone(change: Change) -> AnswerGone:
    before = change.before
    assert before is not None, "what was not there cannot go"
    return AnswerGone(change.kind, change.key, before.meta.uid, before.meta.resource_version)
