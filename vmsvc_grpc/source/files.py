"""Events from a directory of YAML and JSON manifests, live.

When a change is taken:
- A file that was renamed into place, or that a swapped symbolic link leads to (a mounted
  ConfigMap), is whole, and taken at once, within some milliseconds.
- Every other file is taken once it has not changed for `settle_s`; for `open_settle_s`, while
  a writer still has it open.
- An object that its file no longer defines is deleted `settle_s` later, or given to another
  file that defines it. So an object may move to another file, and a file may be renamed or
  rewritten, without a deletion in between. If a large file is there by then and takes longer
  to read, it is waited for.
- A truncated manifest can parse. So objects that a file written in place no longer defines
  are deleted once the file has not changed for `rewrite_s`: a writer that opens the file for
  each piece may pause for as long, and must rename to pause for longer. A file that changes
  again and again, or can no longer be read, keeps them for `rewrite_max_s` at most.
- A directory may be built anew: removed and copied, checked out, or a link to it swapped.
  Objects of its files stay until no file has come or gone in its place for `rewrite_s`, at most
  for `rewrite_max_s`. While files come and go elsewhere, objects of a removed file stay, too, at
  most for `rewrite_s`: they may move.
- Until then, and for as long as a file or the directory cannot be read, the objects last read
  of it stay. They also stay if a file is empty now (a shell empties a file before the data
  comes), or if an empty directory has taken the place of one with files (a file system may be
  mounted there, or have been).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from vmsvc_grpc.model.events import Apply, Init, InitDone, Malformed
from vmsvc_grpc.model.from_wire import DEFAULT_NAMESPACE
from vmsvc_grpc.model.objects import Key, Kind, Object
from vmsvc_grpc.model.problem import PROBLEMS_MAX, escaped, system_reason
from vmsvc_grpc.source import Emit, SourceError, tree
from vmsvc_grpc.source.breaks import Breaks, clock
from vmsvc_grpc.source.contents import ObjectId
from vmsvc_grpc.source.departures import Departures
from vmsvc_grpc.source.file_bounds import FilesSourceBounds
from vmsvc_grpc.source.file_reader import Fetched, FileReader, PlaceOf
from vmsvc_grpc.source.known_files import KnownFiles
from vmsvc_grpc.source.looks import OnNotices, TreeLooks
from vmsvc_grpc.source.problems import FileProblem, OnFileProblem, Problems
from vmsvc_grpc.source.rebuilding import Rebuilding
from vmsvc_grpc.source.settling import Settling, Unsettled
from vmsvc_grpc.source.tree import Signature

# The topic of the directory itself among the problems: no path of a file begins with a slash.
_DIRECTORY = "/directory"

_BOUNDS = FilesSourceBounds()


@dataclass(frozen=True, slots=True)
class _Reading:
    """A large file that is being read while others are taken."""

    path: str
    looked_at: Unsettled
    task: asyncio.Task[Fetched | None]


class FilesSource:
    """Events from a directory, and counts of what it read. Runs once."""

    def __init__(
        self,
        directory: Path,
        kinds: AbstractSet[Kind],
        *,
        settle_s: float = 0.2,
        shared: bool = False,
        namespace: str = DEFAULT_NAMESPACE,
        bounds: FilesSourceBounds = _BOUNDS,
        report: OnFileProblem = lambda _: None,
        on_notices: OnNotices = lambda _: None,
        place_of: PlaceOf | None = None,
    ) -> None:
        """Objects of `kinds` are emitted, others ignored; in `namespace` if they name none.

        `shared`: our own store writes here too, and reports its writes by `written`. It has to
        put right a file that cannot be read, so the objects of such a file are emitted as
        malformed. As others may write here, too, links are not followed. `place_of` says where it
        writes an object: in any other file, such as a copy, the object does not count.
        """
        self._root = directory.absolute()
        self._kinds = kinds
        self._shared = shared
        self._bounds = bounds
        self._problems = Problems(report)
        self._breaks = Breaks(bounds.slice_s)
        self._settling = Settling(
            settle_s=settle_s,
            open_settle_s=bounds.open_settle_s,
            large_bytes=bounds.quick_bytes_max,
        )
        rebuilding = Rebuilding(
            settle_s=settle_s,
            # What our own store holds is put right at once.
            rest_s=0.0 if shared else bounds.rewrite_s,
            longest_s=bounds.rewrite_max_s,
        )
        self._known = KnownFiles(
            self._root, settling=self._settling, rebuilding=rebuilding, shared=shared
        )
        self._union = self._known.union
        self._looks = TreeLooks(
            self._root,
            self._known,
            self._problems,
            shared=shared,
            bounds=bounds,
            breaks=self._breaks,
            on_notices=on_notices,
        )
        self._reader = FileReader(
            self._root,
            self._known,
            kinds,
            namespace=namespace,
            bounds=bounds,
            breaks=self._breaks,
            place_of=place_of,
        )
        self._departures = Departures(
            self._known, settle_s=settle_s, bounds=bounds, breaks=self._breaks
        )
        # One at a time: a large file may take seconds, which others must not wait for.
        self._reading: _Reading | None = None
        self._identity = (0, 0)
        self._away = False
        self._listed = False

    @property
    def files_read(self) -> int:
        """How many times a file has been read."""
        return self._reader.files_read

    @property
    def problems(self) -> Problems:
        """The problems of files now."""
        return self._problems

    @property
    def all_read(self) -> bool:
        """Whether everything could be read: an object that was not emitted does not exist."""
        return self._listed and not self._problems.hide_objects

    def losers(self, kind: Kind, key: Key) -> Iterator[FileProblem]:
        """Where the object is defined again, without effect. In path order, lazily."""
        return (self._repeat((kind, key), path) for path in self._union.losers((kind, key)))

    def origin(self, kind: Kind, key: Key) -> str | None:
        """The file that defines the object, or did until now."""
        path = self._union.holder((kind, key))
        return None if path is None else escaped(tree.shown(path))

    @property
    def ignored(self) -> int:
        """How many objects of other kinds there are in the files now. O(files)."""
        return self._union.ignored

    def written(self, path: str, kind: Kind, object_: Object | None) -> None:
        """The store that shares the directory has put a file in place, whole, or removed it.

        It reports the object to the cache itself, so the file is not read. But the content is
        noted, in case somebody changes it back or removes it before the next look.
        """
        self._known.written(path, kind, object_)

    async def run(self, emit: Emit) -> None:
        """Emit events until cancelled; nothing runs on after that.

        Raises SourceError if at the start there is no directory that can be listed.
        """
        self._identity = self._first_identity()
        try:
            async with asyncio.TaskGroup() as readers:
                while True:
                    if self._directory_is_there():
                        await self._pass(emit, readers)
                    await self._rest()
        finally:
            self._looks.watch.close()

    def _first_identity(self) -> tuple[int, int]:
        try:
            with os.scandir(self._root):
                status = self._root.stat()
        except OSError as error:
            raise SourceError(f"{self._root} cannot be listed: {system_reason(error)}") from None
        return status.st_dev, status.st_ino

    # -- What to do when --

    def _directory_is_there(self) -> bool:
        """Whether it can be listed. If it is a new one, all of it is to be looked at."""
        if self._shared:
            # It was removed with the objects held in it, which must be written again.
            with contextlib.suppress(OSError):
                self._root.mkdir(parents=True, exist_ok=True)
        try:
            with os.scandir(self._root):
                status = self._root.stat()
        except OSError as error:
            self._away = True
            message = f"cannot be listed, what was last read stays: {system_reason(error)}"
            self._problems.put(_DIRECTORY, [FileProblem(".", "", message, hides_objects=True)])
            return False
        self._problems.put(_DIRECTORY, [])
        identity = (status.st_dev, status.st_ino)
        self._looks.wanted |= self._away or identity != self._identity
        self._identity, self._away = identity, False
        return True

    async def _pass(self, emit: Emit, readers: asyncio.TaskGroup) -> None:
        """Look where it is due, and emit changes."""
        began = clock()
        await self._looks.look()
        if not self._listed:
            if "" not in self._looks.directories:
                return  # It went away just now.
            await self._list(emit)
        await self._end_reading(emit)
        for _ in self._settling.ripen(clock()):
            await self._breaks.breathe()
        for path in self._settling.due():
            await self._breaks.breathe()
            if self._settling.is_large(path):
                self._begin_reading(path, readers)
            else:
                await self._take(path, emit)
        await self._departures.emit_due(emit, began)
        await self._report()

    async def _rest(self) -> None:
        """Wait until something was noticed, or is due."""
        if self._away:
            await asyncio.sleep(self._bounds.directory_check_s)
            return
        now = clock()
        due = [
            now + self._bounds.directory_check_s,
            self._looks.next_at,
            # The end of a reading is noticed, and then the next large file is due.
            self._settling.next_at(large=self._reading is None),
            self._departures.next_at,
        ]
        try:
            async with asyncio.timeout(max(0.0, min(due) - now)):
                await self._looks.watch.noticed.wait()
                await asyncio.sleep(self._bounds.gather_s)
        except TimeoutError:
            pass

    # -- Reading and emitting. Nothing is awaited between the last look at a file and emit. --

    async def _list(self, emit: Emit) -> None:
        """Emit everything that was found, as a complete list of each kind."""
        kinds = [kind for kind in Kind if kind in self._kinds]
        for kind in kinds:
            emit(Init(kind))
        for path in sorted(self._settling.paths()):
            await self._breaks.breathe()
            self._known.look(path)
            await self._take(path, emit)
        self._listed = True
        for kind in kinds:
            emit(InitDone(kind))

    async def _take(self, path: str, emit: Emit) -> None:
        """Read an unsettled file and emit what differs, unless it changes meanwhile."""
        looked_at = self._settling.get(path)
        if looked_at is None:
            return  # It is gone, or our own store wrote it.
        fetched = await self._reader.fetched(path, looked_at, large=self._settling.is_large(path))
        await self._conclude(path, looked_at, fetched, emit)

    def _begin_reading(self, path: str, readers: asyncio.TaskGroup) -> None:
        """Begin to read a large file beside the others, unless one is being read already."""
        if self._reading is not None:
            return
        looked_at = self._settling.get(path)
        assert looked_at is not None, "what is due is unsettled"
        task = readers.create_task(self._reader.fetched(path, looked_at, large=True))
        task.add_done_callback(lambda _: self._looks.watch.noticed.set())
        self._reading = _Reading(path, looked_at, task)

    async def _end_reading(self, emit: Emit) -> None:
        """Emit the content of a large file once it is read; stop reading it if it has changed."""
        reading = self._reading
        if reading is None:
            return
        if self._settling.get(reading.path) is not reading.looked_at:
            self._reading = None  # The task ends by itself.
            reading.task.add_done_callback(self._discard_read)
        elif reading.task.done():
            self._reading = None
            await self._conclude(reading.path, reading.looked_at, reading.task.result(), emit)

    def _discard_read(self, task: asyncio.Task[Fetched | None]) -> None:
        """Let go of what was read, in steps: it is outdated."""
        failed = task.cancelled() or task.exception() is not None
        fetched = None if failed else task.result()
        if fetched is not None and fetched.contents is not None:
            self._union.discard(fetched.contents)

    async def _conclude(
        self, path: str, looked_at: Unsettled, fetched: Fetched | None, emit: Emit
    ) -> None:
        """Hold and emit the content of a file, if it is unchanged since the last look."""
        if fetched is None:
            return
        held, contents = fetched
        if isinstance(held.signature, Signature):
            self._known.look(path)
        if self._settling.get(path) is not looked_at or (
            isinstance(held.signature, Signature) and held.signature != looked_at.signature
        ):
            if contents is not None:
                self._union.discard(contents)
            return
        await self._emit_slowly(self._known.hold(path, held, contents), emit)

    async def _emit_slowly(self, events: Iterable[Apply | Malformed | None], emit: Emit) -> None:
        """Emit the events of a file, with breaks."""
        for event in events:
            if event is not None:
                emit(event)
            await self._breaks.breathe()

    async def _report(self) -> None:
        """Report problems of the files that were read, or whose objects moved."""
        self._known.touched |= self._union.reshuffled()
        for path in sorted(self._known.touched):
            await self._breaks.breathe()
            self._known.touched.discard(path)
            held = self._known.held.get(path)
            more = 0
            if held and held.problem:
                problems = [held.problem]
            else:
                contents = self._union.contents(path)
                problems = [FileProblem(tree.shown(path), *flaw) for flaw in contents.flaws]
                more = contents.more_flaws
            repeats = self._union.repeats(path)
            problems += (self._repeat(id_, path) for id_ in islice(repeats, PROBLEMS_MAX))
            more += max(0, len(repeats) - PROBLEMS_MAX)
            self._problems.put(path, problems, more=more)

    def _repeat(self, id_: ObjectId, path: str) -> FileProblem:
        return FileProblem(tree.shown(path), *self._union.repeat(id_, path))
