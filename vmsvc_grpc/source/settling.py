"""Files that differ from what was last read of them, and when each may be taken.

Pure: the time is an argument. A pass costs by the files that have become due since the last,
not by the ten thousand that may be waiting.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, KeysView
from dataclasses import dataclass
from heapq import heappop, heappush

from vmsvc_grpc.source.tree import Oddity, Signature

# About 0.2 ms of work.
_STEP_FILES = 100


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A file that differs from what is held of it, and since when it looks as it does.

    `whole`: it was renamed into place, so there is nothing to wait for. None until a notice says
    how it was put there.
    """

    signature: Signature | Oddity | None
    since: float
    whole: bool | None


class Settling:
    """Unsettled files by path, and those of them that are due: whole, or unchanged for long enough.

    A file that is open waits for longer. A large one is kept apart, as it takes long to read.
    """

    def __init__(self, *, settle_s: float, open_settle_s: float, large_bytes: int) -> None:
        """A file of more than `large_bytes` is a large one."""
        self._settle_s = settle_s
        self._open_settle_s = max(settle_s, open_settle_s)
        self._large_bytes = large_bytes
        self._files: dict[str, Unsettled] = {}
        # Files whose writer may still have them open.
        self._open: set[str] = set()
        # When files are due that are not yet. An entry that has become wrong stays until then.
        self._waiting: list[tuple[float, str]] = []
        self._due: dict[str, None] = {}
        self._due_large: dict[str, None] = {}

    def get(self, path: str) -> Unsettled | None:
        """The file, if it is unsettled. O(1)."""
        return self._files.get(path)

    def paths(self) -> KeysView[str]:
        """All unsettled files: a view of them."""
        return self._files.keys()

    def is_large(self, path: str) -> bool:
        """Whether an unsettled file takes so long to read that others must not wait for it."""
        file = self._files.get(path)
        found = file.signature if file else None
        return isinstance(found, Signature) and found.size > self._large_bytes

    def put(self, path: str, file: Unsettled) -> None:
        """The file looks like this now."""
        self._files[path] = file
        self._wait(path, file)

    def remove(self, path: str) -> None:
        """The file no longer differs from what is held of it, or is gone."""
        if self._files.pop(path, None) is not None:
            self._due.pop(path, None)
            self._due_large.pop(path, None)

    def opened(self, path: str) -> None:
        """The file was written to, and its writer may still have it open."""
        if path not in self._open:
            self._open.add(path)
            self._wait_anew(path)

    def closed(self, path: str) -> None:
        """The file's writer has closed it; or the file is gone."""
        if path in self._open:
            self._open.discard(path)
            self._wait_anew(path)

    def all_closed(self) -> None:
        """Forget which files are open, as notices were missed. O(open)."""
        opened, self._open = self._open, set()
        for path in opened:
            self._wait_anew(path)

    def _wait_anew(self, path: str) -> None:
        if (file := self._files.get(path)) is not None:
            self._wait(path, file)

    def _wait(self, path: str, file: Unsettled) -> None:
        self._due.pop(path, None)
        self._due_large.pop(path, None)
        if file.whole:
            self._become_due(path)
        else:
            heappush(self._waiting, (self._due_at(path, file), path))

    def _due_at(self, path: str, file: Unsettled) -> float:
        if file.whole:
            return file.since
        return file.since + (self._open_settle_s if path in self._open else self._settle_s)

    def _become_due(self, path: str) -> None:
        due = self._due_large if self.is_large(path) else self._due
        due[path] = None

    def ripen(self, now: float) -> Iterator[None]:
        """Note which files have become due by now, in steps."""
        count = 0
        while self._waiting and self._waiting[0][0] <= now:
            _, path = heappop(self._waiting)
            file = self._files.get(path)
            if file is not None and self._due_at(path, file) <= now:
                self._become_due(path)
            count += 1
            if count % _STEP_FILES == 0:
                yield

    def due(self) -> list[str]:
        """The files that were due when `ripen` was last asked, in path order. O(these)."""
        return sorted([*self._due, *self._due_large])

    def next_at(self, *, large: bool) -> float:
        """When the next file is due; -inf if one is already. Large files count only if `large`."""
        if self._due or (large and self._due_large):
            return -math.inf
        return self._waiting[0][0] if self._waiting else math.inf

    def unread_since(self) -> float:
        """Since when the longest waiting large file that is due has been there; inf if none is due.

        An object that went missing since then may have moved into it. O(large files that are due).
        """
        return min((self._files[path].since for path in self._due_large), default=math.inf)
