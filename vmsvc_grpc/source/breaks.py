"""Long work on the event loop, in slices between which others run."""

from __future__ import annotations

import asyncio


def clock() -> float:
    """The time of the event loop, in seconds."""
    return asyncio.get_running_loop().time()


class Breaks:
    """Breaks of the tasks that share it: each calls `breathe` at each step of its work."""

    def __init__(self, slice_s: float) -> None:
        """A slice takes `slice_s`, and the rest of the step that is done then."""
        self._slice_s = slice_s
        self._began = 0.0

    async def breathe(self) -> bool:
        """Let others run if this has held the loop for a slice; whether that was so."""
        if clock() - self._began < self._slice_s:
            return False
        await asyncio.sleep(0)
        self._began = clock()
        return True
