"""Releases what ended calls still hold, in slices, as many calls may end at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

STEPS_MAX = 256
"""How many steps are made in one turn of the event loop: less than 1 ms if each releases a
topic."""


LetGo = Callable[[Iterator[None]], None]
"""Takes the steps by which a call that is over releases its topics."""


class Leaving:
    """Releases what ended calls hold: at once if that is little, else a slice a turn.

    All other work goes on between two turns.
    """

    def __init__(self) -> None:
        """Nothing to release yet."""
        self._left: deque[Iterator[None]] = deque()

    def let_go(self, steps: Iterator[None]) -> None:
        """Make these steps, in the order in which calls end. Call it on the event loop."""
        self._left.append(steps)
        if len(self._left) == 1:
            self._go_on()

    def _go_on(self) -> None:
        most = STEPS_MAX
        while self._left and most > 0:
            made = sum(1 for _ in islice(self._left[0], most))
            if made < most:
                self._left.popleft()
            most -= made
        if self._left:
            asyncio.get_running_loop().call_soon(self._go_on)
