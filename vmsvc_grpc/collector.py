"""When Python's garbage collector runs, and on which objects.

Nobody is served while it runs: some 0.4 µs for each object that could be part of a cycle. A VM
consists of about ten.
"""

from __future__ import annotations

import asyncio
import gc

LOOK_S = 0.02
"""How often the young objects are counted: those made in between take a few ms to scan.

Counting 2,500 takes 20 µs.
"""

YOUNG_MAX = 2_500
"""More young objects than this are scanned for garbage, which takes 1 to 3 ms."""


def calm_collector() -> None:
    """Freeze the current objects, and raise the collector's thresholds.

    Most objects are the cache's, which has no cycles. Scanning them takes 4 µs a VM, in one go,
    while nobody is served; and their replacements end up there again. With 50,000 VMs, an event
    cost 95 µs with Python's defaults, and 50 µs so; taking them all in at first took 2.2 s of
    CPU, and takes 1.8 s.
    """
    gc.freeze()
    # The counts are of objects made less those freed. In the steady state, a change frees as many
    # as it makes, so what remains to collect is garbage with cycles, some MB at most. A look at
    # the second generation is then at some 5,000 objects, which takes 2 to 4 ms; at the 200,000
    # that a large file makes, it took 70 to 110 ms. A look at the third scans all that was made
    # since the freeze, 0.4 s after 100,000 objects of files, so it comes only once in 20 million
    # young objects. It has to come: a connection that has ended leaves some 60 in cycles.
    gc.set_threshold(YOUNG_MAX, 1, 4_000)


async def collect_young() -> None:
    """Scan the young objects in time, until cancelled.

    Python does not while as many objects are freed as are made, as when a list or many files are
    read again: the young ones became ever more, and scanning them then took 59 ms.
    """
    while True:
        await asyncio.sleep(LOOK_S)
        if sum(len(gc.get_objects(generation)) for generation in (0, 1)) > YOUNG_MAX:
            gc.collect(1)
