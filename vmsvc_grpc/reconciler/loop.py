"""The shell around the reconciler's other parts: when each service has its turn.

It reads the cache and a clock, and writes through a Store. It knows neither where objects
come from nor where they are written.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.kube.times import time_text
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.reconciler.asking import Asking, Mirrored, all_mirrored
from vmsvc_grpc.reconciler.bounds import ReconcilerBounds
from vmsvc_grpc.reconciler.counts import ReconcilerCounts, Turn
from vmsvc_grpc.reconciler.handover import HandOver
from vmsvc_grpc.reconciler.held import Failure, joined
from vmsvc_grpc.reconciler.names import TakenNames
from vmsvc_grpc.reconciler.notice import OnNotice
from vmsvc_grpc.reconciler.planning import Planning
from vmsvc_grpc.reconciler.queue import Queue, QueueMeasures
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.reconciler.store import ChangeError, Conflict, NotWriting, Store, Witness
from vmsvc_grpc.reconciler.telling import OnFailure, Telling
from vmsvc_grpc.reconciler.work import Done, Work
from vmsvc_grpc.reconciler.yielding import Yielding

QUEUED_MAX = 500
"""How many keys are queued before others have their turn: some 1 ms."""


def _now() -> str:
    return time_text(datetime.now(UTC))


def _new_queue(bounds: ReconcilerBounds, random: Callable[[], float]) -> Queue:
    return Queue(
        cooldown_s=bounds.cooldown_s,
        backoff=bounds.backoff,
        # The other half of the workers is for services that do not hang. One is for all.
        hanging_max=max(1, bounds.workers // 2),
        random=random,
    )


class Reconciler:
    """Keeps the objects of every VMService as they should be, for as long as `run` runs."""

    def __init__(
        self,
        cache: Cache,
        store: Store,
        *,
        bounds: ReconcilerBounds,
        rules: Rules,
        mirrored: Mirrored = all_mirrored,
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
        self._bounds = bounds
        self._rules = rules
        self._telling = Telling(on_failure, on_notice)
        self._may_write = may_write
        self._yielding = Yielding(bounds.patience)
        self._taken = TakenNames(recheck_s=bounds.recheck_s)
        hand_over = HandOver(patience_s=bounds.hand_over_s)
        self._work = Work(
            cache,
            store,
            Planning(
                cache,
                rules,
                yielding=self._yielding,
                taken=self._taken,
                hand_over=hand_over,
                all_listed=all_listed,
                now=now,
            ),
            Asking(
                cache,
                rules,
                witness=witness,
                mirrored=mirrored,
                yielding=self._yielding,
                taken=self._taken,
                hand_over=hand_over,
            ),
            bounds=bounds,
            counts=self.counts,
            telling=self._telling,
            yielding=self._yielding,
            taken=self._taken,
            hand_over=hand_over,
            may_write=may_write,
            enqueue=self.enqueue,
            asked=self._asked,
        )
        # Of each service in work, by which its turn is broken off.
        self._turns: dict[Key, asyncio.Timeout] = {}
        self._queue = _new_queue(bounds, random)
        # Keys that `run` has yet to put into the queue. Others, who may bring all, only leave them.
        self._arrived: OrderedDict[Key, None] = OrderedDict()
        self._wake = asyncio.Event()

    @property
    def queue_depth(self) -> int:
        """How many services wait for work. If 0, and `working` is 0, all is as it should be.

        For a moment, one that waits already and is enqueued again may be counted twice.
        """
        return len(self._queue) + len(self._arrived)

    @property
    def working(self) -> int:
        """How many services are being worked on."""
        return self._queue.working

    @property
    def due(self) -> int:
        """How many services wait for nothing but a worker. O(services that wait)."""
        return self._queue.due(asyncio.get_running_loop().time()) + len(self._arrived)

    @property
    def measures(self) -> QueueMeasures:
        """What went through the queue, and how long it took."""
        return self._queue.measures

    def at_work_s(self) -> list[float]:
        """How long each service in work has been, the longest first."""
        now = asyncio.get_running_loop().time()
        return [now - began for began in self._queue.began]

    @property
    def failures(self) -> Mapping[Key, Failure]:
        """The failure of each service whose objects are not as they should be: a view."""
        return self._telling.failures

    def enqueue(self, keys: Iterable[Key]) -> None:
        """These services need work. Does not wait; one that is queued already costs nothing.

        They stay queued while no write may be begun. All services may be given at once: here they
        are only noted.
        """
        self._arrived.update(dict.fromkeys(keys))
        self._wake.set()

    def retry(self, keys: Iterable[Key], namespaces: Collection[str]) -> None:
        """What these services failed at, or any in these namespaces, may succeed now."""
        failing = self._queue.failing
        self.enqueue([key for key in keys if key in failing])
        if namespaces:
            self.enqueue([key for key in failing if key.namespace in namespaces])

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
                self._queue_arrived(now)
                while self._may_take() and (key := self._queue.take(now)) is not None:
                    turns.create_task(self._turn(key))
                if self._arrived:
                    await asyncio.sleep(0)
                else:
                    await self._wait(now)

    def _queue_arrived(self, now: float) -> None:
        """Queue some of the keys that have arrived."""
        for _ in range(min(QUEUED_MAX, len(self._arrived))):
            key, _ = self._arrived.popitem(last=False)
            self._queue.add(key, now)

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
        began, ended = clock(), Turn.AGAIN
        try:
            done = await self._reconcile(key)
        except Conflict:
            self._queue.failed(key, clock())
        except ChangeError as error:
            ended = Turn.FAILED
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
                ended = Turn.DONE
                self._queue.succeeded(key, clock(), wrote=done.wrote)
            if done.more:
                self._queue.add(key, clock())
            self._look_again(key, clock())
        finally:
            self.counts.turns[ended].observe(clock() - began)
            self._wake.set()

    async def _reconcile(self, key: Key) -> Done:
        """Work on one key, unless it hangs too long. Raises as `Work.reconcile` does."""
        try:
            async with asyncio.timeout(None) as self._turns[key]:
                return await self._work.reconcile(key)
        except TimeoutError as error:
            message = f"no answer within {self._bounds.hang_s:g} s; others have their turn first"
            raise ChangeError("NoAnswer", message, passing=True) from error
        finally:
            del self._turns[key]

    @contextmanager
    def _asked(self, key: Key) -> Iterator[None]:
        """While an answer is waited for. Once it is late, the service hangs."""
        timer = asyncio.get_running_loop().call_later(self._bounds.hang_s, self._hangs, key)
        try:
            yield
        finally:
            timer.cancel()

    def _hangs(self, key: Key) -> None:
        """Give the place of a service that hangs to others."""
        now = asyncio.get_running_loop().time()
        if not self._queue.hangs(key, now):
            self._turns[key].reschedule(now)
        self._wake.set()

    def _look_again(self, key: Key, now: float) -> None:
        """Schedule the next look at objects that are left alone for now."""
        for due in (self._yielding.due(key, now), self._taken.due(key)):
            if due is not None:
                self._queue.later(key, due)

    def _warn(self, key: Key, failures: Iterable[Failure]) -> None:
        service = self._cache.services.get(key)
        mirrored = None if self._rules.direct_slices else self._cache.stored_endpoints.get(key)
        self._telling.warn(key, service.object if service else None, failures, mirrored)
