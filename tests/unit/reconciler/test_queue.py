"""Which key is worked on next, and how fast may be written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.counting import counted_calls
from vmsvc_grpc.backoff import Backoff
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.reconciler.queue import Queue, TokenBucket

A, B, C = Key("shop", "a"), Key("shop", "b"), Key("shop", "c")
COOLDOWN_S, FIRST_S, LONGEST_S = 0.2, 1.0, 60.0


def queue(random: Callable[[], float] = lambda: 1.0, *, retrying_max: int = 3) -> Queue:
    return Queue(
        cooldown_s=COOLDOWN_S,
        backoff=Backoff(FIRST_S, LONGEST_S),
        retrying_max=retrying_max,
        random=random,
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


def test_keys_that_failed_leave_room_for_the_others() -> None:
    """Requests that were never answered took all workers, each for as long as it was waited for."""
    keys = queue(retrying_max=1)
    for key in (A, B):
        keys.add(key, 0)
        assert keys.take(0) == key
        keys.failed(key, 0)
    keys.add(C, 2)
    assert taken(keys, 2) == [A, C]
    assert keys.next_due() is None  # B waits for A's place, and not for a time.
    assert len(keys) == 1
    keys.add(B, 2)
    assert taken(keys, 2) == []
    keys.succeeded(C, 3, wrote=False)
    assert taken(keys, 3) == []
    keys.failed(A, 3)
    assert taken(keys, 3) == [B]
    keys.succeeded(B, 4, wrote=False)
    assert taken(keys, 5) == [A]


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
        keys.failed(key, now)
        keys.add(key, now)
        assert keys.take(now + 1) == key
        keys.succeeded(key, now + 1, wrote=True)
        now += 2
    assert keys.take(now + LONGEST_S) is None
    held = [keys._working, keys._again, keys._failures, keys._cooling, keys._retrying]
    agendas = [keys._new._due, keys._new._heap, keys._retries._due, keys._retries._heap]
    assert [len(each) for each in (*held, *agendas)] == [0] * 9


def test_outdated_entries_do_not_pile_up() -> None:
    keys = queue(lambda: 1.0)
    now = 0.0
    for _ in range(10_000):
        keys.add(A, now)
        now += COOLDOWN_S
        assert keys.take(now) == A
        keys.failed(A, now)
    assert len(keys._new._heap) + len(keys._retries._heap) < 100


RETRYING = 4


@pytest.mark.parametrize("keys_failed", [100, 2_000])
def test_a_turn_costs_no_more_however_many_wait_for_a_place(keys_failed: int) -> None:
    """Each retry that ended had all the others looked at once more: 11 ms of 10,000."""
    keys = queue(retrying_max=RETRYING)
    for number in range(keys_failed):
        keys.add(Key("shop", f"s{number}"), 0)
    for failing in taken(keys, 0):
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
            assert len(working) == min(RETRYING, len(working) + len(keys))
            with counted_calls() as calls:
                keys.succeeded(working.popleft(), now, wrote=True)
            assert calls[0] < 60
    assert turns < 3 * keys_failed


# -- Any order of steps --

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "take", "wrote", "read", "fail", "abandon"]),
        st.sampled_from([A, B, C]),
        st.sampled_from([0.0, 0.05, 1.0, 30.0]),
    )
)


@given(STEPS)
def test_who_failed_has_its_turn_however_few_may_retry(
    steps: list[tuple[str, Key, float]],
) -> None:
    keys, now = queue(retrying_max=1), 0.0
    working: set[Key] = set()
    failed: set[Key] = set()  # Whether in work or not.
    wanting: set[Key] = set()
    for step, key, later in steps:
        now += later
        if step == "add":
            keys.add(key, now)
            wanting.add(key)
        elif step == "take":
            due = keys.next_due()
            got = keys.take(now)
            assert (got is not None) == (due is not None and due <= now)
            if got is not None:
                working.add(got)
                wanting.remove(got)
            assert len(working & failed) <= 1
        elif key in working:
            working.remove(key)
            if step == "fail":
                keys.failed(key, now)
                failed.add(key)
                wanting.add(key)
            else:
                keys.succeeded(key, now, wrote=step == "wrote")
                failed.discard(key)
        assert len(keys) == len(wanting)
        waiting = wanting - working
        may_come = waiting if not working & failed else waiting - failed
        assert (keys.next_due() is not None) == bool(may_come)
    now += LONGEST_S + COOLDOWN_S
    for key in working:
        keys.succeeded(key, now, wrote=False)
    came = set()
    while (got := keys.take(now)) is not None:
        came.add(got)
        keys.succeeded(got, now, wrote=False)
    assert came == wanting


@given(STEPS, st.floats(0, 1))
def test_no_wish_for_work_is_lost_and_no_key_is_in_work_twice(
    steps: list[tuple[str, Key, float]], random: float
) -> None:
    keys, now = queue(lambda: random), 0.0
    working: set[Key] = set()
    wanting: set[Key] = set()
    for step, key, later in steps:
        now += later
        if step == "add":
            keys.add(key, now)
            wanting.add(key)
        elif step == "take":
            if (got := keys.take(now)) is not None:
                assert got not in working
                assert got in wanting
                working.add(got)
                wanting.remove(got)
        elif key in working:
            working.remove(key)
            if step == "fail":
                keys.failed(key, now)
                wanting.add(key)
            elif step == "abandon":
                keys.abandoned(key, now)
                wanting.add(key)
            else:
                keys.succeeded(key, now, wrote=step == "wrote")
        assert len(keys) == len(wanting)
        assert keys.working == len(working)
        assert (keys.next_due() is not None) == bool(wanting - working)
    assert set(taken(keys, now + LONGEST_S + COOLDOWN_S)) == wanting - working


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
