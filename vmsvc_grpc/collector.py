"""When Python's garbage collector runs, and on which objects.

Nobody is served while it runs: some 0.4 to 1 µs for each object that could be part of a cycle. A
service consists of about thirty. So it never scans everything: objects that have outlived a scan of
all that are not frozen are frozen in their turn (`GarbageScans`, ADR 41).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

YOUNG_MAX = 2_500
"""More young objects than this are scanned for garbage, which takes 1 to 3 ms."""

OLD_MAX = 10_000
"""More old objects than this are scanned, too, which takes 5 to 10 ms."""

WORK_S = 0.005
"""How much CPU is used between two scans: too little to make many objects.

To count objects takes 20 to 60 µs. So an idle process, which uses some ms a second, hardly ever
does so.
"""

_NEVER = 2**31 - 1
_YOUNG, _OLD = (0, 1), 2  # Python's generations: the second of the young ones has survived a look.


def calm_collector() -> None:
    """Freeze the current objects, and have Python itself look at young ones only.

    Most objects are the cache's, which has no cycles. Scanning them takes 4 µs a VM, in one go,
    while nobody is served; and their replacements end up there again. With 50,000 VMs, an event
    cost 95 µs with Python's defaults, and 50 µs so; taking them all in at first took 2.2 s of
    CPU, and takes 1.8 s.
    """
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 1, _NEVER)


class GarbageScans:
    """Looks for garbage a little at a time, however much there is.

    Python leaves young objects alone while as many are freed as are made, as when a list or many
    files are read again: they became ever more, and to scan them took 59 ms. Those that live on are
    old then; to scan all of these takes 200 ms once 20,000 VMs have been replaced.

    So both are counted here. Old ones are scanned when they are OLD_MAX, and what is left is frozen
    if it is more than half as much: it has been found to be no garbage, and is not scanned again.
    Cycles of frozen objects would stay for ever, so whatever lives long and ends often (connections
    and streams) leaves none behind.
    """

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        """The first scan is due. `clock` returns the seconds of CPU that the process has used."""
        self._clock = clock
        self._worked_s = -WORK_S
        self._scans_of_young = -1

    def scan_if_due(self) -> None:
        """Scan what has become too much. At most some 15 ms, if called every 20 ms."""
        if self._clock() - self._worked_s < WORK_S:
            return
        self._scan()
        self._worked_s = self._clock()

    def _scan(self) -> None:
        if sum(map(_held, _YOUNG)) > YOUNG_MAX:
            gc.collect(_OLD - 1)
        # Only scans of all young objects, ours and Python's own, make objects old.
        scans_of_young = gc.get_stats()[_OLD - 1]["collections"]
        if scans_of_young == self._scans_of_young:
            return
        self._scans_of_young = scans_of_young
        if _held(_OLD) > OLD_MAX:
            gc.collect()
            if _held(_OLD) > OLD_MAX // 2:
                gc.freeze()


def _held(generation: int) -> int:
    return len(gc.get_objects(generation))
