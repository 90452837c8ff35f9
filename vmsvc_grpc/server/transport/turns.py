"""Bounds how much of a server's work is done in one turn of the event loop, and divides it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from time import perf_counter
from typing import Any, TypeVar

from vmsvc_grpc.server.session import TURN_S

_Result = TypeVar("_Result")


class Line(IntEnum):
    """Where work waits for its turn. All lines with waiting work get the same time.

    So a call that needs little does not wait for all calls that need much.
    """

    ANSWERS = 0
    """Work for calls with one request and one response."""
    NEWS = 1
    """Work for streams that may have something to send or to take in."""
    SLICES = 2
    """Work for streams that need more than one turn, until they have nothing left to send."""


class _Waiting:
    """The work that waits in one line, and how much time the line has had; see `Turns._had_s`."""

    __slots__ = ("had_s", "work")

    def __init__(self) -> None:
        self.had_s = 0.0
        self.work: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()


class Turns:
    """Does pieces of work, some ms of work in each turn; those of a line in the order they came in.

    All other work goes on between two turns.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        """Must be made on the event loop whose turns it counts. `clock` returns seconds."""
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        # In the order in which lines are served that have had the same time.
        self._lines = [_Waiting() for _ in Line]
        # The time that the line served last had had by then. A line that was empty begins with no
        # less than that: it cannot save up time.
        self._had_s = 0.0
        self._left_s = TURN_S
        self._counting = False

    async def run(self, line: Line, work: Callable[[], _Result]) -> _Result:
        """The result of `work`: done at once if nobody waits in line and the turn has time left."""
        return self.do(line, work) if self.free(line) else await self.run_later(line, work)

    def free(self, line: Line) -> bool:
        """Whether work may be done at once, by `do`: most is, and a coroutine would cost more."""
        return self._left_s > 0 and not self._lines[line].work

    def do(self, line: Line, work: Callable[[], _Result]) -> _Result:
        """The result of `work`, which is done at once, as the line is `free`."""
        waiting = self._lines[line]
        waiting.had_s = max(waiting.had_s, self._had_s)
        return self._timed(waiting, work)

    async def run_later(self, line: Line, work: Callable[[], _Result]) -> _Result:
        """The same in a later turn. Safe to cancel: the work is not done then."""
        done: asyncio.Future[_Result] = self._loop.create_future()
        waiting = self._lines[line]
        if not waiting.work:
            waiting.had_s = max(waiting.had_s, self._had_s)
        waiting.work.append((work, done))
        if not self._counting:
            self._count()
        return await done

    def _timed(self, waiting: _Waiting, work: Callable[[], _Result]) -> _Result:
        if not self._counting:
            self._count()
        self._had_s = waiting.had_s
        began = self._clock()
        try:
            return work()
        finally:
            spent_s = self._clock() - began
            waiting.had_s += spent_s
            self._left_s -= spent_s

    def _count(self) -> None:
        """Have the next turn begin with a fresh allowance of time."""
        self._counting = True
        self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Begin a turn: waiting work comes first."""
        self._counting = False
        self._left_s = TURN_S
        while self._left_s > 0 and (waiting := self._next()) is not None:
            work, done = waiting.work.popleft()
            if done.done():
                continue  # The caller is gone.
            try:
                done.set_result(self._timed(waiting, work))
            except Exception as error:  # noqa: BLE001 - it is for who asked.
                done.set_exception(error)
        if self._next() is not None and not self._counting:
            self._count()

    def _next(self) -> _Waiting | None:
        """Of the lines in which work waits, the one that has had the least time."""
        found = None
        for waiting in self._lines:
            if waiting.work and (found is None or waiting.had_s < found.had_s):
                found = waiting
        return found
