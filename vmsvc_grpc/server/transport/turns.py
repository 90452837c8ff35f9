"""Bounds how much of a server's work is done in one turn of the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVar

from vmsvc_grpc.server.session import TURN_S

_Result = TypeVar("_Result")


class Turns:
    """Does pieces of work in the order in which they come: some ms of work in each turn.

    All other work goes on between two turns.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        """Must be made on the event loop whose turns it counts. `clock` returns seconds."""
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._left_s = TURN_S
        self._counting = False

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """The result of `work`: done at once, if this turn has time left."""
        if self._waiting or self._left_s <= 0:
            return await self.run_later(work)
        return self._timed(work)

    async def run_later(self, work: Callable[[], _Result]) -> _Result:
        """The same in a later turn. Safe to cancel: the work is not done then."""
        done: asyncio.Future[_Result] = self._loop.create_future()
        self._waiting.append((work, done))
        self._count()
        return await done

    def _timed(self, work: Callable[[], _Result]) -> _Result:
        self._count()
        began = self._clock()
        try:
            return work()
        finally:
            self._left_s -= self._clock() - began

    def _count(self) -> None:
        """Have the next turn begin with a fresh allowance of time."""
        if not self._counting:
            self._counting = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Begin a turn: waiting work comes first."""
        self._counting = False
        self._left_s = TURN_S
        while self._waiting and self._left_s > 0:
            work, done = self._waiting.popleft()
            if done.done():
                continue  # The caller is gone.
            try:
                done.set_result(self._timed(work))
            except Exception as error:  # noqa: BLE001 - it belongs to the caller.
                done.set_exception(error)
        if self._waiting:
            self._count()
