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
from functools import partial

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.kube.times import time_text
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.reconciler.asking import Mirrored, all_mirrored
from vmsvc_grpc.reconciler.bounds import ReconcilerBounds
from vmsvc_grpc.reconciler.counts import ReconcilerCounts, Turn
from vmsvc_grpc.reconciler.held import Failure, joined
from vmsvc_grpc.reconciler.notice import OnNotice
from vmsvc_grpc.reconciler.queue import QueueMeasures
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.reconciler.store import ChangeError, Conflict, NotWriting, Store, Witness
from vmsvc_grpc.reconciler.telling import OnFailure
from vmsvc_grpc.reconciler.term import Term
from vmsvc_grpc.reconciler.work import Done

QUEUED_MAX = 500
"""How many keys are queued before others have their turn: some 1 ms."""


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
        self.measures = QueueMeasures()
        """What went through the queue, and how long it took."""
        self._cache = cache
        self._bounds = bounds
        self._rules = rules
        self._may_write = may_write
        self._begin_term = partial(
            Term,
            cache,
            store,
            bounds=bounds,
            rules=rules,
            mirrored=mirrored,
            witness=witness,
            on_failure=on_failure,
            on_notice=on_notice,
            all_listed=all_listed,
            may_write=may_write,
            random=random,
            now=now,
            counts=self.counts,
            measures=self.measures,
            enqueue=self.enqueue,
            asked=self._asked,
        )
        self._term = self._begin_term()
        # Whether all services were enqueued since writing was allowed.
        self._leads = False
        # Of each service in work, by which its turn is broken off.
        self._turns: dict[Key, asyncio.Timeout] = {}
        # Keys that `run` has yet to put into the queue. Others, who may bring all, only leave them.
        self._arrived: OrderedDict[Key, None] = OrderedDict()
        self._wake = asyncio.Event()

    @property
    def queue_depth(self) -> int:
        """How many services wait for work. If 0, and `working` is 0, all is as it should be.

        While no write may be begun, none do: all services are looked at once one may.
        For a moment, one that waits already and is enqueued again may be counted twice.
        """
        return len(self._term.queue) + len(self._arrived)

    @property
    def working(self) -> int:
        """How many services are being worked on."""
        return self._term.queue.working

    @property
    def due(self) -> int:
        """How many services wait for nothing but a worker. O(services that wait)."""
        return self._term.queue.due(asyncio.get_running_loop().time()) + len(self._arrived)

    def at_work_s(self) -> list[float]:
        """How long each service in work has been, the longest first."""
        now = asyncio.get_running_loop().time()
        return [now - began for began in self._term.queue.began]

    @property
    def failures(self) -> Mapping[Key, Failure]:
        """The failure of each service whose objects are not as they should be: a view."""
        return self._term.telling.failures

    def enqueue(self, keys: Iterable[Key]) -> None:
        """These services need work. Does not wait; one that is queued already costs nothing.

        While no write may be begun, they are forgotten soon. All services may be given at once:
        here they are only noted.
        """
        self._arrived.update(dict.fromkeys(keys))
        self._wake.set()

    def retry(self, keys: Iterable[Key], namespaces: Collection[str]) -> None:
        """What these services failed at, or any in these namespaces, may succeed now."""
        failing = self._term.queue.failing
        self.enqueue([key for key in keys if key in failing])
        if namespaces:
            self.enqueue([key for key in failing if key.namespace in namespaces])

    def enqueue_all(self) -> None:
        """Enqueue every service, as when this process begins to lead."""
        if self._cache.synced:
            self.enqueue(self._cache.keys_with_work())

    def lead_changed(self) -> None:
        """Have it noticed at once, and not soon, that a write may be begun, or no longer."""
        self._wake.set()

    async def run(self) -> None:
        """Work on the queue, beginning with every service, until cancelled.

        May be run again after a cancellation: interrupted work then begins anew.
        """
        if self._leads:
            self.enqueue_all()
        async with asyncio.TaskGroup() as turns:
            while True:
                self._wake.clear()
                self._look_who_leads()
                now = asyncio.get_running_loop().time()
                self._queue_arrived(now)
                while self._may_take() and (key := self._term.queue.take(now)) is not None:
                    turns.create_task(self._turn(key))
                if self._arrived:
                    await asyncio.sleep(0)
                else:
                    await self._wait(now)

    def _look_who_leads(self) -> None:
        """Begin with every service once a write may be begun; forget all while none may.

        Another replica writes then, and what becomes of its writes is not known here: a service
        may be gone, or in order. Turns that are in work end before.
        """
        if self._may_write():
            if not self._leads:
                self._leads = True
                self.enqueue_all()
        elif not self._term.queue.working:
            self._arrived.clear()
            if self._leads:
                self._leads = False
                self._term = self._begin_term()

    def _queue_arrived(self, now: float) -> None:
        """Queue some of the keys that have arrived."""
        for _ in range(min(QUEUED_MAX, len(self._arrived))):
            key, _ = self._arrived.popitem(last=False)
            self._term.queue.add(key, now)

    def _may_take(self) -> bool:
        may_begin = self._cache.synced and self._may_write()
        return may_begin and self._term.queue.working < self._bounds.workers

    async def _wait(self, now: float) -> None:
        """Until a key was added or a worker is free, or until the next key is due."""
        if not self._may_write():
            due: float | None = now + self._bounds.lead_poll_s
        else:
            due = self._term.queue.next_due() if self._may_take() else None
        try:
            async with asyncio.timeout(None if due is None else max(0.0, due - now)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _turn(self, key: Key) -> None:
        """Work on one key, and note the outcome in the queue."""
        clock = asyncio.get_running_loop().time
        began, ended = clock(), Turn.AGAIN
        try:
            done = await self._reconcile(key)
        except Conflict:
            self._term.queue.failed(key, clock())
        except ChangeError as error:
            ended = Turn.FAILED
            self._term.telling.report(key, error.failure)
            if not error.passing:
                self._warn(key, (error.failure,))
            self._term.queue.failed(key, clock(), at_least_s=error.retry_after_s)
        except NotWriting:
            if self._may_write():
                self._term.queue.failed(key, clock())
            else:
                self._term.queue.abandoned(key, clock())
        except BaseException:
            self._term.queue.abandoned(key, clock())
            raise
        else:
            self._term.telling.report(key, joined(done.failures))
            self._warn(key, done.failures)
            if done.waits:
                self._term.queue.failed(key, clock())
            else:
                ended = Turn.DONE
                self._term.queue.succeeded(key, clock(), wrote=done.wrote)
            if done.more:
                self._term.queue.add(key, clock())
            self._look_again(key, clock())
        finally:
            self.counts.turns[ended].observe(clock() - began)
            self._wake.set()

    async def _reconcile(self, key: Key) -> Done:
        """Work on one key, unless it hangs too long. Raises as `Work.reconcile` does."""
        try:
            async with asyncio.timeout(None) as self._turns[key]:
                return await self._term.work.reconcile(key)
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
        if not self._term.queue.hangs(key, now):
            self._turns[key].reschedule(now)
        self._wake.set()

    def _look_again(self, key: Key, now: float) -> None:
        """Schedule the next look at objects that are left alone for now."""
        for due in (self._term.yielding.due(key, now), self._term.taken.due(key)):
            if due is not None:
                self._term.queue.later(key, due)

    def _warn(self, key: Key, failures: Iterable[Failure]) -> None:
        service = self._cache.services.get(key)
        mirrored = None if self._rules.direct_slices else self._cache.stored_endpoints.get(key)
        self._term.telling.warn(key, service.object if service else None, failures, mirrored)
