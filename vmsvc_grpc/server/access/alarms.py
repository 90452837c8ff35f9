"""When something is to be looked at again. Pure: time is an argument."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from itertools import count
from typing import Generic, TypeVar

Waiting = TypeVar("Waiting", bound=Hashable)

_SPARE = 64  # So few outdated entries are not worth being cleared away.


class Alarms(Generic[Waiting]):
    """One time for each that has one. Setting one costs O(log alarms), amortized.

    One that is dropped is not held any longer than until as many others are set.
    """

    def __init__(self) -> None:
        """Nobody has one."""
        self._at: dict[Waiting, float] = {}
        self._heap: list[tuple[float, int, Waiting]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._at)

    def set(self, waiting: Waiting, at: float | None) -> None:
        """Its time is this, whatever it was before; None: it has none."""
        if at is None:
            self._at.pop(waiting, None)
        elif self._at.get(waiting) != at:
            self._at[waiting] = at
            heapq.heappush(self._heap, (at, next(self._numbers), waiting))
        if len(self._heap) > 2 * len(self._at) + _SPARE:
            self._heap = [entry for entry in self._heap if self._at.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def next_at(self) -> float | None:
        """The earliest time."""
        while self._heap:
            at, _, waiting = self._heap[0]
            if self._at.get(waiting) == at:
                return at
            heapq.heappop(self._heap)
        return None

    def due(self, now: float) -> Waiting | None:
        """One whose time has come; it has none any more. None if there is none."""
        at = self.next_at()
        if at is None or at > now:
            return None
        waiting = heapq.heappop(self._heap)[2]
        del self._at[waiting]
        return waiting
