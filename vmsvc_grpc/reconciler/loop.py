"""The shell around the reconciler's pure parts: key, observe, desired, plan, apply.

It reads the cache and a clock, and writes through a Store. It knows neither where objects
come from nor where they are written.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from vmsvc_grpc.backoff import Backoff
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.kube.times import time_text
from vmsvc_grpc.model.events import Answer, AnswerGone, Event
from vmsvc_grpc.model.objects import (
    IPFamily,
    Key,
    Kind,
    StoredEndpointSlice,
)
from vmsvc_grpc.model.ownership import is_our_slice_of
from vmsvc_grpc.reconciler.desired import Desired, desired, undone
from vmsvc_grpc.reconciler.handover import HandOver
from vmsvc_grpc.reconciler.held import Failure, HeldObjects, joined
from vmsvc_grpc.reconciler.names import TakenNames
from vmsvc_grpc.reconciler.notice import OnNotice
from vmsvc_grpc.reconciler.plan import Change, Verb, plan
from vmsvc_grpc.reconciler.queue import Queue, TokenBucket
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.reconciler.store import ChangeError, Conflict, Gone, NotWriting, Store, Witness
from vmsvc_grpc.reconciler.telling import OnFailure, Telling
from vmsvc_grpc.reconciler.yielding import Patience, Target, Yielding, target


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcilerBounds:
    """Bounds of the reconciler.

    `cooldown_s`: how long a service rests after a write, as the controller that mirrors Endpoints
    reads each of them whole, and every node reads the slices. Streams do not wait. `retries_max`:
    after so many failed attempts in a row, the VMService reports even a transient failure.
    `recheck_s`: how long we believe that another's object is in our place without a new look.
    `lead_poll_s`: how often to look whether writing is allowed
    again. `hand_over_s`: longest wait for Kubernetes to mirror a service whose slices we hand
    over.
    """

    workers: int = 4
    writes_per_s: float = 50.0
    writes_burst: int = 200
    retries_max: int = 10
    recheck_s: float = 60.0
    patience: Patience = field(default_factory=Patience)
    cooldown_s: float = 1.0
    backoff: Backoff = field(default_factory=lambda: Backoff(first_s=0.1, max_s=60.0))
    lead_poll_s: float = 0.5
    hand_over_s: float = 10.0


@dataclass(slots=True)
class ReconcilerCounts:
    """How much work was done, for tests and metrics. Only rises."""

    reconciles: int = 0
    errors: int = 0
    conflicts: int = 0
    writes: Counter[tuple[Kind, Verb]] = field(default_factory=Counter)


Mirrored = Callable[[Key], Awaitable[frozenset[str]]]
"""The address types of the EndpointSlices that Kubernetes has mirrored for a service.

Raises ChangeError.
"""


async def _all_mirrored(_: Key) -> frozenset[str]:
    return frozenset(family.value for family in IPFamily)


class _Done(NamedTuple):
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


def _now() -> str:
    return time_text(datetime.now(UTC))


class Reconciler:
    """Keeps the objects of every VMService as they should be, for as long as `run` runs."""

    def __init__(
        self,
        cache: Cache,
        store: Store,
        *,
        bounds: ReconcilerBounds,
        rules: Rules,
        mirrored: Mirrored = _all_mirrored,
        witness: Witness | None = None,
        on_failure: OnFailure | None = None,
        on_notice: OnNotice = lambda _, __: None,
        all_listed: Callable[[], bool] = lambda: True,
        may_write: Callable[[], bool] = lambda: True,
        random: Callable[[], float] = random.random,
        now: Callable[[], str] = _now,
    ) -> None:
        """Nothing happens before `run`, nor before the cache is synced.

        `all_listed` says whether every VMService that exists could be read. Until then, objects
        whose VMService was never seen stay, as it may be among the unread ones.
        `witness`, if given, finds out who else writes. Without direct slices, slices of ours left
        from earlier are deleted once `mirrored` returns Kubernetes' own.
        `may_write` says whether a write may be begun now. `now` is RFC 3339, for what is
        written.
        """
        self.counts = ReconcilerCounts()
        self._cache = cache
        self._store = store
        self._bounds = bounds
        self._rules = rules
        self._mirrored = mirrored
        self._witness = witness
        self._hand_over = HandOver(patience_s=bounds.hand_over_s)
        self._telling = Telling(on_failure, on_notice)
        self._all_listed = all_listed
        self._may_write = may_write
        self._now = now
        self._yielding = Yielding(bounds.patience)
        self._taken = TakenNames(recheck_s=bounds.recheck_s)
        # How many times in a row the work on a service was broken off by a transient failure.
        self._retries: Counter[Key] = Counter()
        # Services with objects whose VMService was seen in the life of this process.
        self._seen: set[Key] = set()
        self._queue = Queue(
            cooldown_s=bounds.cooldown_s,
            backoff=bounds.backoff,
            random=random,
        )
        self._bucket = TokenBucket(per_s=bounds.writes_per_s, burst=bounds.writes_burst)
        self._wake = asyncio.Event()

    @property
    def failures(self) -> Mapping[Key, Failure]:
        """Each service whose objects are not as they should be, and why."""
        return self._telling.failures

    @property
    def queue_depth(self) -> int:
        """How many services wait for work. If 0, and `working` is 0, all is as it should be."""
        return len(self._queue)

    @property
    def working(self) -> int:
        """How many services are being worked on."""
        return self._queue.working

    def enqueue(self, keys: Iterable[Key]) -> None:
        """These services need work. Does not wait; one that is queued already costs nothing.

        They stay queued while no write may be begun.
        """
        now = asyncio.get_running_loop().time()
        for key in keys:
            self._queue.add(key, now)
        self._wake.set()

    def enqueue_all(self) -> None:
        """Enqueue every service, as when this process begins to lead."""
        if self._cache.synced:
            self.enqueue(self._cache.keys_with_work())

    async def run(self) -> None:
        """Work on the queue, beginning with every service, until cancelled.

        May be run again after a cancellation: interrupted work then begins anew.
        """
        self.enqueue_all()
        async with asyncio.TaskGroup() as turns:
            while True:
                self._wake.clear()
                now = asyncio.get_running_loop().time()
                while self._may_take() and (key := self._queue.take(now)) is not None:
                    turns.create_task(self._turn(key))
                await self._wait(now)

    def _may_take(self) -> bool:
        may_begin = self._cache.synced and self._may_write()
        return may_begin and self._queue.working < self._bounds.workers

    async def _wait(self, now: float) -> None:
        """Until a key was added or a worker is free, or until the next key is due."""
        if not self._may_write():
            due: float | None = now + self._bounds.lead_poll_s
        else:
            due = self._queue.next_due() if self._may_take() else None
        try:
            async with asyncio.timeout(None if due is None else max(0.0, due - now)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _turn(self, key: Key) -> None:
        """Work on one key, and note the outcome in the queue."""
        clock = asyncio.get_running_loop().time
        self.counts.reconciles += 1
        try:
            done = await self._reconcile(key)
        except Conflict:
            self._queue.failed(key, clock())
        except ChangeError as error:
            self.counts.errors += 1
            self._telling.report(key, error.failure)
            if not error.passing:
                self._warn(key, (error.failure,))
            self._queue.failed(key, clock(), at_least_s=error.retry_after_s)
        except NotWriting:
            if self._may_write():
                self._queue.failed(key, clock())
            else:
                self._queue.abandoned(key, clock())
        except BaseException:
            self._queue.abandoned(key, clock())
            raise
        else:
            self._telling.report(key, joined(done.failures))
            self._warn(key, done.failures)
            if done.waits:
                self._queue.failed(key, clock())
            else:
                self._queue.succeeded(key, clock(), wrote=done.wrote)
            if done.more:
                self._queue.add(key, clock())
            self._look_again(key, clock())
        finally:
            self._wake.set()

    def _look_again(self, key: Key, now: float) -> None:
        """Schedule the next look at objects that are left alone for now."""
        for due in (self._yielding.due(key, now), self._taken.due(key)):
            if due is not None:
                self._queue.later(key, due)

    async def _reconcile(self, key: Key) -> _Done:
        """Bring everything of a key in line. Raises ChangeError, Conflict and NotWriting."""
        try:
            await self._look_at_taken(key)
            done = await self._work(key)
            if not done.more and not done.failures and self._leaves_slices(key):
                if not await self._handed_over(key):
                    return done._replace(waits=True)
                done = await self._work(key)
                self._hand_over.forget(key)
        except Conflict as conflict:
            self._note_conflict(key, conflict)
            if not self._in_vain(key):
                raise
            failure = self._as_reported(key, _conflicts(conflict, self._bounds.retries_max))
            await self._report_failure(key, failure)
            raise ChangeError(failure.reason, failure.message) from conflict
        except ChangeError as error:
            error.passing = error.passing and not self._in_vain(key)
            error.failure = self._as_reported(key, error.failure)
            if not error.passing:
                await self._report_failure(key, error.failure)
            raise
        self._retries.pop(key, None)
        return done

    def _as_reported(self, key: Key, failure: Failure) -> Failure:
        service = self._cache.services.get(key)
        return self._telling.as_reported(key, service.object if service else None, failure)

    def _in_vain(self, key: Key) -> bool:
        """Note that the work was broken off; whether that was so too often."""
        self._retries[key] += 1
        return self._retries[key] >= self._bounds.retries_max

    def _note_conflict(self, key: Key, conflict: Conflict) -> None:
        """Take the object that is there instead into the cache, or note its name as taken."""
        self.counts.conflicts += 1
        found = conflict.found
        if isinstance(found, StoredEndpointSlice) and not is_our_slice_of(found, key):
            self._taken.seen(key, found.key, asyncio.get_running_loop().time())
            self._retries.pop(key, None)  # The next name is progress.
        elif found is not None:
            self._take_in(key, Answer(found))

    async def _look_at_taken(self, key: Key) -> None:
        """Look again at others' slices that were seen long ago. Raises ChangeError."""
        if self._taken.of(key) and key not in self._cache.services:
            self._taken.forget(key)
        for slice_ in self._taken.doubtful(key, asyncio.get_running_loop().time()):
            assert self._witness is not None, "slices are held where it can be asked for them"
            found = await self._witness.find(Kind.ENDPOINT_SLICE, slice_)
            if isinstance(found, StoredEndpointSlice) and not is_our_slice_of(found, key):
                self._taken.seen(key, slice_, asyncio.get_running_loop().time())
            else:
                self._taken.gone(key, slice_)

    def _leaves_slices(self, key: Key) -> bool:
        """Whether there are slices of ours that Kubernetes is to replace by its own."""
        service = self._cache.services.get(key)
        if not self._cache.stored_slices.of(key) or service is None or service.spec is None:
            self._hand_over.forget(key)
            return False
        direct = self._rules.direct_slices and service.spec.selector
        return not (direct or service.object.meta.deleting or self._hand_over.over(key))

    async def _handed_over(self, key: Key) -> bool:
        """Whether our slices may go, as Kubernetes has mirrored the Endpoints."""
        stored = self._cache.stored_endpoints.get(key)
        held = stored.address_types() if stored else frozenset()
        mirrored = not held or held <= await self._mirrored(key)
        return self._hand_over.asked(key, asyncio.get_running_loop().time(), mirrored=mirrored)

    async def _work(self, key: Key, failed: Failure | None = None) -> _Done:
        """Make one change and plan again, until no change is left.

        So no change follows from an observation that an earlier change has outdated, and none is
        made once an object turned out to be in the way. Later changes of the inputs wait for the
        next turn, so that many of them become few writes.
        """
        clock = asyncio.get_running_loop().time
        written: set[tuple[Target, bool]] = set()
        while True:
            change, failures = self._next_change(key, failed)
            if await self._found_writers(key) or (
                change is not None and await self._waited_for_token()
            ):
                change, failures = self._next_change(key, failed)
            if change is None:
                return _Done(wrote=bool(written), more=False, failures=failures)
            about = target(change), change.after is None
            if about in written:
                return _Done(wrote=True, more=True, failures=failures)
            await self._make(key, change)
            self._yielding.written(key, change, clock())
            written.add(about)

    async def _found_writers(self, key: Key) -> bool:
        """Find out who else writes the objects newly in dispute; whether there were any."""
        undecided = list(self._yielding.undecided(key))
        for about, fields in undecided:
            asked = self._witness
            writer = await asked.other_writer(about.kind, about.key, fields) if asked else ""
            self._yielding.found(key, about, writer)
        return bool(undecided)

    async def _report_failure(self, key: Key, failure: Failure) -> None:
        """Write to the VMService why its objects are not as they should be.

        If that fails too, it is tried again with the next attempt.
        """
        try:
            await self._work(key, failure)
        except (ChangeError, Conflict):
            self.counts.errors += 1

    def _next_change(
        self, key: Key, failed: Failure | None
    ) -> tuple[Change | None, tuple[Failure, ...]]:
        """The next change to make, and the failures that stand."""
        now = asyncio.get_running_loop().time()
        observed = self._observed(key)
        while True:
            disputes = self._yielding.failures(key)
            wanted = self._desired(key, observed, failed, disputes)
            changes = self._yielding.allowed(key, plan(wanted.objects, observed), now)
            # When a dispute begins or ends, the VMService should report something else.
            if self._yielding.failures(key) == disputes:
                return (changes[0] if changes else None), wanted.failures

    def _observed(self, key: Key) -> HeldObjects:
        service = self._cache.services.get(key)
        return HeldObjects(
            vmservice=service.object if service else None,
            service=self._cache.stored_services.get(key),
            endpoints=self._cache.stored_endpoints.get(key),
            slices=self._cache.stored_slices.of(key),
        )

    def _desired(
        self,
        key: Key,
        observed: HeldObjects,
        failed: Failure | None,
        disputes: tuple[Failure, ...],
    ) -> Desired:
        service = self._cache.services.get(key)
        spec = service.spec if service else None
        if failed is not None:
            failures = (failed, *disputes)
            return undone(observed, spec, failures, self._rules, now=self._now())
        wanted = desired(
            observed,
            spec,
            service.endpoints if service else (),
            self._rules,
            now=self._now(),
            handed_over=self._hand_over.over(key),
            standing=(*disputes, *self._taken.failures(key)),
            taken=self._taken.of(key),
        )
        if service is not None:
            self._seen.add(key)
        elif wanted.objects == observed:
            self._seen.discard(key)
        elif key not in self._seen and not self._all_listed():
            raise ChangeError(
                "VirtualMachineServiceUnread",
                f"the objects of {key} stay although no VirtualMachineService {key} was read: "
                "not everything could be read, and it may be among the rest",
            )
        return wanted

    async def _waited_for_token(self) -> bool:
        """Wait until a write is allowed; whether that took any time."""
        delay_s = self._bucket.take(asyncio.get_running_loop().time())
        if delay_s:
            await asyncio.sleep(delay_s)
        return delay_s > 0

    async def _make(self, key: Key, change: Change) -> None:
        """Make one change, and take it into the cache before planning again."""
        if not self._may_write():
            raise NotWriting
        try:
            held = await self._store.apply(change)
        except Gone:
            self._take_in(key, _answer_gone(change))
            return
        except Conflict as conflict:
            conflict.change = change
            raise
        self.counts.writes[change.kind, change.verb] += 1
        service = self._cache.services.get(key)
        self._telling.made(service.object if service else None, change)
        self._take_in(key, _answer_gone(change) if held is None else Answer(held))

    def _take_in(self, key: Key, event: Event) -> None:
        # The key itself is planned again anyway.
        self.enqueue(self._cache.apply(event) - {key})

    def _warn(self, key: Key, failures: Iterable[Failure]) -> None:
        service = self._cache.services.get(key)
        mirrored = None if self._rules.direct_slices else self._cache.stored_endpoints.get(key)
        self._telling.warn(key, service.object if service else None, failures, mirrored)


def _answer_gone(change: Change) -> AnswerGone:
    before = change.before
    assert before is not None, "what was not there cannot go"
    return AnswerGone(change.kind, change.key, before.meta.uid, before.meta.resource_version)
