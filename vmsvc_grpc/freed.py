"""Gives memory back to the system that nobody uses any more, but the C library keeps.

The library gives back what lies at the end of its heap. What many clients leave behind lies between
what others use: of 100 Envoys that had followed 10,000 services, 120 MiB. And Python keeps some of
the objects that are freed for later, all over its own heap, until it looks at everything for
garbage.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable

EVERY_S = 10.0
"""How often memory is given back: what a busy process frees meanwhile is some MiB, at 0.1 ms each.

There is no way to do it in slices. Most of what is freed is used again, so more often is worse.
"""

_WORK_S = 0.05  # A process that has used less CPU has freed little.

# After so many blocks of Python's were freed, what it keeps for later is let go of: 5 to 15 ms.
_BLOCKS_FREED = 100_000


def trim() -> None:
    """Have the C library give back all whole pages that are free; nothing where it cannot."""
    if _trim is not None:
        _trim(0)


# The GNU library alone has it.
_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)


class FreedMemory:
    """Gives back what is free, now and then, while the process works."""

    def __init__(
        self,
        give_back: Callable[[], object] = trim,
        collect: Callable[[], object] = gc.collect,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
        blocks: Callable[[], int] = sys.getallocatedblocks,
    ) -> None:
        """The first time is EVERY_S from now. `clock` and `cpu` return seconds.

        `blocks` returns how many blocks Python uses; `collect` looks at everything for garbage.
        """
        self._give_back = give_back
        self._collect = collect
        self._clock = clock
        self._cpu = cpu
        self._blocks = blocks
        self._due_s = clock() + EVERY_S
        self._worked_s = cpu()
        self._most_blocks = blocks()

    def give_back_if_due(self) -> None:
        """Give back what is free, if it is time and there may be anything. Call it often."""
        if self._clock() < self._due_s:
            return
        if self._has_freed_much():
            self._collect()  # And give back at the next call, so that others have their turn.
            return
        self._due_s = self._clock() + EVERY_S
        if self._cpu() - self._worked_s >= _WORK_S:
            self._give_back()
            self._worked_s = self._cpu()

    def _has_freed_much(self) -> bool:
        """Whether many blocks have been freed since this was found last, or since the most."""
        blocks = self._blocks()
        much = blocks < self._most_blocks - _BLOCKS_FREED
        self._most_blocks = blocks if much else max(blocks, self._most_blocks)
        return much
