"""Each step of an event loop by itself: what it was, and how much CPU of its thread it took.

A lag says that somebody waited, on a busy machine also for other processes. A step's own CPU
does not know of those, and has a name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVarTuple

import uvloop

_Ts = TypeVarTuple("_Ts")
_Callback = Callable[[*_Ts], object]

NOTED_S = 0.005
"""Shorter steps are not told apart: a quarter of what one may take."""


@dataclass(slots=True)
class Step:
    """What has been noted of the steps of one name."""

    longest_s: float = 0.0
    count: int = 0


class Steps:
    """The longest steps, by what they were."""

    def __init__(self) -> None:
        """Nothing has been noted."""
        self.longest_s = 0.0
        self._noted: dict[str, Step] = {}

    def forget(self) -> None:
        """Begin anew."""
        self.longest_s = 0.0
        self._noted.clear()

    def note(self, name: str, spent_s: float) -> None:
        """One of that name took so long."""
        self.longest_s = max(self.longest_s, spent_s)
        step = self._noted.setdefault(name, Step())
        step.longest_s = max(step.longest_s, spent_s)
        step.count += 1

    def worst(self, count: int) -> list[tuple[str, float, int]]:
        """So many names, those with the longest step first: how long, and how many were noted."""
        ordered = sorted(self._noted.items(), key=lambda item: -item[1].longest_s)
        return [(name, step.longest_s, step.count) for name, step in ordered[:count]]


class WatchedLoop(uvloop.Loop):
    """uvloop's event loop, which notes in `steps` what each step takes."""

    def __init__(self) -> None:
        """Must be made on the thread that is to run it."""
        super().__init__()
        self.steps = Steps()

    def call_soon(
        self, callback: _Callback[*_Ts], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As uvloop's. Tasks and futures go this way, too."""
        return super().call_soon(self.take, callback, *args, context=context)

    def call_soon_threadsafe(
        self, callback: _Callback[*_Ts], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As uvloop's."""
        return super().call_soon_threadsafe(self.take, callback, *args, context=context)

    def call_later(
        self, delay: float, callback: _Callback[*_Ts], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As uvloop's, whose `call_at` goes this way, too."""
        return super().call_later(delay, self.take, callback, *args, context=context)

    def add_reader(self, fd: Any, callback: _Callback[*_Ts], *args: *_Ts) -> None:
        """As uvloop's. gRPC's core says by a pipe that it has something for us."""
        super().add_reader(fd, self.take, callback, *args)

    async def create_server(self, protocol_factory: Any, *args: Any, **options: Any) -> Any:
        """As uvloop's, for protocols that are handed bytes."""
        watched = partial(_WatchedProtocol, self, protocol_factory)
        return await super().create_server(watched, *args, **options)

    def take(self, callback: _Callback[*_Ts], *args: *_Ts) -> None:
        """Take one step."""
        began = time.thread_time()
        callback(*args)
        spent_s = time.thread_time() - began
        if spent_s >= NOTED_S:
            self.steps.note(_name(callback), spent_s)


class _WatchedProtocol(asyncio.Protocol):
    """A protocol whose steps are watched: what uvloop calls by itself."""

    def __init__(self, loop: WatchedLoop, made: Callable[[], asyncio.Protocol]) -> None:
        self._loop = loop
        self._protocol = made()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._loop.take(self._protocol.connection_made, transport)

    def data_received(self, data: bytes) -> None:
        self._loop.take(self._protocol.data_received, data)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._loop.take(self._protocol.resume_writing)

    def connection_lost(self, exc: Exception | None) -> None:
        self._loop.take(self._protocol.connection_lost, exc)


def _name(callback: object) -> str:
    """What a callback is: of a task's step, the name of what the task runs."""
    if isinstance(callback, partial):
        return _name(callback.func)
    of = getattr(callback, "__self__", None)
    if isinstance(of, asyncio.Task):
        coroutine = of.get_coro()
        return f"task {getattr(coroutine, '__qualname__', coroutine)}"
    return str(getattr(callback, "__qualname__", callback))
