"""The shell around the reconciler's pure parts: key, observe, desired, plan, apply.

It reads the cache and a clock, and writes through a Store. It knows neither where objects
come from nor where they are written.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Key, Kind, Object
from vmsvc_grpc.reconciler.desired import Children, Desired, Failure, abandoned, desired
from vmsvc_grpc.reconciler.plan import Change, Verb, plan
from vmsvc_grpc.reconciler.queue import Queue, TokenBucket


class ChangeError(Exception):
    """A change cannot be made now; the message says which and why. It is tried again later."""

    def __init__(self, reason: str, message: str) -> None:
        """`reason` is a word in camel case, `message` a sentence for who runs this."""
        super().__init__(message)
        self.failure = Failure(reason, message)


class Conflict(Exception):  # noqa: N818 - not an error: somebody else was first.
    """The object is no longer what was observed: observe it again, and plan anew."""


class Store(Protocol):
    """Where objects are held. The only thing that writes."""

    async def apply(self, change: Change) -> Object | None:
        """Make one change; the object as it is held now, or None if it is gone.

        What is gone already counts as deleted. Raises Conflict or ChangeError, and has
        then changed nothing. If cancelled, it may or may not have.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Bounds of the reconciler. `cooldown_s` is how long a service rests after a write."""

    workers: int = 4
    writes_per_s: float = 50.0
    writes_burst: int = 200
    writes_per_turn_max: int = 8
    cooldown_s: float = 0.2
    backoff_first_s: float = 0.1
    backoff_max_s: float = 60.0


@dataclass(slots=True)
class Counts:
    """How much work was done, for tests and metrics. Only rises."""

    reconciles: int = 0
    errors: int = 0
    conflicts: int = 0
    writes: Counter[tuple[Kind, Verb]] = field(default_factory=Counter)


OnFailure = Callable[[Key, Failure | None], None]
"""Told why a service's objects are not right, each time that changes; None once they are."""


class Reconciler:
    """Keeps the children of every VMService as they should be, for as long as `run` runs."""

    def __init__(
        self,
        cache: Cache,
        store: Store,
        *,
        settings: Settings,
        load_balancer_provider: str = "",
        on_failure: OnFailure | None = None,
        all_listed: Callable[[], bool] = lambda: True,
        random: Callable[[], float] = random.random,
    ) -> None:
        """Nothing happens before `run`, nor before the cache is synced.

        `all_listed` says whether every VMService that exists could be read. While not,
        objects whose VMService nobody has seen stay: it may be among the unread.
        """
        self.counts = Counts()
        self._cache = cache
        self._store = store
        self._settings = settings
        self._load_balancer_provider = load_balancer_provider
        self._on_failure = on_failure
        self._all_listed = all_listed
        self._failures: dict[Key, Failure] = {}
        # Services whose VMService existed in the life of this process and that hold objects.
        self._seen: set[Key] = set()
        self._queue = Queue(
            cooldown_s=settings.cooldown_s,
            backoff_first_s=settings.backoff_first_s,
            backoff_max_s=settings.backoff_max_s,
            random=random,
        )
        self._bucket = TokenBucket(per_s=settings.writes_per_s, burst=settings.writes_burst)
        self._wake = asyncio.Event()

    @property
    def failures(self) -> Mapping[Key, Failure]:
        """Why a service's objects are not as they should be, of each where they are not."""
        return self._failures

    @property
    def queue_depth(self) -> int:
        """How many services wait for work; 0 and nothing `working`: all is as it should be."""
        return len(self._queue)

    @property
    def working(self) -> int:
        """How many services are being worked on."""
        return self._queue.working

    def enqueue(self, keys: Iterable[Key]) -> None:
        """These services want work. Does not wait, and costs nothing for one that waits already."""
        now = asyncio.get_running_loop().time()
        for key in keys:
            self._queue.add(key, now)
        self._wake.set()

    async def run(self) -> None:
        """Work on what is enqueued, beginning with everything there is; until cancelled.

        May be run again after it was cancelled: what was in work is then begun anew.
        """
        if self._cache.synced:
            self.enqueue(self._all_keys())
        async with asyncio.TaskGroup() as turns:
            while True:
                self._wake.clear()
                now = asyncio.get_running_loop().time()
                while self._may_take() and (key := self._queue.take(now)) is not None:
                    turns.create_task(self._turn(key))
                await self._wait(now)

    def _all_keys(self) -> set[Key]:
        cache = self._cache
        return {*cache.services, *cache.stored_services, *cache.stored_endpoints}

    def _may_take(self) -> bool:
        return self._cache.synced and self._queue.working < self._settings.workers

    async def _wait(self, now: float) -> None:
        """Until a key was added or a worker is free, or until the next key is due."""
        due = self._queue.next_due() if self._may_take() else None
        try:
            async with asyncio.timeout(None if due is None else max(0.0, due - now)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _turn(self, key: Key) -> None:
        """Work on one key, and say to the queue how it went."""
        clock = asyncio.get_running_loop().time
        self.counts.reconciles += 1
        try:
            wrote, failure = await self._reconcile(key)
        except Conflict:
            self.counts.conflicts += 1
            self._queue.failed(key, clock())
        except ChangeError as error:
            self.counts.errors += 1
            self._note(key, error.failure)
            self._queue.failed(key, clock())
        except BaseException:
            self._queue.abandoned(key, clock())
            raise
        else:
            self._note(key, failure)
            self._queue.succeeded(key, clock(), wrote=wrote)
        finally:
            self._wake.set()

    async def _reconcile(self, key: Key) -> tuple[bool, Failure | None]:
        """Make one change and plan anew, until there is none to make; whether there was any.

        So no change is made from an observation that an earlier one has outdated, and
        none after another object turned out to be in the way.
        """
        for writes in range(self._settings.writes_per_turn_max):
            change, failure = self._next_change(key)
            if change is not None and await self._waited_for_token():
                change, failure = self._next_change(key)
            if change is None:
                return writes > 0, failure
            await self._make(change)
        raise ChangeError(
            "ChangesDoNotStay",
            f"the objects of {key} are not as they were written "
            f"{self._settings.writes_per_turn_max} times; somebody else changes them",
        )

    def _next_change(self, key: Key) -> tuple[Change | None, Failure | None]:
        observed = Children(
            service=self._cache.stored_services.get(key),
            endpoints=self._cache.stored_endpoints.get(key),
        )
        wanted = self._desired(key, observed)
        return next(iter(plan(wanted.children, observed)), None), wanted.failure

    def _desired(self, key: Key, observed: Children) -> Desired:
        service = self._cache.services.get(key)
        if service is not None:
            self._seen.add(key)
            return desired(
                service.object,
                service.spec,
                service.endpoints,
                observed,
                load_balancer_provider=self._load_balancer_provider,
            )
        wanted = abandoned(observed)
        if wanted == observed:
            self._seen.discard(key)
        elif key not in self._seen and not self._all_listed():
            raise ChangeError(
                "VirtualMachineServiceUnread",
                f"the objects of {key} stay although no VirtualMachineService {key} was read: "
                "not everything could be read, and it may be among the rest",
            )
        return Desired(wanted)

    async def _waited_for_token(self) -> bool:
        """Wait until a write is allowed; whether that took any time."""
        delay_s = self._bucket.take(asyncio.get_running_loop().time())
        if delay_s:
            await asyncio.sleep(delay_s)
        return delay_s > 0

    async def _make(self, change: Change) -> None:
        """Make one change, and have the cache know of it before anything else is planned."""
        held = await self._store.apply(change)
        self.counts.writes[change.kind, change.verb] += 1
        event = Delete(change.kind, change.key) if held is None else Apply(held)
        # The key itself is planned anew right after this.
        self.enqueue(self._cache.apply(event) - {change.key})

    def _note(self, key: Key, failure: Failure | None) -> None:
        if self._failures.get(key) == failure:
            return
        if failure:
            self._failures[key] = failure
        else:
            del self._failures[key]
        if self._on_failure is not None:
            self._on_failure(key, failure)
