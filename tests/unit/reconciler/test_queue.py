"""Which key is worked on next, and how fast may be written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.counting import counted_calls
from vmsvc_grpc.backoff import Backoff
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.reconciler.queue import Queue, QueueMeasures, TokenBucket

A, B, C = Key("shop", "a"), Key("shop", "b"), Key("shop", "c")
COOLDOWN_S, FIRST_S, LONGEST_S = 0.2, 1.0, 60.0


def queue(random: Callable[[], float] = lambda: 1.0, *, hanging_max: int = 3) -> Queue:
    return Queue(
        cooldown_s=COOLDOWN_S,
        backoff=Backoff(FIRST_S, LONGEST_S),
        hanging_max=hanging_max,
        random=random,
        measures=QueueMeasures(),
    )


def taken(keys: Queue, now: float) -> list[Key]:
    found = []
    while (key := keys.take(now)) is not None:
        found.append(key)
    return found


def test_keys_come_in_the_order_in_which_they_were_added() -> None:
    keys = queue()
    for key in (B, A, C):
        keys.add(key, 0)
    assert taken(keys, 0) == [B, A, C]


def test_a_key_waits_once_however_often_it_is_added() -> None:
    keys = queue()
    for now in range(100):
        keys.add(A, now)
    assert len(keys) == 1
    assert taken(keys, 100) == [A]
    assert len(keys) == 0


def test_a_key_that_comes_while_it_is_in_work_is_worked_on_again_after() -> None:
    keys = queue()
    keys.add(A, 0)
    assert taken(keys, 0) == [A]
    keys.add(A, 0)
    keys.add(A, 0)
    assert (taken(keys, 0), len(keys), keys.working) == ([], 1, 1)
    keys.succeeded(A, 0, wrote=False)
    assert keys.working == 0
    assert taken(keys, 0) == [A]
    keys.succeeded(A, 0, wrote=False)
    assert (taken(keys, 1000), keys.next_due()) == ([], None)


def test_a_key_rests_after_a_write_and_others_do_not() -> None:
    keys = queue()
    keys.add(A, 10)
    assert taken(keys, 10) == [A]
    keys.succeeded(A, 10, wrote=True)
    keys.add(A, 10.05)
    keys.add(B, 10.05)
    assert taken(keys, 10.1) == [B]
    assert keys.next_due() == pytest.approx(10.2)
    assert taken(keys, 10.2) == [A]


def test_a_key_that_wrote_nothing_does_not_rest() -> None:
    keys = queue()
    keys.add(A, 0)
    keys.take(0)
    keys.succeeded(A, 0, wrote=False)
    keys.add(A, 0)
    assert taken(keys, 0) == [A]


@pytest.mark.parametrize(
    ("failures", "random", "due"),
    [
        pytest.param(1, 1.0, 1.0, id="the first back-off"),
        pytest.param(3, 1.0, 4.0, id="it doubles at each failure"),
        pytest.param(3, 0.5, 2.0, id="a random part of it is waited"),
        pytest.param(3, 0.0, 0.0, id="which may be none of it"),
        pytest.param(9, 1.0, 60.0, id="up to a bound"),
        pytest.param(5000, 1.0, 60.0, id="however often"),
    ],
)
def test_back_off(failures: int, random: float, due: float) -> None:
    keys = queue(lambda: random)
    now = 0.0
    for _ in range(failures):
        keys.add(A, now)
        assert keys.take(now + 1) == A
        now += 1
        keys.failed(A, now)
    expected = now + due
    assert keys.next_due() == pytest.approx(expected)
    assert keys.take(expected - 0.001) is None
    assert keys.take(expected) == A


def test_back_off_is_no_shorter_than_it_is_told_to_be() -> None:
    keys = queue()
    keys.add(A, 0)
    assert taken(keys, 0) == [A]
    keys.failed(A, 0, at_least_s=30.0)
    assert keys.next_due() == 30.0


def test_keys_that_hung_leave_room_for_the_others() -> None:
    """Requests that were never answered took all workers, each for as long as it was waited for."""
    keys = queue(hanging_max=1)
    for key in (A, B):
        keys.add(key, 0)
        assert keys.take(0) == key
        assert keys.hangs(key, 0)
        keys.failed(key, 0)
    keys.add(C, 2)
    assert taken(keys, 2) == [A, C]
    assert keys.next_due() is None  # B waits for A's place, and not for a time.
    assert len(keys) == 1
    keys.add(B, 2)
    assert taken(keys, 2) == []
    keys.succeeded(C, 3, wrote=False)
    assert taken(keys, 3) == []
    assert keys.hangs(A, 3)
    keys.failed(A, 3)
    assert taken(keys, 3) == [B]
    keys.succeeded(B, 4, wrote=False)
    assert taken(keys, 5) == [A]


def test_keys_that_only_failed_wait_for_no_place() -> None:
    """A service in conflict waited for those that hang."""
    keys = queue(hanging_max=1)
    keys.add(A, 0)
    assert taken(keys, 0) == [A]
    assert keys.hangs(A, 0)
    others = [Key("lab", "b"), Key("lab", "c")]
    for key in others:
        keys.add(key, 0)
        assert keys.take(0) == key
        keys.failed(key, 0)
    assert taken(keys, FIRST_S) == others


def test_keys_that_hang_for_the_first_time_keep_no_place_but_those_for_them() -> None:
    keys = queue(hanging_max=1)
    others = [Key(f"n{number}", "web") for number in range(5)]
    for key in others:
        keys.add(key, 0)
    assert taken(keys, 0) == others
    assert [keys.hangs(key, 1) for key in others] == [True, *[False] * 4]
    for key in others[1:]:
        keys.failed(key, 1)
    assert taken(keys, LONGEST_S) == []  # Their work goes on where it may.
    assert keys.hangs(others[0], 2), "as before"
    keys.succeeded(others[0], LONGEST_S, wrote=False)
    assert len(taken(keys, LONGEST_S)) == 1


NEIGHBOURS = [Key("shop", f"s{number}") for number in range(1_000)]


def test_neighbours_of_a_key_that_hangs_have_one_place_at_a_time() -> None:
    keys = queue(hanging_max=1)
    for key in NEIGHBOURS:
        keys.add(key, 0)
    first = [keys.take(0) for _ in range(4)]
    assert first == NEIGHBOURS[:4]
    assert [keys.hangs(key, 1) for key in NEIGHBOURS[:4]] == [True, False, False, False]
    for key in NEIGHBOURS[1:4]:
        keys.failed(key, 1)
    elsewhere = Key("lab", "web")
    keys.add(elsewhere, 1)
    came = []
    while (due := keys.next_due()) is not None and due <= 1:
        came += taken(keys, 1)
    assert came == [NEIGHBOURS[4], elsewhere]
    assert len(keys) == 995 + 3
    keys.add(NEIGHBOURS[500], 1)
    assert (taken(keys, 1), len(keys)) == ([], 995 + 3)


def test_neighbours_have_places_again_once_none_hangs() -> None:
    keys = queue(hanging_max=1)
    for key in NEIGHBOURS:
        keys.add(key, 0)
    assert keys.take(0) == NEIGHBOURS[0]
    assert keys.hangs(NEIGHBOURS[0], 1)
    came, working, most = [NEIGHBOURS[0]], deque[Key](), 0
    while len(keys) or working:
        while keys.next_due() is not None:
            working += taken(keys, 2)
        most = max(most, len(working))
        if len(came) == 100:
            keys.succeeded(NEIGHBOURS[0], 2, wrote=False)
        came.append(working.popleft())
        keys.succeeded(came[-1], 2, wrote=False)
        assert len(came) > 100 or most == 1
    assert sorted(came) == sorted(NEIGHBOURS)
    assert most > 100
    assert (keys.working, keys.next_due()) == (0, None)


def test_success_forgets_the_failures() -> None:
    keys = queue()
    for now in range(5):
        keys.add(A, now)
        assert keys.take(now) == A
        keys.failed(A, now)
    assert keys.take(100) == A
    keys.succeeded(A, 100, wrote=False)
    keys.add(A, 101)
    assert keys.take(101) == A
    keys.failed(A, 101)
    assert keys.next_due() == 102


def test_a_change_ends_a_back_off_but_not_the_rest() -> None:
    keys = queue(lambda: 1.0)
    keys.add(A, 0)
    keys.take(0)
    keys.failed(A, 0)
    keys.add(A, 0.1)
    assert keys.take(0.1) is None
    assert keys.take(0.2) == A
    keys.succeeded(A, 0.2, wrote=False)
    assert taken(keys, 1000) == []


def test_a_change_while_in_work_ends_the_back_off_that_follows() -> None:
    keys = queue()
    keys.add(A, 0)
    keys.take(0)
    keys.add(A, 0)
    keys.failed(A, 0)
    assert keys.take(COOLDOWN_S) == A


def test_work_that_was_broken_off_is_due_again() -> None:
    keys = queue()
    keys.add(A, 0)
    keys.take(0)
    keys.abandoned(A, 0)
    assert (len(keys), keys.working) == (1, 0)
    assert taken(keys, 0) == [A]


def test_nothing_is_left_of_keys_that_are_done() -> None:
    keys = queue(lambda: 0.5)
    now = 0.0
    for round_ in range(10_000):
        key = Key("shop", f"s{round_}")
        keys.add(key, now)
        keys.add(key, now)
        assert keys.take(now) == key
        assert keys.hangs(key, now)
        keys.failed(key, now)
        keys.add(key, now)
        assert keys.take(now + 1) == key
        keys.succeeded(key, now + 1, wrote=True)
        now += 2
    assert keys.take(now + LONGEST_S) is None
    agendas = [keys._quick._due, keys._quick._heap, keys._hanging._due, keys._hanging._heap]
    held = [each for each in vars(keys).values() if hasattr(each, "__len__")]
    assert [len(each) for each in (*held, *agendas)] == [0] * (len(held) + 4)
    assert len(held) >= 11


def test_outdated_entries_do_not_pile_up() -> None:
    keys = queue(lambda: 1.0)
    now = 0.0
    for _ in range(10_000):
        keys.add(A, now)
        now += COOLDOWN_S
        assert keys.take(now) == A
        keys.failed(A, now)
    assert len(keys._quick._heap) + len(keys._hanging._heap) < 100


HANGING = 4


@pytest.mark.parametrize("keys_failed", [100, 2_000])
def test_a_turn_costs_no_more_however_many_wait_for_a_place(keys_failed: int) -> None:
    """Each retry that ended had all the others looked at once more: 11 ms of 10,000."""
    keys = queue(hanging_max=HANGING)
    for number in range(keys_failed):
        keys.add(Key("shop", f"s{number}"), 0)
    for failing in taken(keys, 0):
        keys.hangs(failing, 0)
        keys.failed(failing, 0)
    working = deque[Key]()
    now, turns = LONGEST_S, 0
    while len(keys) or working:
        turns += 1
        with counted_calls() as calls:
            if (key := keys.take(now)) is not None:
                working.append(key)
            keys.next_due()
        # Popping from a heap is one call, whose work grows as the logarithm of its size.
        assert calls[0] < 60
        if key is None:
            assert len(working) == min(HANGING, len(working) + len(keys))
            with counted_calls() as calls:
                keys.succeeded(working.popleft(), now, wrote=True)
            assert calls[0] < 60
    assert turns < 3 * keys_failed


# -- Any order of steps --

D = Key("lab", "d")
KEYS = st.sampled_from([A, B, C, D])


class QueueMachine(RuleBasedStateMachine):
    """No wish for work is lost, no key is in work twice, and who hangs has its own places."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.keys = queue(hanging_max=1)
        self.wanting: set[Key] = set()
        self.working: set[Key] = set()
        self.hung: set[Key] = set()
        self.hanging_now: set[Key] = set()
        self.placed: Key | None = None

    @rule(later=st.sampled_from([0.05, 1.0, 30.0]))
    def wait(self, later: float) -> None:
        self.now += later

    @rule(key=KEYS)
    def add(self, key: Key) -> None:
        self.keys.add(key, self.now)
        self.wanting.add(key)

    @rule()
    def take(self) -> None:
        got = self.keys.take(self.now)
        if got is None:
            due = self.keys.next_due()
            assert due is None or due > self.now
            return
        assert got in self.wanting - self.working
        if got in self.hung:
            assert self.placed is None
            self.placed = got
        elif any(key.namespace == got.namespace for key in self.hung):
            quick = self.working - {self.placed}
            assert not any(key.namespace == got.namespace for key in quick)
        self.working.add(got)
        self.wanting.remove(got)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def hang(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        assert self.keys.hangs(key, self.now) == (self.placed in (None, key))
        self.placed = self.placed or key
        self.hung.add(key)
        self.hanging_now.add(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data(), end=st.sampled_from(["wrote", "read", "failed", "abandoned"]))
    def finish(self, data: st.DataObject, end: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.end(key, end)

    def end(self, key: Key, end: str) -> None:
        if end in ("wrote", "read"):
            self.keys.succeeded(key, self.now, wrote=end == "wrote")
            self.hanging_now.discard(key)
        else:
            (self.keys.failed if end == "failed" else self.keys.abandoned)(key, self.now)
            self.wanting.add(key)
        if key not in self.hanging_now:
            self.hung.discard(key)
        self.hanging_now.discard(key)
        self.working.remove(key)
        self.placed = None if self.placed == key else self.placed

    @invariant()
    def counts(self) -> None:
        assert len(self.keys) == len(self.wanting)
        assert self.keys.working == len(self.working)

    def teardown(self) -> None:
        """Each that needs work has it, whatever happened before."""
        self.now += LONGEST_S + COOLDOWN_S
        for _ in range(5):
            while (got := self.keys.take(self.now)) is not None:
                self.working.add(got)
                self.wanting.remove(got)
            for key in sorted(self.working):
                self.end(key, "read")
        assert (self.wanting, len(self.keys), self.keys.next_due()) == (set(), 0, None)


TestQueue = QueueMachine.TestCase


# -- The rate of writes --


def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    bucket = TokenBucket(per_s=10, burst=3)
    assert [bucket.take(100.0) for _ in range(5)] == pytest.approx([0, 0, 0, 0.1, 0.2])


def test_the_bucket_fills_up_to_the_burst_and_no_further() -> None:
    bucket = TokenBucket(per_s=10, burst=2)
    for _ in range(2):
        bucket.take(0.0)
    assert [bucket.take(1000.0) for _ in range(3)] == pytest.approx([0, 0, 0.1])


def test_what_does_not_wait_is_taken_at_once_or_not_at_all() -> None:
    bucket = TokenBucket(per_s=1 / 300, burst=25)
    assert [bucket.take_now(0.1) for _ in range(30)] == [True] * 25 + [False] * 5
    assert [bucket.take_now(300.2) for _ in range(2)] == [True, False]


@given(st.lists(st.floats(0, 0.3), max_size=60))
def test_the_rate_holds_over_any_time(gaps: list[float]) -> None:
    bucket, now = TokenBucket(per_s=10, burst=3), 0.0
    used = []
    for gap in gaps:
        now += gap
        used.append(now + bucket.take(now))
    assert used == sorted(used)
    for first, begin in enumerate(used):
        for last in range(first, len(used)):
            assert last - first + 1 <= 3 + 10 * (used[last] - begin) + 1e-6


def test_waits_and_work_are_measured_as_kubernetes_queues_do() -> None:
    keys = queue()
    keys.add(A, 10)
    keys.add(A, 11)
    keys.add(B, 12)
    assert (keys.due(11), keys.due(12), keys.measures.adds) == (1, 2, 2)
    assert taken(keys, 15) == [A, B]
    assert (keys.measures.waited.sum_s, [*keys.began], keys.due(15)) == (5 + 3, [15, 15], 0)
    keys.add(A, 16)
    assert keys.measures.adds == 2, "it is added when it can be taken"
    keys.succeeded(A, 17, wrote=False)
    keys.failed(B, 18)
    assert (keys.measures.worked.sum_s, [*keys.began]) == (2 + 3, [])
    assert (keys.measures.adds, keys.measures.retries) == (4, 1)
    assert keys.due(17) == 1, "what backs off does not wait for a worker"


def test_waiting_for_a_place_in_the_namespace_is_waiting() -> None:
    keys = queue(hanging_max=1)
    for key in (A, B, C):
        keys.add(key, 0)
    assert taken(keys, 0) == [A, B, C]
    keys.hangs(A, 1)
    for key in (B, C):
        keys.succeeded(key, 1, wrote=False)
        keys.add(key, 2)
    waited = keys.measures.waited.sum_s
    assert (taken(keys, 3), keys.due(3)) == ([B], 1)
    keys.succeeded(B, 7, wrote=False)
    assert taken(keys, 8) == [C]
    assert keys.measures.waited.sum_s - waited == (3 - 2) + (8 - 2)
