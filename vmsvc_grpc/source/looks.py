"""Where to look in a directory, and looking there.

Only what a look finds counts. A notice of the watch merely says where to look now, and everything
is looked at from time to time: so a lost notice costs time and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from vmsvc_grpc.source import tree
from vmsvc_grpc.source.breaks import Breaks, clock
from vmsvc_grpc.source.file_bounds import FilesSourceBounds
from vmsvc_grpc.source.inotify import DirectoryWatch, How, PathNotices, Where, where
from vmsvc_grpc.source.known_files import KnownFiles
from vmsvc_grpc.source.problems import FileProblem, Problems
from vmsvc_grpc.source.vacated import Vacated

# Topics of problems that are not paths of files: no path begins with a slash.
_WATCH = "/watch"
_SUBDIRECTORIES = "/subdirectories"
_VACATED = "/vacated"


OnNotices = Callable[[Collection[str]], None]
"""Called with the paths at which something may have changed, files or not. Some may be missed."""


class TreeLooks:
    """Looks at the files of a tree, where notices say so, and everywhere when that is due.

    `wanted`: all of it is to be looked at now.
    """

    def __init__(
        self,
        root: Path,
        known: KnownFiles,
        problems: Problems,
        *,
        shared: bool,
        bounds: FilesSourceBounds,
        breaks: Breaks,
        on_notices: OnNotices,
    ) -> None:
        """`shared`: our own store writes here, too, and puts right what is missing at once.

        So a directory is not waited for to be filled again, and no link is followed.
        """
        self.watch = DirectoryWatch(root)
        self.wanted = True
        self.next_at = 0.0
        """When everything is looked at unasked."""
        self.directories: AbstractSet[str] = frozenset()
        """Those that could be listed at the last look everywhere."""
        self._root = root
        self._known = known
        self._problems = problems
        self._shared = shared
        self._bounds = bounds
        self._breaks = breaks
        self._on_notices = on_notices
        self._vacated = Vacated()
        self._linked = False
        # Directories that were made or removed since the last look everywhere.
        self._remade: set[str] = set()

    async def look(self) -> None:
        """Look where it is due."""
        # First the paths of which a notice says how they changed.
        links_swapped = await self._hear(self.watch.take())
        if self.wanted or clock() >= self.next_at:
            await self._look_everywhere(links_swapped=links_swapped)

    async def _hear(self, notices: PathNotices) -> bool:
        """Look where notices say; whether links may lead to other files than before."""
        links_swapped = False
        if notices.missed:
            self.wanted = True
            self._known.settling.all_closed()
        for path, how in notices.how.items():
            await self._breaks.breathe()
            made = path in notices.directories and how in (How.ANOTHER, How.PLACED)
            if made and not self._shared:
                self._remade.add(path)
            match where(
                path,
                self._root,
                self.directories,
                is_directory=path in notices.directories,
                linked=self._linked,
            ):
                case Where.THERE:
                    self._look_after(path, how)
                    # An emptied directory is empty no longer.
                    self.wanted |= not self._vacated.paths.isdisjoint(tree.above(path))
                case Where.EVERYWHERE:
                    self.wanted = True
                case Where.AT_LINKS:
                    self.wanted = links_swapped = True
        if notices.how:
            self._on_notices(notices.how.keys())
        return links_swapped

    def _look_after(self, path: str, how: How) -> None:
        if how is How.WRITTEN:
            self._known.settling.opened(path)
        elif how is not How.TOUCHED:
            self._known.settling.closed(path)
        self._known.look(path, whole=None if how is How.TOUCHED else how is How.PLACED)
        if tree.is_link(self._root / path):
            self._linked = True
            self.watch.linked_file(path)

    async def _look_everywhere(self, *, links_swapped: bool) -> None:
        began = clock()
        self.wanted = False
        self.watch.open()
        found: set[str] = set()
        identities: dict[str, tuple[int, int]] = {}
        watched: set[str] = set()
        unlisted: list[tree.Unlisted] = []
        self._linked = False
        for step in tree.walk(self._root, links=not self._shared):
            await self._breaks.breathe()
            match step:
                case tree.Directory(path, linked, identity):
                    self.watch.directory(path)
                    watched.add(path)
                    identities[path] = identity
                    self._linked |= linked
                case tree.File(path, linked, link):
                    if link:
                        self.watch.linked_file(path)
                        watched.add(path)
                    found.add(path)
                    self._linked |= linked
                    self._known.look(path, whole=(links_swapped and linked) or None)
                case tree.Unlisted(path):
                    identities.pop(path, None)
                    unlisted.append(step)
        self.directories = set(identities)
        self.watch.keep(watched)
        unlisted_paths = {directory.path for directory in unlisted}
        if not self._shared:
            await self._note_directories(identities, found, unlisted_paths)
        unknown = self._vacated.paths | unlisted_paths
        for path in (self._known.held.keys() | self._known.settling.paths()) - found:
            await self._breaks.breathe()
            self._look_for_unfound(path, unknown)
        self._problems.put(_SUBDIRECTORIES, list(map(_unlisted_problem, unlisted)))
        self._plan_rescan(began)

    async def _note_directories(
        self,
        identities: Mapping[str, tuple[int, int]],
        found: AbstractSet[str],
        unlisted: AbstractSet[str],
    ) -> None:
        """Note which directories were replaced, and which of these hold nothing any more."""
        remade, self._remade = self._remade, set()
        held = list(self._known.held)
        for _ in self._vacated.noting(identities, held, found, unlisted, remade):
            await self._breaks.breathe()
        now = clock()
        self._known.rebuilding.forget(now)
        self._known.rebuilding.replaced(self._vacated.replaced, now)
        self._problems.put(_VACATED, self._vacated.problems())

    def _plan_rescan(self, began: float) -> None:
        """Plan when to look everywhere again, after a look that began at this time."""
        now = clock()
        unwatched = self.watch.unwatched()
        if unwatched is None:
            self._problems.put(_WATCH, [])
            self.next_at = now + self._bounds.rescan_s
            return
        poll_s = max(self._bounds.poll_s, (now - began) / self._bounds.poll_share_max)
        self.next_at = now + min(poll_s, self._bounds.rescan_s)
        late = f"{unwatched}; changes there are seen after some seconds only"
        self._problems.put(_WATCH, [FileProblem(".", "", late)])

    def _look_for_unfound(self, path: str, unknown: AbstractSet[str]) -> None:
        """Find out what became of a file that the tree no longer shows.

        Beneath an `unknown` directory that cannot be known. A listing of a directory that changes
        meanwhile may miss a file that is there.
        """
        if not unknown.isdisjoint(tree.above(path)):
            return
        if path.rpartition("/")[0] in self.directories:
            self._known.look(path)
        else:
            self._known.forget(path)


def _unlisted_problem(unlisted: tree.Unlisted) -> FileProblem:
    # Files in a directory that we may not list were neither read nor parsed. Deleting their objects
    # at a restart, because rights are wrong for a moment, would take a failure for news; and
    # /readyz shows it until the rights are mended or it is gone. But there are no manifests where a
    # file system keeps what its check has found, and on most volumes only root may list that.
    may_hold = unlisted.path.rpartition("/")[2] != "lost+found"
    message = f"cannot be listed: {unlisted.message}"
    return FileProblem(tree.shown(unlisted.path), "", message, hides_objects=may_hold)
