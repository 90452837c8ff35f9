"""What one open page is sent: state machines that make the next event from the newest state.

A view owns no queue. Whoever reads slowly gets fewer events, and the newest state in each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.changes import Reader
from vmsvc_grpc.cache.topic import Topic
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.call import LATER, Later, Wake
from vmsvc_grpc.server.page import told
from vmsvc_grpc.server.page.board import LOOK_AGAIN_S, Board, Row

ROWS_MAX = 200
"""Rows of one event."""

# Changes that come together are sent together: a person sees no difference, and a browser draws
# less often.
_ROWS_PAUSE_S = 0.1

POLL_S = 1.0
"""How often that is looked at of which nothing tells when it changes."""

# A view that is expensive to make is made less often: so it takes at most such a part of our time.
_PART_OF_CHANGES = 0.05
_PART_OF_POLLS = 0.01

_SOONEST_S = 0.1


class View(Protocol):
    """One part of what a page shows."""

    def next(self, now: float) -> bytes | Later | None:
        """The next event; None if there is none until woken, or until `due`; LATER: ask again.

        `now` in seconds of any steady clock. A slice of some ms at most.
        """

    @property
    def due(self) -> float:
        """When to ask again, if nothing wakes it before."""

    def close(self) -> None:
        """Release everything."""


class RowsView:
    """All services, each as a row: first all there are, then those that change."""

    def __init__(self, cache: Cache, board: Board, wake: Wake) -> None:
        """Sends nothing before the cache is synced."""
        self._cache = cache
        self._board = board
        self._wake = wake
        self._reader: Reader[Key, Row] | None = None
        self._complete = False
        self._soonest = 0.0
        self.due = 0.0
        cache.await_synced(wake)

    def next(self, now: float) -> bytes | Later | None:
        """`rows`, or, once all have been sent for the first time, `complete`."""
        if not self._cache.synced or now < self._soonest:
            return None
        if self._reader is None:
            self._reader = self._board.follow(self._wake)
        if not self._board.catch_up(now):
            return LATER
        if rows := self._rows(self._reader):
            if self._complete and len(rows) < ROWS_MAX:
                self.due = self._soonest = now + _ROWS_PAUSE_S
            return told.event("rows", b"[%b]" % b",".join(rows))
        if self._reader.behind:
            return LATER
        if not self._complete:
            self._complete = True
            return told.event("complete", b"{}")
        self.due = now + LOOK_AGAIN_S
        return None

    def _rows(self, reader: Reader[Key, Row]) -> list[bytes]:
        rows: list[bytes] = []
        while len(rows) < ROWS_MAX and (due := reader.take()) is not None:
            rows.append(due.cell.text or told.encoded(told.gone(str(due.name))))
        return rows

    def close(self) -> None:
        """Release the board."""
        self._cache.forget(self._wake)
        if self._reader is not None:
            self._board.leave(self._reader)


class PolledView:
    """Something that is made anew now and then, and sent if it has changed."""

    def __init__(self, name: str, made: Callable[[], Any], clock: Callable[[], float]) -> None:
        """`name` is that of its events. `clock` tells what making it takes."""
        self._name = name
        self._made = made
        self._clock = clock
        self._sent = b""
        self.due = 0.0

    def next(self, now: float) -> bytes | None:
        """The event, if there is something new."""
        if now < self.due:
            return None
        began = self._clock()
        text = told.encoded(self._made())
        self.due = now + max(POLL_S, (self._clock() - began) / _PART_OF_POLLS)
        if text == self._sent:
            return None
        self._sent = text
        return told.event(self._name, text)

    def close(self) -> None:
        """There is nothing to release."""


class ServiceView:
    """One service, explained: at each change of its endpoints, and otherwise as it is polled."""

    def __init__(
        self,
        cache: Cache,
        service: Key,
        made: Callable[[], Any],
        wake: Wake,
        clock: Callable[[], float],
    ) -> None:
        """The service need not exist. `made` makes what is shown of it."""
        self._cache = cache
        self._wake = wake
        self._polled = PolledView("service", made, clock)
        self._news = False
        self._soonest = 0.0
        self._clock = clock
        self._topic = cache.subscribe(service, FilterClass.ALL, self)
        cache.await_synced(wake)

    @property
    def due(self) -> float:
        """When it is polled, or may show the news that it has."""
        return min(self._polled.due, self._soonest) if self._news else self._polled.due

    def next(self, now: float) -> bytes | None:
        """The service as it is now, if that has changed."""
        if not self._cache.synced:
            return None
        if self._news and now >= self._soonest:
            self._polled.due = now
        if now < self._polled.due:
            return None
        self._news = False
        began = self._clock()
        sent = self._polled.next(now)
        self._soonest = now + max(_SOONEST_S, (self._clock() - began) / _PART_OF_CHANGES)
        return sent

    def wake(self, topic: Topic) -> None:  # noqa: ARG002 - it has one
        """Note that the endpoints have changed."""
        self._news = True
        self._wake()

    def close(self) -> None:
        """Release the topic, and the cache."""
        self._cache.forget(self._wake)
        self._cache.unsubscribe(self._topic, self)


class PageStream:
    """What one open page is sent: its status, and one view.

    Something is sent at least every `beat_s`, so that the page knows that the server is there.
    """

    def __init__(self, views: tuple[View, ...], beat_s: float) -> None:
        """The views are asked in order, the next one after each event."""
        self._views = views
        self._beat_s = beat_s
        self._silent_until = 0.0

    def next(self, now: float) -> bytes | Later | None:
        """The next event, as `View.next`."""
        if not self._silent_until:
            self._silent_until = now + self._beat_s
        for index, view in enumerate(self._views):
            said = view.next(now)
            if said is not None:
                if said is not LATER:
                    self._silent_until = now + self._beat_s
                # The others come first next time, so that none waits for ever.
                self._views = (*self._views[index + 1 :], *self._views[: index + 1])
                return said
        if now >= self._silent_until:
            self._silent_until = now + self._beat_s
            return told.event("beat", b"{}")
        return None

    @property
    def due(self) -> float:
        """When to ask again, if nothing wakes it before."""
        return min(self._silent_until, *(view.due for view in self._views))

    def close(self) -> None:
        """Release everything."""
        for view in self._views:
            view.close()
