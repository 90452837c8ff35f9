"""Events from a directory of YAML and JSON manifests, live.

Only what a look finds counts. A notice of the watch merely says where to look now, and everything
is looked at from time to time: so a lost notice costs time and nothing else.

When a change is taken:
- A file that was renamed into place, or that a swapped symbolic link leads to (a mounted
  ConfigMap), is whole, and taken at once, within some milliseconds.
- Every other file is taken once it has not changed for `settle_s`; and while somebody has
  it open who has written to it, for `open_settle_s`.
- An object that its file defines no more is deleted `settle_s` later, or given to another
  file that defines it, so that it may move to another file, and a file be renamed or
  written anew, without anything happening in between. A large file that is there by then
  and takes longer to read is waited for.
- A truncated manifest can parse. So where a file was written in place, what it defines no more
  is deleted once the file has not changed for `rewrite_s`: whoever opens it again for each piece
  may pause for as long, and must rename to pause for longer. A file that changes again and
  again, or cannot be read any more, keeps it for `rewrite_max_s` at most.
- Until then, and for as long as a file or the directory cannot be read, what was last
  read of it stays. So it does of a file that held objects and holds none now: a shell
  empties a file before the data comes. And of a directory in whose place there is another
  one with nothing in it: a file system may be mounted there, or have been.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Generator, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from vmsvc_grpc.model.events import Apply, Init, InitDone, Malformed
from vmsvc_grpc.model.from_wire import DEFAULT_NAMESPACE
from vmsvc_grpc.model.objects import Key, Kind, Object
from vmsvc_grpc.model.problem import PROBLEMS_MAX, escaped, system_reason
from vmsvc_grpc.source import Emit, tree
from vmsvc_grpc.source.contents import Contents, Entry, ObjectId
from vmsvc_grpc.source.documents import ManifestError
from vmsvc_grpc.source.manifests import AbandonedError, reading
from vmsvc_grpc.source.problems import FileProblem, OnFileProblem, Problems
from vmsvc_grpc.source.settling import Settling, Unsettled
from vmsvc_grpc.source.tree import Content, Oddity, Signature
from vmsvc_grpc.source.union import Missing, Union
from vmsvc_grpc.source.vacated import Vacated
from vmsvc_grpc.source.watch import DirectoryWatch, How, Notices, Where, where

# Topics of problems that are not paths of files: no path begins with a slash.
_WATCH = "/watch"
_DIRECTORY = "/directory"
_SUBDIRECTORIES = "/subdirectories"
_VACATED = "/vacated"


class SourceError(Exception):
    """The directory cannot be a source; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSourceBounds:
    """Bounds of a file source that hardly anybody needs to change.

    `rescan_s` is how often everything is looked at unasked: for network file systems, and
    for notices that were lost; `poll_s` is how often where something cannot be watched, and
    `poll_share_max` how much of the time that may take. `open_settle_s` is how long a writer that
    keeps the file open may pause, and `rewrite_s` one that opens it again; what its file lacks
    meanwhile stays for `rewrite_max_s` at most. Notices are gathered for `gather_s`. `slice_s` is
    how long reading may hold up the event loop. A file of more than `quick_bytes_max` is read in a
    thread, slice by slice: a disk may be slow, and libyaml takes 30 ns for each byte of one long
    text, in one go, but pauses for other threads whenever it asks for more.
    """

    rescan_s: float = 10.0
    poll_s: float = 1.0
    poll_share_max: float = 0.05
    directory_check_s: float = 1.0
    open_settle_s: float = 10.0
    rewrite_s: float = 2.0
    rewrite_max_s: float = 30.0
    gather_s: float = 0.005
    slice_s: float = 0.005
    quick_bytes_max: int = 128 * 1024
    file_bytes_max: int = 16 * 1024 * 1024


@dataclass(slots=True)
class _HeldFile:
    """The last content read of a file. Without signature it could not be opened: try again."""

    signature: Signature | Oddity | None
    digest: bytes
    problem: FileProblem | None
    rewritten_at: float = -math.inf
    """When it was last changed in place, and so maybe not to its end."""

    @property
    def counts(self) -> bool:
        """Whether that content counts; else what was read before does."""
        return self.problem is None or isinstance(self.signature, Oddity)


class _Fetched(NamedTuple):
    """A file that was read: what is held of it from now on, and its contents, if they count."""

    held: _HeldFile
    contents: Contents | None


@dataclass(frozen=True, slots=True)
class _Reading:
    """A large file that is being read while others are taken."""

    path: str
    looked_at: Unsettled
    task: asyncio.Task[_Fetched | None]


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
        bounds: FilesSourceBounds = FilesSourceBounds(),
        report: OnFileProblem = lambda _: None,
    ) -> None:
        """Objects of `kinds` are emitted, others ignored; in `namespace` if they name none.

        `shared`: our own store writes here too, and reports its writes by `written`. It has to
        put right a file that cannot be read, so the objects of such a file are emitted as
        malformed. As others may write here, too, links are not followed.
        """
        self.files_read = 0
        self._root = directory.absolute()
        self._kinds = kinds
        self._namespace = namespace
        self._settle_s = settle_s
        self._shared = shared
        self._below = self._root if shared else None
        self._bounds = bounds
        self._problems = Problems(report)
        self._union = Union()
        self._held: dict[str, _HeldFile] = {}
        self._settling = Settling(
            settle_s=settle_s,
            open_settle_s=bounds.open_settle_s,
            large_bytes=bounds.quick_bytes_max,
        )
        self._touched: set[str] = set()
        # One at a time: a large file may take seconds, which others must not wait for.
        self._reading: _Reading | None = None
        self._watch = DirectoryWatch(self._root)
        self._directories: set[str] = set()
        self._vacated = Vacated()
        self._linked = False
        self._identity = (0, 0)
        self._away = False
        self._look_wanted = True
        self._listed = False
        self._next_rescan = 0.0
        self._slice_began = 0.0

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

    def owner(self, kind: Kind, key: Key) -> str | None:
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
        self._settling.remove(path)
        if object_ is None:
            self._forget(path)
            return
        try:
            signature = tree.signature(self._root / path, below=self._below)
        except OSError:
            signature = None
        self._held[path] = _HeldFile(signature, b"", None)
        entry = Entry((kind, object_.key), "document 1", Apply(object_))
        self._union.put(path, Contents({entry.id: entry}), self._clock())
        self._touched.add(path)

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
            self._watch.close()

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
            # Somebody removed it with the objects held in it: that must be seen and put right.
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
        self._look_wanted |= self._away or identity != self._identity
        self._identity, self._away = identity, False
        return True

    async def _pass(self, emit: Emit, readers: asyncio.TaskGroup) -> None:
        """Look where it is due, and emit changes."""
        began = self._clock()
        # First the paths of which a notice says how they changed.
        links_swapped = await self._hear(self._watch.take())
        if self._look_wanted or self._clock() >= self._next_rescan:
            await self._look_everywhere(links_swapped=links_swapped)
        if not self._listed:
            if "" not in self._directories:
                return  # It went away just now.
            await self._list(emit)
        await self._end_reading(emit)
        for _ in self._settling.ripen(self._clock()):
            await self._breathe()
        for path in self._settling.due():
            await self._breathe()
            if self._settling.is_large(path):
                self._begin_reading(path, readers)
            else:
                await self._take(path, emit)
        await self._settle(emit, began)
        await self._report()

    async def _hear(self, notices: Notices) -> bool:
        """Look where notices say; whether links may lead to other files than before."""
        links_swapped = False
        if notices.missed:
            self._look_wanted = True
            self._settling.all_closed()
        for path, how in notices.how.items():
            await self._breathe()
            match where(
                path,
                self._root,
                self._directories,
                is_directory=path in notices.directories,
                linked=self._linked,
            ):
                case Where.THERE:
                    self._look_after(path, how)
                    # An emptied directory is empty no longer.
                    self._look_wanted |= not self._vacated.paths.isdisjoint(tree.above(path))
                case Where.EVERYWHERE:
                    self._look_wanted = True
                case Where.AT_LINKS:
                    self._look_wanted = links_swapped = True
        return links_swapped

    def _look_after(self, path: str, how: How) -> None:
        if how is How.WRITTEN:
            self._settling.opened(path)
        elif how is not How.TOUCHED:
            self._settling.closed(path)
        self._look(path, whole=None if how is How.TOUCHED else how is How.PLACED)
        if (self._root / path).is_symlink():
            self._linked = True
            self._watch.linked_file(path)

    async def _rest(self) -> None:
        """Wait until something was noticed, or is due."""
        if self._away:
            await asyncio.sleep(self._bounds.directory_check_s)
            return
        now = self._clock()
        due = [
            now + self._bounds.directory_check_s,
            self._next_rescan,
            # The end of a reading is noticed, and then the next large file is due.
            self._settling.next_at(large=self._reading is None),
        ]
        missing = self._union.missing
        if missing and self._settling.unread_since() >= missing.since + self._settle_s:
            due.append(missing.since + self._settle_s)
        try:
            async with asyncio.timeout(max(0.0, min(due) - now)):
                await self._watch.noticed.wait()
                await asyncio.sleep(self._bounds.gather_s)
        except TimeoutError:
            pass

    async def _breathe(self) -> bool:
        """Let others run if this has held the loop for long; whether that was so."""
        if self._clock() - self._slice_began < self._bounds.slice_s:
            return False
        await asyncio.sleep(0)
        self._slice_began = self._clock()
        return True

    @staticmethod
    def _clock() -> float:
        return asyncio.get_running_loop().time()

    # -- Looking --

    async def _look_everywhere(self, *, links_swapped: bool) -> None:
        began = self._clock()
        self._look_wanted = False
        self._watch.open()
        found: set[str] = set()
        identities: dict[str, tuple[int, int]] = {}
        watched: set[str] = set()
        unlisted: list[tree.Unlisted] = []
        self._linked = False
        for step in tree.walk(self._root, links=not self._shared):
            await self._breathe()
            match step:
                case tree.Directory(path, linked, identity):
                    self._watch.directory(path)
                    watched.add(path)
                    identities[path] = identity
                    self._linked |= linked
                case tree.File(path, linked, link):
                    if link:
                        self._watch.linked_file(path)
                        watched.add(path)
                    found.add(path)
                    self._linked |= linked
                    self._look(path, whole=(links_swapped and linked) or None)
                case tree.Unlisted(path):
                    identities.pop(path, None)
                    unlisted.append(step)
        self._directories = set(identities)
        self._watch.keep(watched)
        unlisted_paths = {directory.path for directory in unlisted}
        for _ in self._vacated.noting(identities, list(self._held), found, unlisted_paths):
            await self._breathe()
        self._problems.put(_VACATED, self._vacated.problems())
        unknown = self._vacated.paths | unlisted_paths
        for path in (self._held.keys() | self._settling.paths()) - found:
            await self._breathe()
            self._look_for_unfound(path, unknown)
        self._problems.put(_SUBDIRECTORIES, list(map(_unlisted_problem, unlisted)))
        self._plan_rescan(began)

    def _plan_rescan(self, began: float) -> None:
        """Plan when to look everywhere again, after a look that began at this time."""
        now = self._clock()
        unwatched = self._watch.unwatched()
        if unwatched is None:
            self._problems.put(_WATCH, [])
            self._next_rescan = now + self._bounds.rescan_s
            return
        poll_s = max(self._bounds.poll_s, (now - began) / self._bounds.poll_share_max)
        self._next_rescan = now + min(poll_s, self._bounds.rescan_s)
        late = f"{unwatched}; changes there are seen after some seconds only"
        self._problems.put(_WATCH, [FileProblem(".", "", late)])

    def _look_for_unfound(self, path: str, unknown: AbstractSet[str]) -> None:
        """Find out what became of a file that the tree no longer shows.

        Beneath an `unknown` directory that cannot be known. A listing of a directory that changes
        meanwhile may miss a file that is there.
        """
        if not unknown.isdisjoint(tree.above(path)):
            return
        if path.rpartition("/")[0] in self._directories:
            self._look(path)
        else:
            self._forget(path)

    def _look(self, path: str, *, whole: bool | None = None) -> None:
        """Check whether the file is as it was at the last look.

        `whole`: whether a new file was put there as it is, if that is known.
        """
        now = self._clock()
        try:
            found = tree.signature(self._root / path, below=self._below)
        except OSError:
            # Reading it will tell why.
            self._settling.put(path, Unsettled(None, now, whole=True))
            return
        if found is None:
            self._forget(path)
            return
        held, unsettled = self._held.get(path), self._settling.get(path)
        known = unsettled or held
        if known is None or found != known.signature:
            if isinstance(found, Oddity):
                self._union.drop(path)
                self._held.pop(path, None)  # Should the file be back, it is to be read anew.
            self._settling.put(path, Unsettled(found, now, _if_another(whole, known, found)))
        elif unsettled and unsettled.whole is None and whole is not None:
            whole = _if_another(whole, held, found)
            self._settling.put(path, replace(unsettled, whole=whole))

    def _forget(self, path: str) -> None:
        self._held.pop(path, None)
        self._settling.remove(path)
        self._settling.closed(path)
        self._union.drop(path)

    # -- Reading and emitting. Nothing is awaited between the last look at a file and emit. --

    async def _list(self, emit: Emit) -> None:
        """Emit everything that was found, as a complete list of each kind."""
        kinds = [kind for kind in Kind if kind in self._kinds]
        for kind in kinds:
            emit(Init(kind))
        for path in sorted(self._settling.paths()):
            await self._breathe()
            self._look(path)
            await self._take(path, emit)
        self._listed = True
        for kind in kinds:
            emit(InitDone(kind))

    async def _take(self, path: str, emit: Emit) -> None:
        """Read an unsettled file and emit what differs, unless it changes meanwhile."""
        looked_at = self._settling.get(path)
        if looked_at is None:
            return  # It is gone, or our own store has written it.
        fetched = await self._fetched(path, looked_at, large=self._settling.is_large(path))
        await self._conclude(path, looked_at, fetched, emit)

    def _begin_reading(self, path: str, readers: asyncio.TaskGroup) -> None:
        """Begin to read a large file beside the others, unless one is being read already."""
        if self._reading is not None:
            return
        looked_at = self._settling.get(path)
        assert looked_at is not None, "what is due is unsettled"
        task = readers.create_task(self._fetched(path, looked_at, large=True))
        task.add_done_callback(lambda _: self._watch.noticed.set())
        self._reading = _Reading(path, looked_at, task)

    async def _end_reading(self, emit: Emit) -> None:
        """Emit the content of a large file once it is read; stop reading it if it has changed."""
        reading = self._reading
        if reading is None:
            return
        if self._settling.get(reading.path) is not reading.looked_at:
            self._reading = None  # The task ends by itself, once it has let go of what it read.
        elif reading.task.done():
            self._reading = None
            await self._conclude(reading.path, reading.looked_at, reading.task.result(), emit)

    async def _fetched(self, path: str, looked_at: Unsettled, *, large: bool) -> _Fetched | None:
        """The content of an unsettled file; None if it has changed since the last look."""
        content = await self._opened(path, looked_at, large=large)
        if isinstance(content, _HeldFile):
            return _Fetched(content, None)
        if content is None or self._settling.get(path) is not looked_at:
            return None
        self.files_read += 1
        held = self._held.get(path)
        if held and held.signature and held.digest == content.digest:
            return _Fetched(replace(held, signature=content.signature), None)
        read = await self._read(path, looked_at, content.bytes, large=large)
        if read is None:
            return None
        contents, problem = read
        rewritten_at = -math.inf if looked_at.whole else looked_at.since
        held = _HeldFile(content.signature, content.digest, problem, rewritten_at)
        return _Fetched(held, contents)

    async def _conclude(
        self, path: str, looked_at: Unsettled, fetched: _Fetched | None, emit: Emit
    ) -> None:
        """Hold and emit the content of a file, if it is unchanged since the last look."""
        if fetched is None:
            return
        held, contents = fetched
        if isinstance(held.signature, Signature):
            self._look(path)
        if self._settling.get(path) is not looked_at or (
            isinstance(held.signature, Signature) and held.signature != looked_at.signature
        ):
            if contents is not None:
                self._union.discard(contents)
            return
        await self._tell(self._hold(path, held, contents), emit)

    async def _opened(
        self, path: str, looked_at: Unsettled, *, large: bool
    ) -> Content | _HeldFile | None:
        """The bytes of an unsettled file, or what to hold instead; None if there is no file."""
        found = looked_at.signature
        if isinstance(found, Oddity):
            problem = FileProblem(tree.shown(path), "", f"{found.text}; it is left out")
            return _HeldFile(found, b"", problem)
        bytes_max = self._bounds.file_bytes_max
        read = partial(tree.read_content, self._root / path, bytes_max, below=self._below)
        try:
            return await asyncio.to_thread(read) if large else read()
        except (FileNotFoundError, NotADirectoryError):
            self._forget(path)
            return None
        except OSError as error:
            message = f"cannot be read: {system_reason(error)}"
            return _HeldFile(
                None, b"", FileProblem(tree.shown(path), "", message, hides_objects=True)
            )

    async def _read(
        self, path: str, looked_at: Unsettled, content: bytes, *, large: bool
    ) -> tuple[Contents | None, FileProblem | None] | None:
        """The contents of a file, or the problem for which its former ones still count.

        None if it is not what was looked at any more, and so of no use.
        """
        steps = reading(content, self._kinds, namespace=self._namespace)
        try:
            contents = await self._parsed(steps, path, looked_at, large=large)
        except AbandonedError:
            return None
        except ManifestError as error:
            return None, _problem(path, error)
        if not contents.empty or not self._union.contents(path).entries:
            return contents, None
        return None, _emptied(path, contents)

    async def _parsed(
        self,
        steps: Generator[None, None, Contents],
        path: str,
        looked_at: Unsettled,
        *,
        large: bool,
    ) -> Contents:
        """What the steps lead to. Raises ManifestError; AbandonedError once that is of no use."""
        go_on = partial(_gone_on, steps, self._bounds.slice_s)
        abandoned = False
        while (contents := await asyncio.to_thread(go_on) if large else go_on()) is None:
            await self._breathe()
            if self._settling.get(path) is not looked_at and not abandoned:
                abandoned = True
                steps.throw(AbandonedError)
        return contents

    def _hold(
        self, path: str, held: _HeldFile, contents: Contents | None
    ) -> Iterator[Apply | Malformed | None]:
        """Hold a file that was read; what to emit, in steps.

        Without contents, the old ones stay.
        """
        now = self._clock()
        self._settling.remove(path)
        self._held[path] = held
        self._touched.add(path)
        if contents is None and self._shared and held.problem:
            # The store of the directory must learn of it, to put the file right.
            contents = yield from self._union.contents(path).malformed(str(held.problem))
            if self._held.get(path) is not held:
                return
        if contents is not None:
            yield from self._union.putting(path, contents, now)

    async def _tell(self, events: Iterable[Apply | Malformed | None], emit: Emit) -> None:
        """Emit the events of a file, with breaks."""
        for event in events:
            if event is not None:
                emit(event)
            await self._breathe()

    async def _settle(self, emit: Emit, looked_at: float) -> None:
        """Emit what becomes of objects that their files have let go of.

        Every file that was there at `looked_at` has been looked at.
        """
        for _ in self._union.letting_go(self._clock()):
            await self._breathe()
        settled = min(looked_at, self._settling.unread_since()) - self._settle_s
        while missing := self._union.missing:
            await self._breathe()
            if settled < missing.since:
                return
            self._look(missing.path)
            if self._settling.get(missing.path) is not None:
                self._union.postpone(missing, self._clock())  # It may be back, unread as yet.
                continue
            if (kept_until := self._kept_until(missing)) > looked_at:
                self._union.postpone(missing, kept_until - self._settle_s)
                continue
            for event in self._union.settle(missing):
                emit(event)

    def _kept_until(self, missing: Missing) -> float:
        """Until when the object stays, as its file may not be written to its end."""
        held = self._held.get(missing.path)
        if held is None:
            return -math.inf
        written_at = held.rewritten_at if held.counts else self._clock()
        longest = missing.first + self._bounds.rewrite_max_s
        return min(written_at + self._bounds.rewrite_s, longest)

    async def _report(self) -> None:
        """Report problems of the files that were read, or whose objects moved."""
        self._touched |= self._union.reshuffled()
        for path in sorted(self._touched):
            await self._breathe()
            self._touched.discard(path)
            held = self._held.get(path)
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


def _gone_on(steps: Generator[None, None, Contents], slice_s: float) -> Contents | None:
    """Read on for `slice_s`, a step at least; what was read, once that is all."""
    end = time.monotonic() + slice_s
    try:
        next(steps)
        while time.monotonic() < end:
            next(steps)
    except StopIteration as over:
        contents: Contents = over.value
        return contents
    return None


def _if_another(
    whole: bool | None, before: _HeldFile | Unsettled | None, found: Signature | Oddity
) -> bool | None:
    """`whole`, but None for the same file as before, and for what is no file."""
    if isinstance(found, Oddity):
        return False
    known = before.signature if before else None
    return whole and not (isinstance(known, Signature) and known.inode == found.inode)


def _problem(path: str, error: ManifestError) -> FileProblem:
    place = f"line {error.line}, column {error.column}"
    return FileProblem(tree.shown(path), place, error.message, hides_objects=True)


def _emptied(path: str, contents: Contents) -> FileProblem:
    flaw = contents.flaws[0] if contents.flaws else None
    message = (
        f"holds no object any more{f', as its first {flaw.message}' if flaw else ''}; what it held "
        "stays until it holds one again, or is removed"
    )
    return FileProblem(tree.shown(path), flaw.place if flaw else "", message)


def _unlisted_problem(unlisted: tree.Unlisted) -> FileProblem:
    # Files in a directory that we may not list were neither read nor parsed. Deleting their objects
    # at a restart, because rights are wrong for a moment, would take a failure for news; and
    # /readyz shows it until the rights are mended or it is gone. But there are no manifests where a
    # file system keeps what its check has found, and on most volumes only root may list that.
    may_hold = unlisted.path.rpartition("/")[2] != "lost+found"
    message = f"cannot be listed: {unlisted.message}"
    return FileProblem(tree.shown(unlisted.path), "", message, hides_objects=may_hold)
