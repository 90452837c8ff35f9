"""A log of changes, and those who read it: each is handed out exactly what changed for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vmsvc_grpc.cache import changes
from vmsvc_grpc.cache.changes import READER_LOOKS_MAX, ChangeLog, Due, Reader

NAMES = "abcdefg"
KEPT = 4


@dataclass
class Cell:
    version: int = 0
    there: bool = False


@pytest.fixture(autouse=True, scope="module")
def few_changes_are_kept() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes, "CHANGES_KEPT", KEPT)
        yield


class World:
    """A collection with its log, and the history of each name."""

    def __init__(self, there: str = "") -> None:
        self.version = 0
        self.cells: dict[str, Cell] = {}
        self.history: dict[str, list[tuple[int, bool]]] = {}
        for name in there:
            self.put(name)
        self.log = ChangeLog(self.version, self.names, self.cell)

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(name for name, cell in self.cells.items() if cell.there))

    def cell(self, name: str) -> Cell:
        return self.cells.get(name) or Cell(self.version)

    def put(self, name: str, *, there: bool = True) -> None:
        """The name is there, and has changed; or it is not."""
        before = self.cells.get(name)
        was_there = before is not None and before.there
        if not (there or was_there):
            return
        self.version += 1
        if not was_there:
            self.cells[name] = Cell()  # As a topic may be another one of the same name.
        cell = self.cells[name]
        cell.version, cell.there = self.version, there
        self.history.setdefault(name, []).append((self.version, there))
        if hasattr(self, "log"):
            self.log.record(name, cell, was_there=was_there)
        if not there:
            del self.cells[name]

    def at(self, name: str, version: int) -> tuple[int, bool]:
        """When the name had last changed at that version, and whether it was there."""
        past = [change for change in self.history.get(name, []) if change[0] <= version]
        return past[-1] if past else (0, False)


@dataclass(eq=False)
class Client:
    """A reader, and what it was told: of each name that it knows is there, the version."""

    world: World
    held: dict[str, int] = field(default_factory=dict)
    wakes: int = 0
    told: int = 0
    again: set[str] | None = None
    """What is still to be handed out once more; None if it has not been asked for."""

    def __post_init__(self) -> None:
        self.reader = Reader(self.world.log, self.wake)

    def wake(self) -> None:
        self.wakes += 1

    def take(self) -> Due[str, Cell] | None:
        due = self.reader.take()
        if due is not None:
            assert due.cell.there or due.known, "what it never knew is not told to be gone"
            self.tell(due)
        return due

    def tell(self, due: Due[str, Cell]) -> None:
        self.told += 1
        assert due.known == (due.name in self.held)
        if due.known:
            assert self.world.at(due.name, due.since) == (self.held[due.name], True)
        if due.cell.there:
            once = due.cell.version > self.held.get(due.name, 0)
            assert once or self.again is not None, "told once"
            self.held[due.name] = due.cell.version
        else:
            self.held.pop(due.name, None)
        if self.again is not None:
            self.again.discard(due.name)

    def catch_up(self) -> None:
        while self.take() is not None or self.reader.behind:
            pass
        assert not self.again
        self.again = None

    def ask_again(self) -> None:
        self.again = set(self.held)
        self.reader.again()


class Reading(RuleBasedStateMachine):
    """Names come, change and go; clients read as much as they like."""

    @initialize(there=st.sets(st.sampled_from(NAMES)))
    def begin(self, there: set[str]) -> None:
        self.world = World("".join(sorted(there)))
        self.clients: list[Client] = []

    @property
    def new(self) -> list[Client]:
        """Those that have not read anything yet."""
        return [c for c in self.clients if c.reader._position is None]

    @rule(changes=st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), max_size=12))
    def change(self, changes: list[tuple[str, bool]]) -> None:
        for name, there in changes:
            self.world.put(name, there=there)

    @rule(first=st.lists(st.sampled_from(NAMES), unique=True, max_size=3))
    def join(self, first: list[str]) -> None:
        client = Client(self.world)
        for name in first:
            client.tell(client.reader.take_first(name))
        self.clients.append(client)

    @rule(data=st.data())
    @precondition(lambda self: self.new)
    def skip(self, data: st.DataObject) -> None:
        """What there is, is told by other means, whatever was told ahead of it."""
        client = data.draw(st.sampled_from(self.new))
        client.reader.skip()
        client.held = {name: cell.version for name, cell in self.world.cells.items()}
        if client.again is not None:
            client.again = set(client.held)

    @rule(data=st.data(), name=st.sampled_from(NAMES))
    @precondition(lambda self: self.clients)
    def tell_ahead(self, data: st.DataObject, name: str) -> None:
        client = data.draw(st.sampled_from(self.clients))
        if (cell := self.world.cell(name)).there:
            client.held[name] = cell.version
            client.reader.sent_ahead(name)

    @rule(data=st.data())
    @precondition(lambda self: self.clients)
    def ask_again(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.clients)).ask_again()

    @rule(data=st.data(), takes=st.integers(1, 4))
    @precondition(lambda self: self.clients)
    def read(self, data: st.DataObject, takes: int) -> None:
        client = data.draw(st.sampled_from(self.clients))
        for _ in range(takes):
            client.take()

    @rule(data=st.data())
    @precondition(lambda self: self.clients)
    def leave(self, data: st.DataObject) -> None:
        self.clients.remove(client := data.draw(st.sampled_from(self.clients)))
        client.reader.close()

    @rule()
    def everybody_catches_up(self) -> None:
        for client in self.clients:
            client.catch_up()
            assert client.held == {
                name: cell.version for name, cell in self.world.cells.items() if cell.there
            }
            assert client.reader.answered
            assert not client.reader._ahead, "one version is all that is left"
            client.wakes = 0
        self.world.put("a")
        self.world.put("b")
        assert [client.wakes for client in self.clients] == [1] * len(self.clients)

    @invariant()
    def what_a_reader_says_it_was_told_it_was(self) -> None:
        for client in self.clients:
            for name in NAMES:
                cell = self.world.cell(name)
                if client.reader.has_sent(name):
                    assert client.held.get(name) == (cell.version if cell.there else None)

    @invariant()
    def the_log_is_bounded(self) -> None:
        part = self.world.log._part
        assert len(part.changes) < KEPT
        assert part.before is None or (len(part.before.changes), part.before.before) == (KEPT, None)

    def teardown(self) -> None:
        for client in self.clients:
            client.reader.close()
        assert not self.world.log.readers
        assert not self.world.log._waiting


TestReading = Reading.TestCase
TestReading.settings = settings(max_examples=300, stateful_step_count=25, deadline=None)


def test_a_change_marks_a_reader_once_however_many_follow_it() -> None:
    world = World("ab")
    clients = [Client(world) for _ in range(100)]
    for client in clients:
        client.catch_up()
    for _ in range(1000):
        world.put("a")
    assert {client.wakes for client in clients} == {1}


def test_what_was_sent_ahead_of_a_skip_went_before_it_and_comes_back_is_told() -> None:
    world = World("ab")
    client = Client(world)
    client.reader.sent_ahead("a")
    world.put("a", there=False)
    client.reader.skip()
    client.held = {"b": world.cell("b").version}
    assert not client.reader._ahead
    world.put("a")
    client.catch_up()
    assert sorted(client.held) == ["a", "b"]


def test_what_changes_all_the_time_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "CHANGES_KEPT", 1000)
    world = World("ab")
    client = Client(world)
    client.catch_up()
    world.put("a")
    world.put("b")
    seen = []
    for _ in range(4):
        due = client.take() or client.take()
        assert due is not None
        seen.append(due.name)
        world.put("a")
    assert seen == ["a", "b", "a", "a"]


@pytest.mark.parametrize("behind", [1, KEPT, 3 * KEPT], ids=["a little", "a part", "too far"])
def test_to_look_at_names_that_have_not_changed_is_done_in_slices(behind: int) -> None:
    names = [chr(0x4E00 + number) for number in range(5 * READER_LOOKS_MAX)]
    world = World("".join(names))
    client = Client(world)
    client.catch_up()
    told, client.told = client.told, 0
    assert told == len(names)
    for _ in range(behind):
        world.put(names[-1])
    takes = 0
    while client.take() is not None or client.reader.behind:
        takes += 1
    assert client.told == 1
    assert takes <= (len(names) // READER_LOOKS_MAX + 2 if behind > 2 * KEPT else 2)


def test_readers_at_one_place_share_what_they_knew() -> None:
    world = World("abc")
    clients = [Client(world) for _ in range(10)]
    for client in clients:
        client.catch_up()
    position = clients[0].reader._position
    assert position is not None
    for _ in range(3 * KEPT):
        world.put("b")
    world.put("a", there=False)
    assert all(
        c.reader._position is not None and c.reader._position.part is position.part for c in clients
    )
    for client in clients:
        client.catch_up()
        assert sorted(client.held) == ["b", "c"]
        assert client.told == 3 + 2


@pytest.mark.parametrize("comes_and_goes", [False, True], ids=["changes", "comes and goes"])
def test_a_reader_that_stands_still_keeps_what_came_and_went_alone(
    comes_and_goes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wildcard stream of an Envoy that had stopped acknowledging kept about 1 MB."""
    monkeypatch.setattr(changes, "CHANGES_KEPT", 100)
    world = World("abc")
    client = Client(world)
    client.catch_up()
    for _ in range(1_000):
        world.put("a")
    if comes_and_goes:
        world.put("b", there=False)
        world.put("d")
    still = Client(world)
    still.catch_up()
    for number in range(300):
        world.put("c", there=not (comes_and_goes and number % 2))
    assert still.reader._position is not None
    part = still.reader._position.part
    assert not any((part.changes, part.last, part.cells, part.before))
    assert len(part._came_and_went or ()) <= (102 if comes_and_goes else 0)
    for reader in (client, still):
        reader.catch_up()
        assert sorted(reader.held) == list(world.names())
