"""How late the event loop is: the time that everybody waits while one task holds it.

One loop serves everybody, so nothing may hold it for longer than some 20 ms. The process measures
all the time whether that is so.
"""

from __future__ import annotations

import asyncio

from vmsvc_grpc.metrics import Histogram

TICK_S = 0.02
"""How often the lag is measured. A standstill may be measured as this much shorter than it was.

So one of twice the bound never looks short. Waking up costs 25 µs of CPU in an idle process, some
0.2 % of a core, and nothing in a busy one.
"""

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the histogram's buckets; one is the longest allowed standstill."""


class LoopLag:
    """Measures how much later than due the running event loop calls back."""

    def __init__(self) -> None:
        """Nothing is measured before `run`."""
        self.histogram = Histogram(BOUNDS_S)

    async def run(self) -> None:
        """Measure until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + TICK_S
            await asyncio.sleep(TICK_S)
            # uvloop's clock has whole milliseconds, and may call a little early.
            self.histogram.observe(max(0.0, clock() - due))
