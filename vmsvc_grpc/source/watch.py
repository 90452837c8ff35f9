"""Where in a directory to look now: hints, from the system's own notices of changes.

A hint may come late, twice, or not at all; it never says what a file holds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from watchfiles import Change, awatch

from vmsvc_grpc.source import tree

Notice = tuple[Change, str]
"""What happened, and at which path, relative to the directory; "" is the directory itself."""


class Watch:
    """Collects notices of a directory for as long as `run` runs."""

    def __init__(
        self,
        root: Path,
        *,
        step_s: float,
        batch_max_s: float,
        retry_s: float,
        on_failure: Callable[[str | None], None],
    ) -> None:
        """A batch ends once `step_s` brought nothing new, or after `batch_max_s`.

        `on_failure` is told why nothing can be watched, and None each time that it can.
        """
        self.noticed = asyncio.Event()
        self._root = root
        self._step_s = step_s
        self._batch_max_s = batch_max_s
        self._retry_s = retry_s
        self._on_failure = on_failure
        self._notices: set[Notice] = set()
        self._begun = False

    async def run(self) -> None:
        """Watch until cancelled, and again after a failure. Leaves no task behind."""
        while True:
            failure = await self._failure()
            self._on_failure(failure)
            await asyncio.sleep(self._retry_s)

    def take(self) -> tuple[set[Notice], bool]:
        """The notices since this was last asked; and whether some may have been missed."""
        notices, self._notices = self._notices, set()
        begun, self._begun = self._begun, False
        self.noticed.clear()
        return notices, begun

    async def _failure(self) -> str:
        """Watch for as long as that works; why it does not."""
        failure = "the watch has ended"
        batches = awatch(
            self._root,
            watch_filter=None,
            step=round(self._step_s * 1000),
            debounce=round(self._batch_max_s * 1000),
            rust_timeout=round(self._retry_s * 1000),
            yield_on_timeout=True,
        )
        try:
            async with contextlib.aclosing(batches):
                first = True
                async for changes in batches:
                    self._note(changes, first=first)
                    first = False
        except* (OSError, RuntimeError) as group:
            failure = "; ".join(str(error) for error in group.exceptions)
        return failure

    def _note(self, changes: Iterable[Notice], *, first: bool) -> None:
        if first:
            # Only now is it certain that the watch stood: what came before may be lost.
            self._on_failure(None)
            self._begun = True
        for change, path in changes:
            self._notices.add((change, path.removeprefix(str(self._root)).lstrip("/")))
        if changes or first:
            self.noticed.set()


@dataclass(slots=True)
class Hints:
    """Where to look. `links_swapped`: a link may lead to other files than before, all whole."""

    everywhere: bool = False
    links_swapped: bool = False
    replaced: set[str] = field(default_factory=set)
    """Files that something was put in the place of, without removing them first."""
    changed: set[str] = field(default_factory=set)
    watch_lost: bool = False
    """The directory itself is gone: the watch of it stands for nothing."""


def hints(
    notices: AbstractSet[Notice], root: Path, directories: AbstractSet[str], *, linked: bool
) -> Hints:
    """What notices mean for a tree of these directories; `linked`: there are links in it.

    Looks at what stands at a path now, as a notice does not say what it was about.
    """
    result = Hints()
    removed: set[str] = set()
    for change, path in notices:
        outside = root / path
        parent = path.rpartition("/")[0]
        if not path:
            result.everywhere = True
            result.watch_lost |= change is Change.deleted
        elif tree.is_hidden(path):
            # A link may lead through it, as a mounted ConfigMap's do.
            result.everywhere |= linked
            result.links_swapped |= linked and outside.is_symlink()
        elif path in directories or outside.is_dir():
            result.everywhere = True
            result.links_swapped |= outside.is_symlink()
        elif tree.is_manifest(path) and parent in directories:
            result.changed.add(path)
            if change is Change.deleted:
                removed.add(path)
            elif change is Change.added:
                result.replaced.add(path)
        elif tree.is_manifest(path):
            result.everywhere = True
    result.replaced -= removed
    return result
