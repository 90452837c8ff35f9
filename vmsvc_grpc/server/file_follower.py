"""When to look at files that others replace: certificates with their keys, a policy of rights.

A notice says that something has changed; only what stands there counts. Some file systems give no
notices, so files are looked at unasked, too. They are looked at once they rest: a certificate and
its key may be written in turn, and a policy in pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Protocol

from vmsvc_grpc.server.links import directories

SETTLE_S = 0.2
"""How long files must rest."""

_SETTLES_MAX = 10

Identity = tuple[tuple[int, ...] | None, ...]
"""Which files stand at some paths: equal if nobody has replaced or written any of them."""


def identity(paths: Sequence[Path]) -> Identity:
    """Which files stand there now. Does not raise."""
    return tuple(map(_identity_of, paths))


def _identity_of(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class FileWatch(Protocol):
    """Notices of changes in directories, by their paths without the first slash."""

    noticed: asyncio.Event

    def open(self) -> None:
        """Begin. Does not raise."""

    def close(self) -> None:
        """End: nothing is watched any more."""

    def directory(self, path: str) -> None:
        """Watch a directory. Does not raise."""

    def keep(self, paths: AbstractSet[str]) -> None:
        """Watch only these from now on."""

    def take(self) -> object:
        """Begin to wait for the next notice."""

    def unwatched(self) -> str | None:
        """What cannot be watched, and why; None if everything is watched."""


class FileFollower:
    """Says when to look at some files. One event loop owns it."""

    def __init__(
        self,
        paths: Sequence[Path],
        watch: FileWatch,
        rescan_s: float,
        on_unwatched: Callable[[str], object],
    ) -> None:
        """They are looked at each `rescan_s` at least.

        `on_unwatched` is told, once, what cannot be watched, and why.
        """
        self._paths = paths
        self._watch = watch
        self._rescan_s = rescan_s
        self._on_unwatched = on_unwatched
        self._unwatched: str | None = None

    async def run(self, look: Callable[[], Awaitable[None]]) -> None:
        """Have `look` look at first, and each time that something may be new, until cancelled."""
        self._watch.open()
        try:
            while True:
                self._watch.take()
                await self._watch_directories()
                await look()
                await self._wait()
        finally:
            self._watch.close()

    async def _watch_directories(self) -> None:
        """Watch all directories where a change may lead to other files."""
        found = await asyncio.to_thread(directories, self._paths)
        self._watch.keep(found)
        for directory in found:
            self._watch.directory(directory)
        unwatched = self._watch.unwatched()
        if unwatched is not None and unwatched != self._unwatched:
            self._on_unwatched(unwatched)
        self._unwatched = unwatched

    async def _wait(self) -> None:
        """Wait for a notice, or for the next look unasked, and then until the files rest."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._rescan_s):
                await self._watch.noticed.wait()
        seen = await asyncio.to_thread(identity, self._paths)
        for _ in range(_SETTLES_MAX):
            self._watch.take()
            await asyncio.sleep(SETTLE_S)
            before, seen = seen, await asyncio.to_thread(identity, self._paths)
            if seen == before and not self._watch.noticed.is_set():
                return
