"""The page of metrics, made once for all who ask before it is begun, one slice of work a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import NamedTuple

# After so much work on a page, others have their turn.
_WORK_S = 0.002

MetricsPage = Callable[[bool], Iterator[bytes]]
"""The page of metrics: as OpenMetrics if the argument is true, else in Prometheus' text format.

It comes in parts, between which others have their turn.
"""


class _Made(NamedTuple):
    number: int
    body: bytes


class Scrapes:
    """Whoever asks gets a page that was begun no earlier; however many ask, one is made at a time.

    So a scrape takes at most two pages' time in each format, and many take no more of the event
    loop than one.
    """

    def __init__(self, metrics: MetricsPage, *, work_s: float = _WORK_S) -> None:
        """After `work_s` on a page, others have their turn."""
        self._metrics = metrics
        self._work_s = work_s
        self._turn = asyncio.Lock()
        self._begun = 0
        self._asking = 0
        # The last page of each format, for as long as somebody waits who may take it.
        self._made: dict[bool, _Made] = {}

    async def page(self, open_metrics: bool) -> bytes:
        """The whole page. If its maker is cancelled, the next one who waits makes it."""
        asked = self._begun
        self._asking += 1
        try:
            async with self._turn:
                made = self._made.get(open_metrics)
                if made is None or made.number <= asked:
                    made = self._made[open_metrics] = await self._make(open_metrics)
                return made.body
        finally:
            self._asking -= 1
            if not self._asking:
                self._made.clear()

    async def _make(self, open_metrics: bool) -> _Made:
        self._begun += 1
        number = self._begun
        parts: list[bytes] = []
        rest_at = perf_counter() + self._work_s
        for part in self._metrics(open_metrics):
            parts.append(part)
            if perf_counter() >= rest_at:
                await asyncio.sleep(0)
                rest_at = perf_counter() + self._work_s
        return _Made(number, b"".join(parts))
