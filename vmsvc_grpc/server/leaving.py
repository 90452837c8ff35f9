"""What calls that are over have yet to let go of, in slices: many may end at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

STEPS_MAX = 256
"""How many steps are made in one turn of the event loop: below 1 ms, where each lets go of one
topic."""


LetGo = Callable[[Iterator[None]], None]
"""Goes through what a call that is over lets go of, step by step."""


class Leaving:
    """Lets go of what is left of calls: at once if that is little, else a slice a turn.

    Whatever else there is to do is done between two turns.
    """

    def __init__(self) -> None:
        """There is nothing yet."""
        self._left: deque[Iterator[None]] = deque()

    def let_go(self, steps: Iterator[None]) -> None:
        """Go through these steps, in the order in which calls end. On the event loop."""
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
