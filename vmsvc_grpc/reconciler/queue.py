"""Which service is worked on next, and when; and the rate of writes. Pure.

Time is an argument: seconds of a clock that never goes back. A queue holds each key at
most once, so it is bounded by the number of services.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, KeysView
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from vmsvc_grpc.backoff import Backoff
from vmsvc_grpc.histogram import Histogram
from vmsvc_grpc.model.objects import Key

# How many outdated entries the heap may hold, beside as many as there are keys.
_OUTDATED_MAX = 64
# How many keys of namespaces without a place are set aside in one go: some 0.1 ms of work.
_SET_ASIDE_MAX = 100
# What sums of floats may be off by, as a part of one token.
_ROUNDING = 1e-3


class _Entry(NamedTuple):
    """Compared by their times, and then by their numbers, of which there are no two alike."""

    due: float
    number: int
    key: Key


class _Agenda:
    """Keys, each with one time; the earliest first. Entries are numbered as they are added."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self._due: dict[Key, float] = {}
        # Of several entries of one key, the one with the time in `_due` counts.
        self._heap: list[_Entry] = []

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: Key, due: float) -> bool:
        """Add the key; if it is there, with the earlier of both times. Whether it was not there."""
        known = self._due.get(key, float("inf"))
        if due < known:
            self._due[key] = due
            heapq.heappush(self._heap, _Entry(due, next(self._numbers), key))
            if len(self._heap) > _OUTDATED_MAX + 2 * len(self._due):
                self._heap = [e for e in self._heap if self._due.get(e.key) == e.due]
                heapq.heapify(self._heap)
        return known == float("inf")

    def due(self, now: float) -> int:
        """How many keys are due. O(keys)."""
        return sum(due <= now for due in self._due.values())

    def first(self) -> _Entry | None:
        """The earliest entry, which stays; None if there is none."""
        while self._heap and self._due.get(self._heap[0].key) != self._heap[0].due:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    def remove_first(self) -> None:
        """Remove the entry that `first` has returned just now."""
        del self._due[heapq.heappop(self._heap).key]


_BOUNDS_S = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0)


@dataclass(slots=True)
class QueueMeasures:
    """What went through a queue, and how long it took; as Kubernetes' work queues measure it."""

    adds: int = 0
    """Keys that came in; one that waits already is not counted again."""

    retries: int = 0
    """Keys that were put back after a failure."""

    waited: Histogram = field(default_factory=lambda: Histogram(_BOUNDS_S))
    """How long keys waited from when they were due."""

    worked: Histogram = field(default_factory=lambda: Histogram(_BOUNDS_S))
    """How long they were in work."""


class Queue:
    """Keys that need work, in the order of their time; each at most once.

    A key that is added while it is in work is worked on again afterwards. After a failure a key
    backs off; after a write it waits for `cooldown_s`, so that a burst of changes becomes few
    writes.

    A key hangs if its work waits long for an answer, from then on until it succeeds, or fails
    without such a wait. Of the keys in work, `hanging_max` may hang: the others must not wait for
    their places. As what makes one key hang is likely to make its neighbours hang, a namespace in
    which one does has one place at a time for those of which it is not known.
    """

    def __init__(
        self,
        *,
        cooldown_s: float,
        backoff: Backoff,
        hanging_max: int,
        random: Callable[[], float],
        measures: QueueMeasures,
    ) -> None:
        """An empty queue. `random` gives numbers from 0 to 1; `measures` go on."""
        self._cooldown_s = cooldown_s
        self._backoff = backoff
        self._hanging_max = hanging_max
        self._random = random
        numbers = count()
        # Whether a key hangs changes only while it is in work, so it waits in one of them.
        self._quick = _Agenda(numbers)
        self._hanging = _Agenda(numbers)
        self.measures = measures
        # Keys that were due while their namespace had its one place, and since when they were;
        # and the same of those that have got it, and are to be taken.
        self._aside: dict[str, deque[Key]] = {}
        self._set_aside: dict[Key, float] = {}
        self._was_aside: dict[Key, float] = {}
        # The keys in work, and since when they are.
        self._working: dict[Key, float] = {}
        self._hung: set[Key] = set()
        self._hung_in: Counter[str] = Counter()
        # Of the keys in work, those that took a place of the hanging ones, how many others there
        # are in a namespace, and those that hang in this turn.
        self._hung_working: set[Key] = set()
        self._quick_working_in: Counter[str] = Counter()
        self._hanging_now: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        # When a key may be worked on again; the oldest first, as all wait equally long.
        self._cooling: OrderedDict[Key, float] = OrderedDict()

    def __len__(self) -> int:
        """How many keys need work; one in work counts only if it was added again."""
        return len(self._quick) + len(self._hanging) + len(self._set_aside) + len(self._again)

    @property
    def working(self) -> int:
        """How many keys are in work."""
        return len(self._working)

    def due(self, now: float) -> int:
        """How many keys wait for nothing but a worker. O(keys)."""
        return self._quick.due(now) + self._hanging.due(now) + len(self._set_aside)

    @property
    def began(self) -> Collection[float]:
        """When the work on each key in work began, the earliest first: a view."""
        return self._working.values()

    @property
    def failing(self) -> KeysView[Key]:
        """The keys whose work failed last time: a view of them."""
        return self._failures.keys()

    def add(self, key: Key, now: float) -> None:
        """The key needs work: once it has cooled down, even if it was backing off."""
        if key in self._working:
            self._again.add(key)
        else:
            self._schedule(key, max(now, self._cooling.get(key, now)))

    def later(self, key: Key, due: float) -> None:
        """The key, which is not in work, needs work at that time at the latest."""
        assert key not in self._working, "its next turn is decided at the end of this one"
        self._schedule(key, due)

    def take(self, now: float) -> Key | None:
        """The next key that is due, in work from now on; None if there is none.

        It may also be None if very many are due; `next_due` is then in the past.
        """
        self._forget_cooled(now)
        for _ in range(_SET_ASIDE_MAX):
            agenda, entry = self._next()
            if entry is None or entry.due > now:
                return None
            agenda.remove_first()
            key = entry.key
            if agenda is self._hanging:
                self._hung_working.add(key)
            elif self._hung_in[key.namespace] and self._quick_working_in[key.namespace]:
                self._aside.setdefault(key.namespace, deque()).append(key)
                self._set_aside[key] = self._was_aside.pop(key, entry.due)
                continue
            else:
                self._quick_working_in[key.namespace] += 1
            self._working[key] = now
            self.measures.waited.observe(now - self._was_aside.pop(key, entry.due))
            return key
        return None

    def next_due(self) -> float | None:
        """When `take` will next return a key; None if no key waits for a time.

        Keys that wait for the place of another are not counted.
        """
        _, entry = self._next()
        return entry.due if entry is not None else None

    def hangs(self, key: Key, now: float) -> bool:
        """Note that a taken key hangs; whether it may. If not, break its work off."""
        self._hanging_now.add(key)
        if key not in self._hung:
            self._hung.add(key)
            self._hung_in[key.namespace] += 1
        if key in self._hung_working:
            return True
        if len(self._hung_working) >= self._hanging_max:
            return False
        self._hung_working.add(key)
        self._free_quick_place(key.namespace, now)
        return True

    def succeeded(self, key: Key, now: float, *, wrote: bool) -> None:
        """Work on a taken key is done; its failures are forgotten."""
        self._failures.pop(key, None)
        self._hanging_now.discard(key)
        if wrote:
            self._cool(key, now)
        self._finish(key, now)

    def failed(self, key: Key, now: float, *, at_least_s: float = 0.0) -> None:
        """Work on a taken key failed: it is due again after its back-off."""
        self.measures.retries += 1
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self._cool(key, now)
        self._finish(key, now)
        self._schedule(key, now + max(at_least_s, self._backoff.delay_s(failures, self._random())))

    def abandoned(self, key: Key, now: float) -> None:
        """Work on a taken key was broken off: it is due again at once."""
        self._again.add(key)
        self._finish(key, now)

    def _finish(self, key: Key, now: float) -> None:
        self.measures.worked.observe(now - self._working.pop(key))
        if key in self._hanging_now:
            self._hanging_now.remove(key)
        elif key in self._hung:
            self._hung.remove(key)
            _decrement(self._hung_in, key.namespace)
        if key in self._hung_working:
            self._hung_working.remove(key)
        else:
            self._free_quick_place(key.namespace, now)
        if key in self._again:
            self._again.remove(key)
            self.add(key, now)

    def _free_quick_place(self, namespace: str, now: float) -> None:
        _decrement(self._quick_working_in, namespace)
        # One takes the place. Once none hangs there, twice as many do at each turn.
        for _ in range(1 if self._hung_in[namespace] else 2):
            if namespace not in self._aside:
                return
            key = self._aside[namespace].popleft()
            if not self._aside[namespace]:
                del self._aside[namespace]
            self._was_aside[key] = self._set_aside.pop(key)
            self._quick.add(key, now)

    def _next(self) -> tuple[_Agenda, _Entry | None]:
        """The first of the keys that have a place, and where it is."""
        quick = self._quick.first()
        # Looked at only if one may be taken: who waits for a place costs nothing.
        full = len(self._hung_working) >= self._hanging_max
        hanging = None if full else self._hanging.first()
        if hanging is None or (quick is not None and quick < hanging):
            return self._quick, quick
        return self._hanging, hanging

    def _schedule(self, key: Key, due: float) -> None:
        """Make the key due at that time, unless it is due earlier."""
        if key not in self._set_aside:
            agenda = self._hanging if key in self._hung else self._quick
            self.measures.adds += agenda.add(key, due)

    def _cool(self, key: Key, now: float) -> None:
        self._cooling.pop(key, None)
        self._cooling[key] = now + self._cooldown_s

    def _forget_cooled(self, now: float) -> None:
        """Forget two at most: more than a turn adds, and not all that a wave of failures left."""
        for _ in range(2):
            if not self._cooling or next(iter(self._cooling.values())) > now:
                return
            self._cooling.popitem(last=False)


def _decrement(counter: Counter[str], namespace: str) -> None:
    counter[namespace] -= 1
    if not counter[namespace]:
        del counter[namespace]


class TokenBucket:
    """Bounds a rate: `per_s` on average, and `burst` at once."""

    def __init__(self, *, per_s: float, burst: int) -> None:
        """A full bucket."""
        self._per_s = per_s
        self._burst = burst
        # When the bucket will be full, counting what has been taken in advance.
        self._full_at = float("-inf")

    def take_now(self, now: float) -> bool:
        """Take one if it may be used at once; whether it may."""
        full_at = max(self._full_at, now) + 1 / self._per_s
        if full_at - now > (self._burst + _ROUNDING) / self._per_s:
            return False
        self._full_at = full_at
        return True

    def take(self, now: float) -> float:
        """Take one; the seconds to wait before it may be used, 0 if it may be at once."""
        self._full_at = max(self._full_at, now) + 1 / self._per_s
        return max(0.0, self._full_at - now - self._burst / self._per_s)
