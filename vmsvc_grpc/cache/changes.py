"""What has changed in a collection, for those who follow all of it and hold no entry a name.

A log has the changes of late, by version. A reader owns a version and asks what has changed
since; one that is too far behind looks at all names. Pure: it knows names, versions and
cells, and nothing of what is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from itertools import chain, islice
from typing import Generic, NamedTuple, Protocol, TypeVar


class Cell(Protocol):
    """The newest state of what a name stands for."""

    @property
    def version(self) -> int:
        """When it last changed, by a counter that all cells of a log share."""

    @property
    def there(self) -> bool:
        """Whether the name is one of the collection."""


_Name = TypeVar("_Name", bound=Hashable)
_Cell = TypeVar("_Cell", bound=Cell)

CHANGES_KEPT = 4096
"""How many changes a log knows of at least, once there were as many; at most it is twice that.

Each takes some 250 B. A reader further behind looks at every name instead: 10 ms for 20,000.
"""

READER_LOOKS_MAX = 256
"""How many names a reader looks at before others have their turn: some 100 µs."""


class NameChange(NamedTuple, Generic[_Name]):
    """One change of one name.

    `previous` is the version of the change of that name before it, 0 if the log knows of none.
    """

    version: int
    previous: int
    name: _Name
    was_there: bool
    is_there: bool


class _Stretch(Generic[_Name, _Cell]):
    """A stretch of a log: the names that were there when it began, and the changes since.

    A reader keeps the part that it stands in, which knows what the reader was told even when
    the log has let go of it. All who stand there share it.
    """

    __slots__ = ("_known", "before", "cells", "changes", "last", "names")

    def __init__(self, names: tuple[_Name, ...], before: _Stretch[_Name, _Cell] | None) -> None:
        """`before` is the part before it, of which the log lets go when the next begins."""
        self.names = names
        self.before = before
        self.changes: list[NameChange[_Name]] = []
        self.last: dict[_Name, int] = {}
        self.cells: dict[_Name, _Cell] = {}
        self._known: tuple[int, frozenset[_Name]] | None = None

    def changes_from(self, first: int) -> Iterator[NameChange[_Name]]:
        """Its changes so far, from that number on. O(those)."""
        return map(self.changes.__getitem__, range(first, len(self.changes)))

    def names_after(self, changes: int) -> frozenset[_Name]:
        """The names that were there after so many of its changes. Read it only. O(names).

        One set for all who ask for the same.
        """
        if self._known is None or self._known[0] != changes:
            there = set(self.names)
            for change in self.changes[:changes]:
                if change.is_there:
                    there.add(change.name)
                else:
                    there.discard(change.name)
            self._known = changes, frozenset(there)
        return self._known[1]


class _Position(NamedTuple, Generic[_Name, _Cell]):
    """Where a reader stands: before the change of this number of a part."""

    part: _Stretch[_Name, _Cell]
    change: int


class ChangeLog(Generic[_Name, _Cell]):
    """The changes of late of one collection: one log for all who follow it.

    `version` is that of the newest change.
    """

    def __init__(
        self,
        version: int,
        names: Callable[[], tuple[_Name, ...]],
        cell: Callable[[_Name], _Cell],
        *,
        changes_kept: int = CHANGES_KEPT,
        on_left: Callable[[], object] = lambda: None,
    ) -> None:
        """Begins at `version`, with no changes.

        `names` gives those that are there now, in order, and `cell` the newest state of one,
        also of one that is not there. `on_left` is called when the last reader has left.
        """
        self.version = version
        self.readers = 0
        self._names = names
        self._cell = cell
        self._changes_kept = changes_kept
        self._on_left = on_left
        self._names_now: tuple[_Name, ...] | None = None
        self._part = _Stretch[_Name, _Cell](self.names(), None)
        # In order, so that waking is fair and repeatable.
        self._waiting: dict[Reader[_Name, _Cell], None] = {}

    def names(self) -> tuple[_Name, ...]:
        """Those that are there now, in order; one tuple for all who ask between changes."""
        if self._names_now is None:
            self._names_now = self._names()
        return self._names_now

    def record(self, name: _Name, cell: _Cell, *, was_there: bool) -> None:
        """A name's cell has changed just now; it `was_there` until then. O(1), and the wakes.

        Wakes each reader that waits, and none again before it has asked for what there is.
        """
        assert cell.version > self.version, "versions of a log only rise"
        self.version = cell.version
        if was_there is not cell.there:
            self._names_now = None
        part = self._part
        change = NameChange(cell.version, self._last(name), name, was_there, cell.there)
        part.changes.append(change)
        part.last[name] = cell.version
        part.cells[name] = cell
        if len(part.changes) >= self._changes_kept:
            part.before = None
            self._part = _Stretch(self.names(), part)
        self.wake()

    def wake(self) -> None:
        """Wake each reader that waits."""
        waiting, self._waiting = self._waiting, {}
        for reader in waiting:
            reader.wake()

    def _last(self, name: _Name) -> int:
        before = self._part.before
        return self._part.last.get(name) or (before.last.get(name, 0) if before else 0)

    def cell(self, name: _Name) -> _Cell:
        """The newest state of a name: one for all who ask, while the log knows of its change."""
        before = self._part.before
        known = self._part.cells.get(name)
        if known is None and before is not None:
            known = before.cells.get(name)
        return known if known is not None else self._cell(name)

    # -- For its readers --

    def end(self) -> _Position[_Name, _Cell]:
        """Where the next change will be."""
        return _Position(self._part, len(self._part.changes))

    def since(self, position: _Position[_Name, _Cell]) -> Iterator[NameChange[_Name]] | None:
        """The changes from a position to now; None if the log has let go of some."""
        part, first = position
        if part is self._part:
            return part.changes_from(first)
        if part is self._part.before:
            return chain(part.changes_from(first), self._part.changes_from(0))
        return None

    def wait(self, reader: Reader[_Name, _Cell]) -> None:
        """Wake the reader, once, at the next change."""
        self._waiting[reader] = None

    def leave(self, reader: Reader[_Name, _Cell]) -> None:
        """The reader is none any more."""
        self._waiting.pop(reader, None)
        self.readers -= 1
        if not self.readers:
            self._on_left()


class Due(NamedTuple, Generic[_Name, _Cell]):
    """A name that has changed for a reader. Told as it is now, the reader is up to date with it.

    `since` is the version as of which the reader was told of it before, and `known` whether it
    was there then: 0 and False for one that the reader was never told of.
    """

    name: _Name
    cell: _Cell
    since: int
    known: bool


class _Ahead(NamedTuple):
    """A reader was told of a name as of this version, which is ahead of all others."""

    version: int
    there: bool


class Reader(Generic[_Name, _Cell]):
    """Who follows a collection: it asks for what has changed, as fast as it likes.

    First come all names, in order, then what changes, in the order of time. It holds a version,
    and, until it has caught up, those that it was told of ahead: its exceptions. However much
    others change, no name waits for ever: a run ends at the version at which it began.
    """

    __slots__ = ("_again", "_ahead", "_log", "_position", "_run", "_told", "_upto", "wake")

    def __init__(self, log: ChangeLog[_Name, _Cell], wake: Callable[[], None]) -> None:
        """`wake` is called, once, when there is something new to one that was up to date.

        It must only take note, and not call back.
        """
        self.wake = wake
        self._log = log
        self._told = -1  # The version as of which it was told of all names; none yet.
        self._position: _Position[_Name, _Cell] | None = None
        self._ahead: dict[_Name, _Ahead] = {}
        self._run: Iterator[Due[_Name, _Cell] | None] | None = None
        self._upto = -1  # What `_told` will be when the run under way ends.
        self._again = False
        log.readers += 1

    @property
    def answered(self) -> bool:
        """Whether it was handed out all names that were there when it began."""
        return self._told >= 0

    @property
    def behind(self) -> bool:
        """Whether there may be something to take; if not after a `take`, it will be woken."""
        return self._run is not None or self._again or self._told != self._log.version

    @property
    def running(self) -> bool:
        """Whether it is in a run: there is more to take, however long nothing changes."""
        return self._run is not None

    @property
    def exceptions(self) -> int:
        """Of how many names it keeps the version as of which it was told of them."""
        return len(self._ahead)

    def has_told(self, name: _Name) -> bool:
        """Whether it is sure to have been told of a name as it is now."""
        ahead = self._ahead.get(name)
        return self._log.cell(name).version <= (ahead.version if ahead else self._told)

    def skip(self) -> None:
        """It is told of all that there is now, by other means. Before the first `take`."""
        assert self._position is None, "it is the first"
        self._position = self._log.end()
        self._told = self._log.version
        self._log.wait(self)

    def told_ahead(self, name: _Name) -> None:
        """It was told of a name that is there, as it is now, by other means."""
        version = self._log.cell(name).version
        if version > self._told:
            self._ahead[name] = _Ahead(version, there=True)

    def again(self) -> None:
        """Hand out all names once more, after the run that is under way, and those that went."""
        self._again = True

    def take(self) -> Due[_Name, _Cell] | None:
        """The next name that is new to it; None at the end, or after READER_LOOKS_MAX that are not.

        What it hands out must be told, as it is now, before the next call.
        """
        if self._run is None and self.behind:
            self._run = self._next_run()
        if self._run is not None:
            for due in islice(self._run, READER_LOOKS_MAX):
                if due is not None:
                    return due
        if not self.behind:
            self._log.wait(self)
        return None

    def take_first(self, name: _Name) -> Due[_Name, _Cell]:
        """A name that is to be told of before all others, be it there or not.

        Each once, and before the first `take`.
        """
        if self._run is None:
            self._run = self._next_run()
        due = Due(name, self._log.cell(name), 0, known=False)
        self._ahead[name] = _Ahead(self._log.version, due.cell.there)
        return due

    def close(self) -> None:
        """Let go of the log."""
        self._log.leave(self)
        self._run = None

    def _next_run(self) -> Iterator[Due[_Name, _Cell] | None]:
        position, self._position = self._position, self._log.end()
        self._upto = self._log.version
        again, self._again = self._again, False
        known: frozenset[_Name] = frozenset()
        if position is not None:
            if not again and (changes := self._log.since(position)) is not None:
                return self._going_over(changes)
            known = position.part.names_after(position.change)
        names = self._log.names()
        if gone := known.union(self._ahead).difference(names):
            names = (*names, *gone)
        return self._looking_at(names, known, again=again)

    def _going_over(
        self, changes: Iterator[NameChange[_Name]]
    ) -> Iterator[Due[_Name, _Cell] | None]:
        for change in changes:
            ahead = self._ahead.get(change.name)
            told = ahead.version if ahead else self._told
            # The first of a name's changes that it was not told of stands for all of them.
            if change.previous <= told < change.version:
                cell = self._log.cell(change.name)
                self._note_handed_out(change.name, cell)
                if cell.there or change.was_there:
                    yield Due(change.name, cell, told, change.was_there)
                    continue
            yield None
        self._run_ends()

    def _looking_at(
        self, names: tuple[_Name, ...], known: frozenset[_Name], *, again: bool = False
    ) -> Iterator[Due[_Name, _Cell] | None]:
        for name in names:
            cell = self._log.cell(name)
            told, was_there = self._ahead.get(name) or (self._told, name in known)
            self._note_handed_out(name, cell)
            if again or cell.version > told if cell.there else was_there:
                yield Due(name, cell, max(told, 0), was_there)
            else:
                yield None
        self._run_ends()

    def _note_handed_out(self, name: _Name, cell: _Cell) -> None:
        """It is told of a name as it is now: an exception, if that is later than the run's end."""
        version = cell.version if cell.there else self._log.version
        if version > self._upto:
            self._ahead[name] = _Ahead(version, cell.there)

    def _run_ends(self) -> None:
        self._told, self._run = self._upto, None
        if self._ahead:
            self._ahead = {n: ahead for n, ahead in self._ahead.items() if ahead[0] > self._told}
