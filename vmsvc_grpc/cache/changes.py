"""Recent changes of a collection, for readers that follow all of it and keep no entry for a name.

A log has the recent changes, by version. A reader owns a version and asks for the changes since; if
it is too far behind, it looks at all names. Pure: it knows names, versions and cells, but not what
is in a cell.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from itertools import chain, islice
from typing import Generic, NamedTuple, Protocol, TypeVar


class Cell(Protocol):
    """The newest state behind a name."""

    @property
    def version(self) -> int:
        """The version at which it last changed; all cells of a log share one counter."""

    @property
    def there(self) -> bool:
        """Whether the name is in the collection."""


_Name = TypeVar("_Name", bound=Hashable)
_Cell = TypeVar("_Cell", bound=Cell)

CHANGES_KEPT = 4096
"""The least number of changes that a full log remembers; the most is twice as many.

Each takes some 250 B. A reader further behind looks at every name instead: 10 ms for 20,000.
"""

READER_LOOKS_MAX = 256
"""How many names a reader looks at before others have their turn: some 100 µs."""


class NameChange(NamedTuple, Generic[_Name]):
    """One change of one name.

    `previous` is the version of the name's change before this one, 0 if the log knows of none.
    """

    version: int
    previous: int
    name: _Name
    was_there: bool
    is_there: bool


class _Stretch(Generic[_Name, _Cell]):
    """A stretch of a log: the names that were there when it began, and the changes since.

    A reader keeps the stretch of its position, even when the log has dropped it: it shows which
    names the reader has handed out, so names that came or went are kept still. All readers in a
    stretch share it.
    """

    __slots__ = ("_came_and_went", "_known", "before", "cells", "changes", "last", "names")

    def __init__(self, names: tuple[_Name, ...], before: _Stretch[_Name, _Cell] | None) -> None:
        """`before` is the stretch before it, which the log drops when the next one begins."""
        self.names = names
        self.before = before
        self.changes: list[NameChange[_Name]] = []
        self.last: dict[_Name, int] = {}
        self.cells: dict[_Name, _Cell] = {}
        self._known: tuple[int, frozenset[_Name]] | None = None
        # Once it is dropped: of its changes, those that are needed still, by number.
        self._came_and_went: dict[int, NameChange[_Name]] | None = None

    def drop(self) -> None:
        """The log has no use for it any more. O(changes)."""
        self._came_and_went = {
            number: change
            for number, change in enumerate(self.changes)
            if change.was_there is not change.is_there
        }
        self.before = None
        self.changes, self.last, self.cells = [], {}, {}

    def changes_from(self, first: int) -> Iterator[NameChange[_Name]]:
        """Its changes so far, from the one of that number on. O(these)."""
        return map(self.changes.__getitem__, range(first, len(self.changes)))

    def names_after(self, changes: int) -> frozenset[_Name]:
        """The names that were there after so many of its changes. Do not change it. O(names).

        All callers that ask for the same share one set.
        """
        if self._known is None or self._known[0] != changes:
            there = set(self.names)
            for change in self._first(changes):
                if change.is_there:
                    there.add(change.name)
                else:
                    there.discard(change.name)
            self._known = changes, frozenset(there)
        return self._known[1]

    def _first(self, changes: int) -> Iterator[NameChange[_Name]]:
        if self._came_and_went is None:
            return islice(self.changes, changes)
        return (change for number, change in self._came_and_went.items() if number < changes)


class _Position(NamedTuple, Generic[_Name, _Cell]):
    """Where a reader stands: before the change of this number in a stretch."""

    part: _Stretch[_Name, _Cell]
    change: int


class ChangeLog(Generic[_Name, _Cell]):
    """The recent changes of one collection: one log for all its readers.

    `version` is that of the newest change.
    """

    def __init__(
        self,
        version: int,
        names: Callable[[], tuple[_Name, ...]],
        cell: Callable[[_Name], _Cell],
        *,
        on_left: Callable[[], object] = lambda: None,
    ) -> None:
        """Begins at `version`, with no changes.

        `names` returns the names that are there now, in order, and `cell` the newest state of any
        name. `on_left` is called when the last reader has left.
        """
        self.version = version
        self.readers = 0
        self._names = names
        self._cell = cell
        self._on_left = on_left
        self._names_now: tuple[_Name, ...] | None = None
        self._part = _Stretch[_Name, _Cell](self.names(), None)
        # In order, so that waking is fair and repeatable.
        self._waiting: dict[Reader[_Name, _Cell], None] = {}

    def names(self) -> tuple[_Name, ...]:
        """The names that are there now, in order. Between changes it is one tuple for all."""
        if self._names_now is None:
            self._names_now = self._names()
        return self._names_now

    def record(self, name: _Name, cell: _Cell, *, was_there: bool) -> None:
        """Note that a name's cell has just changed; `was_there`: it was there before. O(wakes).

        Wakes each reader that waits; it is not woken again before it has asked for news.
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
        if len(part.changes) >= CHANGES_KEPT:
            if part.before is not None:
                part.before.drop()
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
        """The newest state of a name; all who ask share it while the log knows of its change."""
        before = self._part.before
        known = self._part.cells.get(name)
        if known is None and before is not None:
            known = before.cells.get(name)
        return known if known is not None else self._cell(name)

    # -- For its readers --

    def end(self) -> _Position[_Name, _Cell]:
        """The position of the next change."""
        return _Position(self._part, len(self._part.changes))

    def since(self, position: _Position[_Name, _Cell]) -> Iterator[NameChange[_Name]] | None:
        """The changes from a position until now; None if the log has dropped some of them."""
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
        """The reader has been closed."""
        self._waiting.pop(reader, None)
        self.readers -= 1
        if not self.readers:
            self._on_left()


class Due(NamedTuple, Generic[_Name, _Cell]):
    """A name that has changed since a reader last saw it.

    `since` is the version at which the reader last saw it, and `known` whether it was there then.
    For a name that the reader never saw they are 0 and False.
    """

    name: _Name
    cell: _Cell
    since: int
    known: bool


class _Ahead(NamedTuple):
    """A reader has handed out a name at this version, ahead of all others."""

    version: int
    there: bool


class Reader(Generic[_Name, _Cell]):
    """Follows a collection: it asks for changes, as fast as it likes.

    First it hands out all names, in order, then changes, in the order of time. It holds a version,
    and until it has caught up, the names that it has handed out ahead of that version: its
    exceptions. However much other names change, none waits for ever, as a run ends at the version
    at which it began.
    """

    __slots__ = ("_again", "_ahead", "_log", "_position", "_run", "_upto", "_version", "wake")

    def __init__(self, log: ChangeLog[_Name, _Cell], wake: Callable[[], None]) -> None:
        """`wake` is called once when the reader, having been up to date, no longer is.

        It must only take note, and not call back.
        """
        self.wake = wake
        self._log = log
        self._version = -1  # The version up to which it has handed out all names; none yet.
        self._position: _Position[_Name, _Cell] | None = None
        self._ahead: dict[_Name, _Ahead] = {}
        self._run: Iterator[Due[_Name, _Cell] | None] | None = None
        self._upto = -1  # What `_version` will be when the run under way ends.
        self._again = False
        log.readers += 1

    @property
    def answered(self) -> bool:
        """Whether it has handed out every name that was there when it began."""
        return self._version >= 0

    @property
    def behind(self) -> bool:
        """Whether `take` may return something. If not after a `take`, `wake` will be called."""
        return self._run is not None or self._again or self._version != self._log.version

    @property
    def running(self) -> bool:
        """Whether a run is under way: there is more to take, even if nothing changes."""
        return self._run is not None

    def has_sent(self, name: _Name) -> bool:
        """Whether it is known to have handed out a name as it is now."""
        ahead = self._ahead.get(name)
        return self._log.cell(name).version <= (ahead.version if ahead else self._version)

    def skip(self) -> None:
        """Note that all names were sent in another way. Before the first `take`."""
        assert self._position is None, "it is the first"
        self._position = self._log.end()
        self._version = self._log.version
        self._ahead.clear()  # All of these have been sent again by now.
        self._log.wait(self)

    def sent_ahead(self, name: _Name) -> None:
        """Note that a name that is there was sent in another way, as it is now."""
        version = self._log.cell(name).version
        if version > self._version:
            self._ahead[name] = _Ahead(version, there=True)

    def again(self) -> None:
        """Hand out all names once more after the current run, and those that are gone by then."""
        self._again = True

    def take(self) -> Due[_Name, _Cell] | None:
        """The next name that has changed; None at the end, or after READER_LOOKS_MAX others.

        The caller must send the newest state of the name before the next call.
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
        """A name that comes before all others, whether it is there or not.

        Call it once for each name, before the first `take`.
        """
        if self._run is None:
            self._run = self._next_run()
        due = Due(name, self._log.cell(name), 0, known=False)
        self._ahead[name] = _Ahead(self._log.version, due.cell.there)
        return due

    def close(self) -> None:
        """Release the log, and who is woken: who holds a reader, and is held by it, is a cycle."""
        self._log.leave(self)
        self._run = None
        self.wake = _nobody_waits

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
            since = ahead.version if ahead else self._version
            # The first change of a name since then stands for all later ones.
            if change.previous <= since < change.version:
                cell = self._log.cell(change.name)
                self._note_handed_out(change.name, cell)
                if cell.there or change.was_there:
                    yield Due(change.name, cell, since, change.was_there)
                    continue
            yield None
        self._run_ends()

    def _looking_at(
        self, names: tuple[_Name, ...], known: frozenset[_Name], *, again: bool = False
    ) -> Iterator[Due[_Name, _Cell] | None]:
        for name in names:
            cell = self._log.cell(name)
            since, was_there = self._ahead.get(name) or (self._version, name in known)
            self._note_handed_out(name, cell)
            if again or cell.version > since if cell.there else was_there:
                yield Due(name, cell, max(since, 0), was_there)
            else:
                yield None
        self._run_ends()

    def _note_handed_out(self, name: _Name, cell: _Cell) -> None:
        """Note that a name is handed out as it is now: an exception, if newer than the run."""
        version = cell.version if cell.there else self._log.version
        if version > self._upto:
            self._ahead[name] = _Ahead(version, cell.there)

    def _run_ends(self) -> None:
        self._version, self._run = self._upto, None
        if self._ahead:
            self._ahead = {n: ahead for n, ahead in self._ahead.items() if ahead[0] > self._version}


def _nobody_waits() -> None:
    """Wakes nobody, as the reader is closed."""
