"""When an object goes that its file defines no more.

A file may be in the middle of being written anew, and an object may move from one file to another;
so it stays for a while.
"""

from __future__ import annotations

import math

from vmsvc_grpc.source import Emit
from vmsvc_grpc.source.file_bounds import FilesSourceBounds
from vmsvc_grpc.source.known_files import KnownFiles
from vmsvc_grpc.source.slices import Slices, clock
from vmsvc_grpc.source.union import Missing


class Departures:
    """Emits what becomes of objects that no file holds."""

    def __init__(
        self, known: KnownFiles, *, settle_s: float, bounds: FilesSourceBounds, slices: Slices
    ) -> None:
        self._known = known
        self._settle_s = settle_s
        self._bounds = bounds
        self._slices = slices

    @property
    def next_at(self) -> float:
        """When the next object may go; inf if none is missing, or a large file is waited for."""
        missing = self._known.union.missing
        if missing and self._known.settling.unread_since() >= missing.since + self._settle_s:
            return missing.since + self._settle_s
        return math.inf

    async def emit_due(self, emit: Emit, looked_at: float) -> None:
        """Emit what becomes of objects that their files have let go of.

        Every file that was there at `looked_at` has been looked at.
        """
        for _ in self._known.union.letting_go(clock()):
            await self._slices.breathe()
        settled = min(looked_at, self._known.settling.unread_since()) - self._settle_s
        while missing := self._known.union.missing:
            await self._slices.breathe()
            if settled < missing.since:
                return
            self._known.look(missing.path)
            if self._known.settling.get(missing.path) is not None:
                self._known.union.postpone(missing, clock())  # It may be back, unread as yet.
                continue
            if (kept_until := self._kept_until(missing)) > looked_at:
                self._known.union.postpone(missing, kept_until - self._settle_s)
                continue
            for event in self._known.union.settle(missing):
                emit(event)

    def _kept_until(self, missing: Missing) -> float:
        """Until when the object stays, as its file may not be written to its end."""
        held = self._known.held.get(missing.path)
        if held is None:
            return -math.inf
        written_at = held.rewritten_at if held.counts else clock()
        longest = missing.first + self._bounds.rewrite_max_s
        return min(written_at + self._bounds.rewrite_s, longest)
