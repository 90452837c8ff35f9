"""When a file that looks other than before may be taken."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vmsvc_grpc.source.settling import Settling, Unsettled
from vmsvc_grpc.source.tree import Signature

SETTLE_S, OPEN_S, LARGE = 2.0, 10.0, 1_000


def settling() -> Settling:
    return Settling(settle_s=SETTLE_S, open_settle_s=OPEN_S, large_bytes=LARGE)


def file(since: float, *, size: int = 1, whole: bool | None = None) -> Unsettled:
    return Unsettled(Signature(1, 1, size, 1, 1), since, whole)


def due(files: Settling, now: float) -> list[str]:
    for _ in files.ripen(now):
        pass
    return files.due()


def test_a_whole_file_is_due_at_once_and_another_once_it_has_settled() -> None:
    files = settling()
    files.put("b", file(0.0, whole=True))
    files.put("a", file(1.0))
    assert files.next_at(large=True) == -math.inf
    assert due(files, 1.0) == ["b"]
    files.remove("b")
    assert files.next_at(large=True) == 1.0 + SETTLE_S
    assert due(files, 1.0 + SETTLE_S) == ["a"]


def test_a_file_that_is_open_waits_for_longer_and_one_that_is_closed_does_not() -> None:
    files = settling()
    files.opened("a")
    files.put("a", file(0.0))
    assert due(files, SETTLE_S) == []
    assert files.next_at(large=True) == OPEN_S
    files.closed("a")
    assert due(files, SETTLE_S) == ["a"]
    files.opened("a")
    assert due(files, SETTLE_S) == []
    files.all_closed()
    assert due(files, SETTLE_S) == ["a"]


def test_a_file_that_changes_once_it_is_due_waits_again() -> None:
    files = settling()
    files.put("a", file(0.0))
    assert due(files, SETTLE_S) == ["a"]
    files.put("a", file(SETTLE_S))
    assert due(files, SETTLE_S) == []
    assert due(files, 2 * SETTLE_S) == ["a"]


def test_a_large_file_that_is_due_is_kept_apart() -> None:
    files = settling()
    assert files.unread_since() == math.inf
    files.put("a", file(1.0, size=LARGE + 1, whole=True))
    files.put("b", file(0.0, size=LARGE + 1, whole=True))
    assert files.unread_since() == 0.0
    assert files.next_at(large=True) == -math.inf
    assert files.next_at(large=False) == math.inf
    assert due(files, 1.0) == ["a", "b"]
    files.remove("b")
    assert files.unread_since() == 1.0


def test_many_files_become_due_in_steps() -> None:
    files = settling()
    for number in range(1_000):
        files.put(f"{number}", file(0.0))
    assert len(list(files.ripen(SETTLE_S))) >= 10
    assert len(files.due()) == 1_000


_PATHS = st.sampled_from("abc")


class Naive(RuleBasedStateMachine):
    """Every file is looked at each time: those that are due are the same."""

    def __init__(self) -> None:
        super().__init__()
        self.files = settling()
        self.known: dict[str, Unsettled] = {}
        self.open: set[str] = set()
        self.now = 0.0

    @rule(for_s=st.integers(0, 12))
    def wait(self, for_s: int) -> None:
        self.now += for_s

    @rule(path=_PATHS, size=st.sampled_from([1, LARGE + 1]), whole=st.sampled_from([None, True]))
    def change(self, path: str, size: int, whole: bool | None) -> None:
        self.known[path] = file(self.now, size=size, whole=whole)
        self.files.put(path, self.known[path])

    @rule(path=_PATHS)
    def take(self, path: str) -> None:
        self.known.pop(path, None)
        self.files.remove(path)

    @rule(path=_PATHS)
    def write(self, path: str) -> None:
        self.open.add(path)
        self.files.opened(path)

    @rule(path=_PATHS)
    def close(self, path: str) -> None:
        self.open.discard(path)
        self.files.closed(path)

    @rule()
    def close_all(self) -> None:
        self.open.clear()
        self.files.all_closed()

    def due_at(self, path: str) -> float:
        known = self.known[path]
        settle_s = OPEN_S if path in self.open else SETTLE_S
        return known.since + (0.0 if known.whole else settle_s)

    @invariant()
    def same_as_naive(self) -> None:
        assert due(self.files, self.now) == sorted(
            path for path in self.known if self.due_at(path) <= self.now
        )
        later = [at for path in self.known if (at := self.due_at(path)) > self.now]
        if not self.files.due():
            # It may be asked once too often, for what has been put off since.
            assert self.files.next_at(large=True) <= min(later, default=math.inf)


TestNaive = Naive.TestCase


@given(st.lists(st.tuples(_PATHS, st.booleans()), max_size=30))
def test_nothing_is_left_of_files_that_were_taken(steps: list[tuple[str, bool]]) -> None:
    files = settling()
    for path, whole in steps:
        files.put(path, file(0.0, whole=whole))
    for path in "abc":
        files.remove(path)
    assert due(files, math.inf) == []
    assert files.next_at(large=True) == math.inf
    assert not files.paths()
