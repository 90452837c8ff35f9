"""One watch in, one output kept right: when to apply, when to try again, what to report."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from vmsvc.aio import AsyncWatch
from vmsvc.errors import VmsvcError
from vmsvc.feed import backoff
from vmsvc.feed.held import Held
from vmsvc.feed.output import Output, OutputError, PartlyError
from vmsvc.feed.report import Report
from vmsvc.feed.written import finished
from vmsvc.model import ServiceState
from vmsvc.state import Event

_log = logging.getLogger("vmsvc.feed")

_REFUSED_AGAIN_S = 30.0

_REST_S_MAX = 1.0

_NAMES_SHOWN_MAX = 5


@dataclass(slots=True)
class Keeper:
    """Keeps an output right for as long as it runs.

    `open_watch` opens a watch of all that is fed. `save` keeps the states for the next start; it is
    called in a thread, and may raise OutputError. `check_interval_s`: how often the output is
    looked at without a change.
    """

    open_watch: Callable[[], AsyncWatch]
    held: Held
    output: Output
    save: Callable[[Mapping[str, ServiceState]], None]
    check_interval_s: float
    report: Report
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: asyncio.Event = field(default_factory=asyncio.Event)
    _failures: int = 0
    _saved: Mapping[str, ServiceState] = field(default_factory=dict)

    async def run(self) -> None:
        """Until it is cancelled. Raises VmsvcError if the server refuses, and nothing is known."""
        if self.held.known:
            self._news.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._feed())

    def look(self) -> None:
        """Look at the output at once, and read anew what it is made of, as somebody asks for it."""
        try:
            self.output.reread()
        except OutputError as error:
            _log.error("%s; it goes on as it was", error)
        self._failures = 0
        self._news.set()
        self._asked.set()

    async def _follow(self) -> None:
        while True:
            try:
                async with self.open_watch() as watch:
                    async for event in watch.events():
                        self._take(event, watch.states)
            except VmsvcError as error:
                # A right that is taken away is no reason to let a balancer go astray.
                if not self.held.known:
                    raise
                again_s = backoff.jittered(_REFUSED_AGAIN_S)
                self.report.refused(error, again_s)
                await asyncio.sleep(again_s)

    def _take(self, event: Event, complete: Mapping[str, ServiceState]) -> None:
        if self.held.take(event, complete):
            self._news.set()
        self.report.received(event, self.held)

    async def _feed(self) -> None:
        await self._news.wait()
        while True:
            self._news.clear()
            self._asked.clear()
            began = time.monotonic()
            again_s, patient = await self._apply(began)
            # Of states that change all the time, making them so is half of what it does at most.
            await asyncio.sleep(min(time.monotonic() - began, _REST_S_MAX))
            # News would fail in the same way, and come often.
            awaited = self._asked if patient else self._news
            with suppress(TimeoutError):
                async with asyncio.timeout(again_s):
                    await awaited.wait()

    async def _apply(self, began: float) -> tuple[float, bool]:
        """When to apply again without news, and whether to wait for that whatever comes."""
        states, unanswered = self.held.fed(), self.held.unanswered
        try:
            try:
                applied = await self.output.apply(states)
            except PartlyError as error:
                # What is wrong with one service keeps no next start from beginning with the others.
                await self._save(states, error.again_in_s, f"{error}; ")
                raise
            self.held.applied(states)
            await self._save(states, applied.again_in_s)
            if unanswered:
                # Others are fed by what an earlier feed has saved; of these, nobody knows.
                raise PartlyError(_unknown(unanswered), applied.again_in_s)
        except OutputError as error:
            self._failures += 1
            again_s = backoff.after(self._failures)
            again_s = min(again_s, error.again_in_s or again_s)
            self.report.failed(error, again_s, time.monotonic() - began)
            return again_s, not isinstance(error, PartlyError)
        self._failures = 0
        self.report.applied(applied, states, self.held, time.monotonic() - began)
        return min(self.check_interval_s, applied.again_in_s or self.check_interval_s), False

    async def _save(
        self, states: Mapping[str, ServiceState], again_in_s: float | None, before: str = ""
    ) -> None:
        """Raises PartlyError, which says what was wrong `before`, too."""
        if states == self._saved:
            return
        try:
            await finished(partial(self.save, states))
        except OutputError as error:
            # The output follows, and as soon, whatever becomes of the file.
            raise PartlyError(f"{before}{error}", again_in_s) from error
        self._saved = states


def _unknown(services: Collection[str]) -> str:
    more = len(services) - _NAMES_SHOWN_MAX
    names = ", ".join(sorted(services)[:_NAMES_SHOWN_MAX])
    return f"the server has not answered yet for {names}{f' and {more} more' * (more > 0)}"
