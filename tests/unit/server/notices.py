"""A system that gives no notices of changes."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet


class NoNotices:
    """A FileWatch of such a system, for now; a test may notice something itself."""

    def __init__(self, why: str | None = "cannot be watched: too many open files") -> None:
        self.noticed = asyncio.Event()
        self.why = why
        self.looks = 0

    def open(self) -> None:
        """There is nothing to open."""

    def close(self) -> None:
        """Nor to close."""

    def directory(self, path: str) -> None:
        """It is not watched."""

    def keep(self, paths: AbstractSet[str]) -> None:
        self.looks += 1

    def take(self) -> None:
        self.noticed.clear()

    def unwatched(self) -> str | None:
        return self.why
