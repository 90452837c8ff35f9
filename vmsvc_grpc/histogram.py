"""Durations, counted by how long they were. Knows nothing of how they are shown."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Histogram:
    """Counts of observed seconds, by buckets. An observation is O(log buckets)."""

    __slots__ = ("_bounds_s", "_counts", "sum_s")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        """`bounds_s` are the upper bounds of the buckets, rising; a last bucket has no bound."""
        self.sum_s = 0.0
        self._bounds_s = tuple(bounds_s)
        self._counts = [0] * (len(self._bounds_s) + 1)

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """For each bound, as Prometheus writes it, the observations up to it; `+Inf` last."""
        # OpenMetrics wants `1.0` where `1` would do elsewhere.
        bounds = (*(repr(float(bound)) for bound in self._bounds_s), "+Inf")
        return list(zip(bounds, accumulate(self._counts), strict=True))
