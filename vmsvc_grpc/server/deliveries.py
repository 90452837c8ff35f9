"""How long changes take, from the source's event until streams are sent them.

Nothing is done for a message. A batch of changes stands in line behind the connections that these
have marked: when its turn comes, all of them have been asked and written. The first stream of a
batch is the one for which a message about it is made, which happens once a version.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from vmsvc_grpc.histogram import Histogram

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the buckets. After the last one nobody waits for the rest of a batch."""


class Line(Protocol):
    """Where connections wait to be flushed, in order."""

    left_over: int
    """How often a connection was left with something to send, and was lined up again."""

    def line_up(self, batch: Batch) -> bool:
        """Have a batch flushed behind all that waits now; False if nothing does."""

    def is_last(self, batch: Batch) -> bool:
        """Whether nothing waits behind a batch."""


class Batch:
    """Changes that are sent together; they count as one, from the oldest on.

    In a line it stands as a connection does that has nothing to send.
    """

    __slots__ = ("_reached", "before", "left_over", "marked", "since", "upto")

    def __init__(
        self, since: float, before: int, upto: int, reached: Callable[[Batch], None]
    ) -> None:
        """Of the publications above the version `before`, up to `upto`.

        `reached` is called when all that was in line before it has had its turn.
        """
        self.since, self.before, self.upto = since, before, upto
        self.left_over = 0
        self.marked = True
        self._reached = reached

    def flush(self) -> None:
        """Its turn has come."""
        self._reached(self)

    def fail(self) -> None:
        """Nothing depends on it."""


class Deliveries:
    """Measures batches of changes. One event loop owns it."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        """`clock` returns seconds, and never goes back."""
        self.clock = clock
        self.to_first = Histogram(BOUNDS_S)
        self.to_last = Histogram(BOUNDS_S)
        self._line: Line | None = None
        self._upto = 0
        self._newest: Batch | None = None
        # Batches about which no message was made yet, the oldest first.
        self._unseen: dict[Batch, None] = {}

    def send_by(self, line: Line | None) -> None:
        """Set what sends changes; without it nothing is measured."""
        self._line = line

    def published(self, since: float, version: int) -> None:
        """Something that came at `since` has published; `version` is the newest since then.

        Only for publications that somebody follows. O(1).
        """
        line, newest = self._line, self._newest
        if line is None:
            return
        before, self._upto = self._upto, version
        if newest is not None and line.is_last(newest):
            newest.upto = version
            return
        batch = Batch(since, before, version, self._reached)
        batch.left_over = line.left_over
        if line.line_up(batch):
            self._newest = batch
            self._unseen[batch] = None

    def made(self, version: int) -> None:
        """A message about the publication of this version is made, for its first stream."""
        for batch in reversed(self._unseen):
            if version > batch.before:
                if version <= batch.upto:
                    self._seen(batch)
                return

    def _seen(self, batch: Batch) -> None:
        del self._unseen[batch]
        self.to_first.observe(self.clock() - batch.since)

    def _reached(self, batch: Batch) -> None:
        line = self._line
        assert line is not None, "the batch stood in it"
        taken_s = self.clock() - batch.since
        if line.left_over != batch.left_over and taken_s <= BOUNDS_S[-1]:
            batch.left_over = line.left_over
            batch.marked = True
            if line.line_up(batch):
                return
        if batch in self._unseen:  # A later change has replaced it before it was sent.
            self._seen(batch)
        self.to_last.observe(taken_s)
        if batch is self._newest:
            self._newest = None
