"""When an object goes that its file defines no more.

A file may be in the middle of being written anew, and an object may move from one file to another;
so it stays for a while.
"""

from __future__ import annotations

import math

from vmsvc_grpc.source import Emit
from vmsvc_grpc.source.breaks import Breaks, clock
from vmsvc_grpc.source.file_bounds import FilesSourceBounds
from vmsvc_grpc.source.known_files import KnownFiles
from vmsvc_grpc.source.union import Missing


class Departures:
    """Emits what becomes of objects that no file holds."""

    def __init__(
        self, known: KnownFiles, *, settle_s: float, bounds: FilesSourceBounds, breaks: Breaks
    ) -> None:
        self._known = known
        self._settle_s = settle_s
        self._rewrite_s = bounds.rewrite_s
        # A file that was removed and written anew may take as long to be read.
        self._longest_s = max(bounds.rewrite_max_s, 2 * settle_s)
        self._breaks = breaks

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
            await self._breaks.breathe()
        settled = min(looked_at, self._known.settling.unread_since()) - self._settle_s
        seen: str | None = None
        while missing := self._known.union.missing:
            if await self._breaks.breathe():
                seen = None
            if settled < missing.since:
                return
            if missing.path != seen:  # A file may have tens of thousands.
                seen = missing.path
                self._known.look(seen)
            if (kept_until := self._kept_until(missing)) > looked_at:
                self._known.union.postpone(missing, kept_until - self._settle_s)
                continue
            for event in self._known.union.pass_on(missing):
                emit(event)

    def _kept_until(self, missing: Missing) -> float:
        """Until when the object stays, as its file, or directory, may not be all there."""
        rebuilt_at = self._known.rebuilding.kept_until(missing.path, missing.first)
        held = self._known.held.get(missing.path)
        if self._known.settling.get(missing.path) is not None:
            written_at = clock()  # It may be back, unread as yet.
        elif held is None:
            return rebuilt_at
        else:
            written_at = held.rewritten_at if held.counts else clock()
        longest = missing.first + self._longest_s
        return max(rebuilt_at, min(written_at + self._rewrite_s, longest))
