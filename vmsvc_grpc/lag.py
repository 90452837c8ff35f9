"""How late the event loop is: the time that everybody waits while one task holds it.

One loop serves everybody, so nothing may hold it for longer than some 20 ms. The process measures
all the time whether that is so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from vmsvc_grpc.histogram import Histogram

TICK_S = 0.02
"""How often the lag is measured. A standstill may be measured as this much shorter than it was.

So one of twice the bound never looks short. It is as often in an idle process, or a standstill
between two ticks would not be seen. Waking up costs 25 to 50 µs of CPU there, most of it the
system's: 0.1 to 0.3 % of a core.
"""

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the histogram's buckets; one is the longest allowed standstill."""


class LoopLag:
    """Measures how much later than due the running event loop calls back."""

    def __init__(self, on_tick: Callable[[], object] = lambda: None) -> None:
        """Nothing is measured before `run`, which calls `on_tick` each time."""
        self.histogram = Histogram(BOUNDS_S)
        self._on_tick = on_tick

    async def run(self) -> None:
        """Measure until cancelled. Raises what `on_tick` raises."""
        loop = asyncio.get_running_loop()
        broken: asyncio.Future[None] = loop.create_future()
        due, timer = 0.0, None

        def set_timer() -> None:
            nonlocal due, timer
            due = loop.time() + TICK_S
            timer = loop.call_later(TICK_S, tick)

        # A task that sleeps would take half as much again.
        def tick() -> None:
            # uvloop's clock has whole milliseconds, and may call a little early.
            self.histogram.observe(max(0.0, loop.time() - due))
            try:
                self._on_tick()
            except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
                broken.set_exception(error)
            else:
                set_timer()

        set_timer()
        try:
            await broken
        finally:
            assert timer is not None, "it has been set"
            timer.cancel()
