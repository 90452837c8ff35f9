"""Turns of the event loop, for work that is done in slices: one slice a turn, whoever does it."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Gives one task a turn of the event loop at a time, in the order in which they ask.

    Whatever else there is to do is done between two turns.
    """

    def __init__(self) -> None:
        """Must be made on the event loop whose turns it gives."""
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self) -> None:
        """Wait for a turn. Safe to cancel: the turn is the next one's then."""
        turn = self._loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._give)
        await turn

    def _give(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        if self._waiting:
            self._loop.call_soon(self._give)
