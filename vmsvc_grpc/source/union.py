"""What the files of a directory say together, and what is still to be told of it.

Pure. An object that several files define is the one of the file that is first in path
order. Told is only what differs from what was told before.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vmsvc_grpc.model.events import Apply, Delete, Malformed
from vmsvc_grpc.source.manifests import Contents, Entry, Flaw, ObjectId, repeated

_NOTHING = Contents()


class Missing(NamedTuple):
    """An object that no file defines any more, but that nobody was told is gone."""

    id: ObjectId
    path: str
    """The file that was the last to define it."""
    since: float


class Union:
    """Contents by file, and the objects that follow from them.

    Not every step leaves things told as they are: objects that a file defines no more
    are loose until `tie` gives them to another file or declares them missing.
    """

    def __init__(self) -> None:
        self._contents: dict[str, Contents] = {}
        self._definers: dict[ObjectId, list[str]] = {}
        self._told: dict[ObjectId, Apply | Malformed] = {}
        self._loose: dict[ObjectId, str] = {}
        self._missing: dict[ObjectId, Missing] = {}
        self._reshuffled: set[str] = set()

    @property
    def ignored(self) -> int:
        """How many objects of other kinds the files hold. O(files)."""
        return sum(contents.ignored for contents in self._contents.values())

    @property
    def missing(self) -> Iterable[Missing]:
        """Objects to delete unless a file defines them again, each with its time."""
        return tuple(self._missing.values())

    def contents(self, path: str) -> Contents:
        """What a file says, as far as is known."""
        return self._contents.get(path, _NOTHING)

    def put(self, path: str, contents: Contents) -> list[Apply | Malformed]:
        """A file says this now; what to tell of the objects it defines."""
        self._replace(path, contents)
        return [event for id_ in contents.entries for event in self._news(id_)]

    def drop(self, path: str) -> None:
        """The file is gone."""
        self._replace(path, None)

    def tie(self, now: float) -> list[Apply | Malformed]:
        """Give loose objects to the files that define them now; what to tell of them."""
        events: list[Apply | Malformed] = []
        for id_, path in self._loose.items():
            if id_ in self._definers:
                events += self._news(id_)
            elif id_ in self._told and id_ not in self._missing:
                self._missing[id_] = Missing(id_, path, now)
        self._loose.clear()
        return events

    def delete(self, missing: Missing) -> Delete:
        """Nobody defines the object any more, and that is to be told."""
        del self._missing[missing.id]
        del self._told[missing.id]
        return Delete(*missing.id)

    def postpone(self, missing: Missing, now: float) -> None:
        """The object is missing since `now` only."""
        self._missing[missing.id] = missing._replace(since=now)

    def reshuffled(self) -> set[str]:
        """Files whose `repeats` may have changed since this was last asked."""
        paths, self._reshuffled = self._reshuffled, set()
        return paths

    def repeats(self, path: str) -> list[Flaw]:
        """The flaw of each object of the file that a file before it defines already."""
        return [
            repeated(entry, first)
            for entry in self.contents(path).entries.values()
            if (first := self._definers[entry.id][0]) != path
        ]

    def _replace(self, path: str, contents: Contents | None) -> None:
        before = self._contents.pop(path, _NOTHING).entries
        after = contents.entries if contents else _NOTHING.entries
        if contents is not None:
            self._contents[path] = contents
        self._reshuffled.add(path)
        for id_ in (id_ for id_ in before if id_ not in after):
            definers = self._definers[id_]
            self._reshuffled.update(definers)
            definers.remove(path)
            if not definers:
                del self._definers[id_]
            self._loose[id_] = path
        for id_ in (id_ for id_ in after if id_ not in before):
            definers = self._definers.setdefault(id_, [])
            insort(definers, path)
            self._reshuffled.update(definers)

    def _news(self, id_: ObjectId) -> Iterator[Apply | Malformed]:
        event = self._entry(id_).event
        self._missing.pop(id_, None)
        if self._told.get(id_) != event:
            self._told[id_] = event
            yield event

    def _entry(self, id_: ObjectId) -> Entry:
        return self._contents[self._definers[id_][0]].entries[id_]
