"""The objects that the files of a directory define together, and the events that follow.

Pure. If several files define an object, that of its holder counts: the file that defined it first,
or the first in path order if they were read at once, as at the start. The holder stays the same for
as long as it defines the object, so that a copy that appears elsewhere changes nothing. Only what
differs from the last event is emitted.

A file may define 60,000 objects, so work on each of them is done in steps. If the file changes in
between, the latest state counts.
"""

from __future__ import annotations

import itertools
from bisect import bisect
from collections.abc import Collection, Iterator
from dataclasses import replace
from heapq import heappop, heappush
from typing import NamedTuple

from vmsvc_grpc.model.events import Apply, Delete, Malformed
from vmsvc_grpc.source.contents import Contents, Entry, Flaw, ObjectId, repeated
from vmsvc_grpc.source.tree import shown

_NOTHING = Contents()

# About 0.2 ms of work.
_STEP_OBJECTS = 100


class Missing(NamedTuple):
    """An object that its holder no longer defines; no event has been emitted for that yet."""

    id: ObjectId
    path: str
    """The file that held it."""
    first: float
    """When it was first found missing."""
    since: float
    """Since when that counts: later than `since`, if it was postponed."""


class Union:
    """Contents by file, and the objects that follow from them.

    An object that its file defines no more is missing: it has no holder. It stays as it was last
    emitted until its file defines it again, or until `pass_on` gives it to another file or deletes
    it.
    """

    def __init__(self) -> None:
        self._contents: dict[str, Contents] = {}
        # Files that are gone, but whose objects have not all been declared missing.
        self._gone: dict[str, None] = {}
        # Contents that nobody holds any more, and that take Python long to free.
        self._outdated: list[Contents] = []
        # In path order. Most objects are defined once: those of a file share one tuple.
        self._definers: dict[ObjectId, tuple[str, ...]] = {}
        self._alone: dict[str, tuple[str, ...]] = {}
        self._holders: dict[ObjectId, str] = {}
        self._emitted: dict[ObjectId, Apply | Malformed] = {}
        self._missing: dict[ObjectId, Missing] = {}
        # A heap: the object that has been missing longest comes first. An entry whose object has
        # been found, or has been missing since another time, counts for nothing.
        self._longest: list[tuple[float, int, Missing]] = []
        # By file, its objects that were postponed; some may not be missing any more.
        self._postponed: dict[str, dict[ObjectId, None]] = {}
        self._noted = itertools.count()
        # By file, the objects that it defines but another file holds.
        self._repeats: dict[str, dict[ObjectId, None]] = {}
        self._reshuffled: set[str] = set()

    @property
    def ignored(self) -> int:
        """How many objects of other kinds the files hold. O(files)."""
        return sum(self.contents(path).ignored for path in self._contents)

    @property
    def missing(self) -> Missing | None:
        """The object that has been without a holder for longest, if there is one."""
        while self._longest:
            missing = self._longest[0][-1]
            if self._missing.get(missing.id) is missing:
                return missing
            heappop(self._longest)
        return None

    def contents(self, path: str) -> Contents:
        """The known contents of a file."""
        return _NOTHING if path in self._gone else self._contents.get(path, _NOTHING)

    def put(self, path: str, contents: Contents, now: float) -> list[Apply | Malformed]:
        """Set the contents of a file; what to emit for the objects that it holds. O(objects).

        The contents are the union's own from then on.
        """
        return [event for event in self.putting(path, contents, now) if event is not None]

    def putting(
        self, path: str, contents: Contents, now: float
    ) -> Iterator[Apply | Malformed | None]:
        """`put` in steps, with a None now and then, so that others have their turn.

        If the file is put or dropped again in between, that does the rest.
        """
        self._gone.pop(path, None)
        before = self.contents(path)
        yield from self._letting_go(path, contents, now)
        if self._contents.get(path, _NOTHING) is not before or path in self._gone:
            return
        if before.entries is not contents.entries:
            self.discard(before)
        # A copy, so that it differs from contents put earlier, even equal ones.
        self._contents[path] = contents = replace(contents)
        for count, id_ in enumerate(contents.entries):
            self._define(id_, path)
            yield from self._taken(id_, path)
            if count % _STEP_OBJECTS == 0:
                yield None
            if self._contents.get(path) is not contents or path in self._gone:
                return

    def drop(self, path: str) -> None:
        """Remove a file; `letting_go` then declares its objects missing. O(1)."""
        self._reshuffled.add(path)
        if path in self._contents:
            self._gone[path] = None

    def discard(self, contents: Contents) -> None:
        """Have `letting_go` free these contents, which nobody holds any more. O(1)."""
        self._outdated.append(contents)

    def letting_go(self, now: float) -> Iterator[None]:
        """Declare the objects of removed files missing, and free outdated contents; in steps."""
        while self._gone:
            path = next(iter(self._gone))
            before = self._contents[path]
            yield from self._letting_go(path, _NOTHING, now)
            if path in self._gone and self._contents[path] is before:
                yield from self.recalling(path, now)
                del self._gone[path], self._contents[path]
                self._alone.pop(path, None)
                self.discard(before)
        while self._outdated:
            yield from self._outdated.pop().draining()

    def pass_on(self, missing: Missing) -> Iterator[Apply | Malformed | Delete]:
        """The holder no longer defines the object; what to emit for it.

        The next holder is a file that defines it as it was last emitted, as after a rename; else
        the first in path order.
        """
        id_ = missing.id
        definers = self._standing_definers(id_)
        if definers:
            said = self._emitted[id_]
            same = (path for path in definers if self._entry(id_, path).event == said)
            self._hold(id_, next(same, definers[0]))
            yield from self._news(id_)
        else:
            # While this event is taken in, `holder` still returns the last holder.
            yield Delete(*id_)
            self._miss_no_more(id_)
            del self._emitted[id_]

    def postpone(self, missing: Missing, now: float) -> None:
        """Count the object as missing since `now`, which may be in the future."""
        self._postponed.setdefault(missing.path, {})[missing.id] = None
        self._note_missing(missing._replace(since=now))

    def recalling(self, path: str, now: float) -> Iterator[None]:
        """Count what a file lacks and was postponed as missing since `now`; in steps."""
        postponed = self._postponed.pop(path, {})
        for count, id_ in enumerate(postponed):
            missing = self._missing.get(id_)
            if missing is not None and missing.path == path:
                self._note_missing(missing._replace(since=min(now, missing.since)))
            if count % _STEP_OBJECTS == 0:
                yield

    def reshuffled(self) -> set[str]:
        """Files whose `repeats` may have changed since the last call."""
        paths, self._reshuffled = self._reshuffled, set()
        return paths

    def repeats(self, path: str) -> Collection[ObjectId]:
        """The objects of the file that another file holds."""
        return self._repeats.get(path, {}).keys()

    def holder(self, id_: ObjectId) -> str | None:
        """The file that holds the object, or held it last, until its deletion is emitted."""
        missing = self._missing.get(id_)
        return missing.path if missing else self._holders.get(id_)

    def losers(self, id_: ObjectId) -> Iterator[str]:
        """The files that define an object that another one holds, in path order, lazily."""
        holder = self._holders.get(id_)
        if holder is not None:
            definers = self._definers.get(id_, ())
            yield from (path for path in definers if path != holder and path not in self._gone)

    def repeat(self, id_: ObjectId, path: str) -> Flaw:
        """The flaw that a file defines an object that another file holds."""
        flaw = repeated(self._entry(id_, path), shown(self._holders[id_]))
        if self._definers[id_][0] != path:
            return flaw
        after = "; after a restart this one would count, as the first in path order"
        return flaw._replace(message=flaw.message + after)

    def _standing_definers(self, id_: ObjectId) -> list[str]:
        """The files that define an object, in path order, without removed ones."""
        return [path for path in self._definers.get(id_, ()) if path not in self._gone]

    def _letting_go(self, path: str, contents: Contents, now: float) -> Iterator[None]:
        """Drop the definitions of a file that are not in `contents`, in steps."""
        self._reshuffled.add(path)
        before = self._contents.get(path, _NOTHING)
        for count, id_ in enumerate(before.entries):
            if id_ not in contents.entries:
                self._define_no_more(id_, path, now)
            if count % _STEP_OBJECTS == 0:
                yield
                if self._contents.get(path) is not before:
                    return

    def _define(self, id_: ObjectId, path: str) -> None:
        definers = self._definers.get(id_, ())
        if not definers:
            self._definers[id_] = self._alone.setdefault(path, (path,))
        elif path not in definers:
            place = bisect(definers, path)
            self._definers[id_] = (*definers[:place], path, *definers[place:])
        if self._holders.get(id_, path) != path:
            self._note_repeat(id_, path)

    def _define_no_more(self, id_: ObjectId, path: str, now: float) -> None:
        definers = self._definers.get(id_, ())
        if path not in definers:
            return  # Its definition had not been put yet.
        definers = tuple([other for other in definers if other != path])
        self._note_no_repeat(id_, path)
        if self._holders.get(id_) == path:
            del self._holders[id_]
            self._note_missing(Missing(id_, path, now, now))
            self._reshuffled.update(definers)
            for other in definers:
                self._note_no_repeat(id_, other)
        if definers:
            self._definers[id_] = definers
        else:
            del self._definers[id_]

    def _note_missing(self, missing: Missing) -> None:
        self._missing[missing.id] = missing
        heappush(self._longest, (missing.since, next(self._noted), missing))

    def _miss_no_more(self, id_: ObjectId) -> None:
        missing = self._missing.pop(id_, None)
        postponed = self._postponed.get(missing.path) if missing else None
        if missing and postponed:
            postponed.pop(id_, None)
            if not postponed:
                del self._postponed[missing.path]

    def _taken(self, id_: ObjectId, path: str) -> Iterator[Apply | Malformed]:
        """What to emit for an object that the file defines now."""
        if self.holder(id_) not in (None, path):
            return
        if id_ not in self._holders:
            self._hold(id_, path)
        yield from self._news(id_)

    def _hold(self, id_: ObjectId, path: str) -> None:
        self._holders[id_] = path
        self._miss_no_more(id_)
        definers = self._definers[id_]
        self._reshuffled.update(definers)
        for other in definers:
            if other == path:
                self._note_no_repeat(id_, path)
            else:
                self._note_repeat(id_, other)

    def _note_repeat(self, id_: ObjectId, path: str) -> None:
        self._repeats.setdefault(path, {})[id_] = None

    def _note_no_repeat(self, id_: ObjectId, path: str) -> None:
        repeats = self._repeats.get(path)
        if repeats is None:
            return
        repeats.pop(id_, None)
        if not repeats:
            del self._repeats[path]

    def _news(self, id_: ObjectId) -> Iterator[Apply | Malformed]:
        event = self._entry(id_, self._holders[id_]).event
        if self._emitted.get(id_) != event:
            self._emitted[id_] = event
            yield event

    def _entry(self, id_: ObjectId, path: str) -> Entry:
        return self._contents[path].entries[id_]
