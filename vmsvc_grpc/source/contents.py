"""The objects that a text defines, and what it holds besides. Values."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from vmsvc_grpc.model.events import Apply, Malformed
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.model.problem import Problem

# How many things that take a few microseconds each are done in a step.
_STEP_TRIFLES = 50

ObjectId = tuple[Kind, Key]
"""Identifies an object. If several files define it, the first counts."""


class Entry(NamedTuple):
    """An object of a text: its place, and the event to emit for it."""

    id: ObjectId
    place: str
    event: Apply | Malformed


class Flaw(NamedTuple):
    """A problem in a text that parses, and its place."""

    place: str
    message: str


@dataclass(frozen=True, slots=True)
class Contents:
    """The objects that a text defines, in its order, and what it holds besides.

    `flaws` are the first PROBLEMS_MAX, `more_flaws` counts the others. `ignored` counts objects of
    unwanted kinds.
    """

    entries: dict[ObjectId, Entry] = field(default_factory=dict)
    flaws: tuple[Flaw, ...] = ()
    more_flaws: int = 0
    ignored: int = 0

    @property
    def empty(self) -> bool:
        """Whether no object of any kind could be read in it."""
        return not self.entries and not self.ignored

    def placed(
        self, path: str, place_of: Callable[[Kind, Key], str]
    ) -> Generator[None, None, Contents]:
        """Without the objects that belong in files other than `path`: ignored. In steps."""
        entries = dict[ObjectId, Entry]()
        for count, (id_, entry) in enumerate(self.entries.items()):
            if place_of(*id_) == path:
                entries[id_] = entry
            if count % _STEP_TRIFLES == 0:
                yield
        ignored = self.ignored + len(self.entries) - len(entries)
        return replace(self, entries=entries, ignored=ignored)

    def malformed(self, message: str) -> Generator[None, None, Contents]:
        """The same objects, as malformed: a newer text cannot be read. In steps."""
        problem = Problem("(file)", message)
        entries = dict[ObjectId, Entry]()
        for count, (id_, entry) in enumerate(self.entries.items()):
            entries[id_] = entry._replace(event=Malformed(*id_, problem))
            if count % _STEP_TRIFLES == 0:
                yield
        return Contents(entries)

    def draining(self) -> Iterator[None]:
        """Let go of the entries in steps, once nobody holds these contents any more.

        To let go of 90,000 at once takes Python 36 ms, in which no other thread runs either.
        """
        while self.entries:
            for _ in range(min(_STEP_TRIFLES, len(self.entries))):
                self.entries.popitem()
            yield


def repeated(entry: Entry, first: str) -> Flaw:
    """The flaw that an object is defined already, at the place `first`."""
    kind, key = entry.id
    flaw = f"{kind.value} {key} is defined in {first} already, which counts; remove one of them"
    return Flaw(entry.place, flaw)
