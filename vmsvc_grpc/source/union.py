"""What the files of a directory say together, and which events follow from it.

Pure. An object that several files define is the one of its holder: the file that defined
it first, or the first in path order where they were all read at once, as at the start. It
goes on holding the object for as long as it defines it, so that a copy that appears
beside it changes nothing. Only what differs from the last event is emitted.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vmsvc_grpc.model.events import Apply, Delete, Malformed
from vmsvc_grpc.source.manifests import Contents, Entry, Flaw, ObjectId, repeated

_NOTHING = Contents()

# About 0.2 ms of work.
_STEP_OBJECTS = 100


class Missing(NamedTuple):
    """An object that its holder defines no more. Nothing was emitted of that yet."""

    id: ObjectId
    path: str
    """The file that held it."""
    since: float


class Union:
    """Contents by file, and the objects that follow from them.

    Not every step leaves each object with a holder: what a file defines no more is loose
    until `tie` declares it missing. It stays as it was last emitted until its file defines
    it again, or until `settle` gives it to another file or deletes it.
    """

    def __init__(self) -> None:
        self._contents: dict[str, Contents] = {}
        # In path order.
        self._definers: dict[ObjectId, list[str]] = {}
        self._holders: dict[ObjectId, str] = {}
        self._emitted: dict[ObjectId, Apply | Malformed] = {}
        self._loose: dict[ObjectId, str] = {}
        self._missing: dict[ObjectId, Missing] = {}
        self._reshuffled: set[str] = set()

    @property
    def ignored(self) -> int:
        """How many objects of other kinds the files hold. O(files)."""
        return sum(contents.ignored for contents in self._contents.values())

    @property
    def missing(self) -> Iterable[Missing]:
        """Objects without a holder, each with its time."""
        return tuple(self._missing.values())

    def __contains__(self, missing: Missing) -> bool:
        """Whether the object still lacks a holder, since then."""
        return self._missing.get(missing.id) == missing

    def contents(self, path: str) -> Contents:
        """What a file says, as far as is known."""
        return self._contents.get(path, _NOTHING)

    def put(self, path: str, contents: Contents) -> list[Apply | Malformed]:
        """A file says this now; what to emit of the objects it holds."""
        return [event for event in self.putting(path, contents) if event is not None]

    def putting(self, path: str, contents: Contents) -> Iterator[Apply | Malformed | None]:
        """`put` in steps, with a None now and then, so that others have their turn.

        Should the file be put or dropped again in between, the rest is left to that.
        """
        before = self.contents(path)
        yield from self._letting_go(path, contents)
        if self.contents(path) is not before:
            return
        self._contents[path] = contents
        for count, id_ in enumerate(contents.entries):
            if self._contents.get(path) is not contents:
                return
            definers = self._definers.setdefault(id_, [])
            if path not in definers:
                insort(definers, path)
            yield from self._taken(id_, path)
            if count % _STEP_OBJECTS == 0:
                yield None

    def drop(self, path: str) -> None:
        """The file is gone."""
        for _ in self._letting_go(path, _NOTHING):
            pass
        self._contents.pop(path, None)

    def tie(self, now: float) -> None:
        """Declare missing what is loose."""
        for id_, path in self._loose.items():
            if id_ not in self._holders:
                self._missing[id_] = Missing(id_, path, now)
        self._loose.clear()

    def settle(self, missing: Missing) -> list[Apply | Malformed | Delete]:
        """Its holder has let go for good; what to emit of the object.

        The next holder is a file that says what was last emitted, as one that was renamed
        does; else the first in path order.
        """
        id_ = missing.id
        del self._missing[id_]
        definers = self._definers.get(id_, [])
        if not definers:
            del self._emitted[id_]
            return [Delete(*id_)]
        same = (path for path in definers if self._entry(id_, path).event == self._emitted[id_])
        self._hold(id_, next(same, definers[0]))
        return list(self._news(id_))

    def postpone(self, missing: Missing, now: float) -> None:
        """The object is missing since `now` only."""
        self._missing[missing.id] = missing._replace(since=now)

    def reshuffled(self) -> set[str]:
        """Files whose `repeats` may have changed since this was last asked."""
        paths, self._reshuffled = self._reshuffled, set()
        return paths

    def stands(self, event: Apply | Malformed) -> bool:
        """Whether this is still what was last emitted, or to emit, of its object."""
        match event:
            case Apply(object_):
                return self._emitted.get((object_.kind, object_.key)) is event
            case Malformed(kind, key):
                return self._emitted.get((kind, key)) is event

    def repeats(self, path: str) -> list[ObjectId]:
        """The objects of the file that another file holds. O(objects of the file)."""
        return [id_ for id_ in self.contents(path).entries if self._holders.get(id_, path) != path]

    def losers(self, id_: ObjectId) -> list[str]:
        """The files that define an object which another one holds, in path order."""
        holder = self._holders.get(id_)
        return [path for path in self._definers.get(id_, ()) if holder not in (None, path)]

    def repeat(self, id_: ObjectId, path: str) -> Flaw:
        """The flaw of defining an object that another file holds."""
        flaw = repeated(self._entry(id_, path), self._holders[id_])
        if self._definers[id_][0] != path:
            return flaw
        after = "; after a restart this one would count, as the first in path order"
        return flaw._replace(message=flaw.message + after)

    def _letting_go(self, path: str, contents: Contents) -> Iterator[None]:
        """What the file defined, and does not in `contents`, it defines no more; in steps."""
        self._reshuffled.add(path)
        before = self.contents(path)
        for count, id_ in enumerate(before.entries):
            if self.contents(path) is not before:
                return
            definers = self._definers.get(id_, [])
            # It may not have been put as far as that.
            if id_ not in contents.entries and path in definers:
                definers.remove(path)
                if not definers:
                    del self._definers[id_]
                if self._holders.get(id_) == path:
                    del self._holders[id_]
                    self._loose[id_] = path
                    self._reshuffled.update(definers)
            if count % _STEP_OBJECTS == 0:
                yield

    def _taken(self, id_: ObjectId, path: str) -> Iterator[Apply | Malformed]:
        """What to emit of an object that the file defines now."""
        holder = self._holders.get(id_) or self._let_go_by(id_) or path
        if holder != path:
            return
        if id_ not in self._holders:
            self._hold(id_, path)
        yield from self._news(id_)

    def _let_go_by(self, id_: ObjectId) -> str | None:
        missing = self._missing.get(id_)
        return missing.path if missing else self._loose.get(id_)

    def _hold(self, id_: ObjectId, path: str) -> None:
        self._holders[id_] = path
        self._missing.pop(id_, None)
        self._reshuffled.update(self._definers[id_])

    def _news(self, id_: ObjectId) -> Iterator[Apply | Malformed]:
        event = self._entry(id_, self._holders[id_]).event
        if self._emitted.get(id_) != event:
            self._emitted[id_] = event
            yield event

    def _entry(self, id_: ObjectId, path: str) -> Entry:
        return self._contents[path].entries[id_]
