"""Directories that are being built anew, and so may lack files that will be there again.

`rm -r` and a copy, a checkout of another branch, or a swapped link: files are gone, and come back
one by one. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vmsvc_grpc.source.tree import above


@dataclass(slots=True)
class _Rebuilt:
    """A directory that went away or was replaced: when, and when a file last came or went in it."""

    began: float
    changed: float


class Rebuilding:
    """Which directories were replaced lately, and when the tree last gained or lost a path."""

    def __init__(self, *, settle_s: float, rest_s: float, longest_s: float) -> None:
        """A tree rests after `settle_s`, a replaced directory after `rest_s` without a change.

        Neither is waited for any longer than `rest_s`, or `longest_s`.
        """
        self._settle_s = settle_s
        self._rest_s = rest_s
        self._longest_s = longest_s
        self._rebuilt: dict[str, _Rebuilt] = {}
        self._changed = 0.0

    def replaced(self, directories: Iterable[str], now: float) -> None:
        """These directories are others than before, or gone."""
        for path in directories:
            rebuilt = self._rebuilt.get(path)
            if rebuilt is None or self._ends_at(rebuilt) <= now:
                self._rebuilt[path] = _Rebuilt(now, now)
            else:
                rebuilt.changed = now
            self.changed(path, now)

    def changed(self, path: str, now: float) -> None:
        """A file or directory came to the path or went away. O(depth)."""
        self._changed = now
        for directory in above(path):
            rebuilt = self._rebuilt.get(directory)
            if rebuilt is not None and self._ends_at(rebuilt) > now:
                rebuilt.changed = now

    def kept_until(self, path: str, missing_since: float) -> float:
        """Until when an object of that file stays, if it has been missing since then. O(depth)."""
        ends = [self._ends_at(self._rebuilt[d]) for d in above(path) if d in self._rebuilt]
        return max(min(self._changed + self._settle_s, missing_since + self._rest_s), *ends, 0.0)

    def forget(self, now: float) -> None:
        """Drop what nothing is kept for any more. O(directories replaced lately)."""
        for path in [path for path, one in self._rebuilt.items() if self._ends_at(one) <= now]:
            del self._rebuilt[path]

    def _ends_at(self, rebuilt: _Rebuilt) -> float:
        return min(rebuilt.changed + self._rest_s, rebuilt.began + self._longest_s)
