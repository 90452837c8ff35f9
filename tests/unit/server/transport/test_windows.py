"""How much clients may send before any of it is taken in."""

from __future__ import annotations

import pytest

from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.transport.windows import FIRST_BYTES, Window, Windows

MOST = Limits().connection_window_bytes


def round_trips(window: Window, size: int, round_trip_s: float) -> int:
    """How many a client takes to send so much on one call, where all is taken in at once."""
    count, now = 0, 100.0
    while size > 0:
        part = min(window.of_call, window.size, size)
        size -= part
        now += round_trip_s
        count += 1
        for _ in range(8):
            window.give_back(part // 8, now)
    return count


@pytest.mark.parametrize("round_trip_s", [0.001, 0.04, 0.1])
def test_a_client_that_uploads_has_its_window_grow_with_each_round_trip_or_two(
    round_trip_s: float,
) -> None:
    windows = Windows(Limits().window_bytes_max)
    window = Window(windows, "a", MOST, 100.0)
    assert (window.size, window.of_call) == (FIRST_BYTES, FIRST_BYTES)
    assert round_trips(window, 2 * MOST, round_trip_s) <= 30
    assert (window.size, window.of_call) == (MOST, MOST // 4)
    assert windows.in_all == MOST - FIRST_BYTES
    window.close()
    assert not windows.in_all


def test_a_client_that_says_something_now_and_then_keeps_the_first_window() -> None:
    windows = Windows(Limits().window_bytes_max)
    window = Window(windows, "a", MOST, 0.0)
    for second in range(1, 1_000):
        assert not window.give_back(60_000, float(second))
    assert window.size == FIRST_BYTES
    assert not windows.in_all


def test_a_window_that_is_not_used_up_any_more_shrinks_and_counts_until_it_has() -> None:
    windows = Windows(Limits().window_bytes_max)
    window = Window(windows, "a", 4 * FIRST_BYTES, 0.0)
    assert window.give_back(FIRST_BYTES, 0.1)
    assert window.give_back(2 * FIRST_BYTES, 0.2)
    assert (window.size, windows.in_all) == (4 * FIRST_BYTES, 3 * FIRST_BYTES)
    assert window.give_back(4 * FIRST_BYTES, 60.0)
    assert (window.size, windows.in_all) == (2 * FIRST_BYTES, 3 * FIRST_BYTES)
    assert window.give_back(2 * FIRST_BYTES, 120.0)
    assert (window.size, windows.in_all) == (FIRST_BYTES, FIRST_BYTES)
    assert not window.give_back(FIRST_BYTES, 180.0)
    assert (window.size, windows.in_all) == (FIRST_BYTES, 0)
    assert not windows.in_all


def test_calls_that_keep_what_came_leave_something_to_the_others() -> None:
    windows = Windows(Limits().window_bytes_max)
    window = Window(windows, "a", MOST, 0.0)
    assert not window.stand(FIRST_BYTES // 2)
    assert window.stand(100)
    assert window.size == 2 * FIRST_BYTES
    while window.stand(100):
        assert window.of_call <= max(FIRST_BYTES, window.size // 2)
    assert window.size == MOST


def test_what_windows_grow_by_is_bounded_of_a_client_and_in_all() -> None:
    windows = Windows(40 * FIRST_BYTES)
    of_a = [Window(windows, "a", 4 * FIRST_BYTES, 0.0) for _ in range(10)]
    for window in of_a:
        while window.stand(0):
            pass
    assert windows.in_all == 10 * FIRST_BYTES, "a quarter"
    assert [window.take_refusal() for window in of_a].count(True) >= 6
    assert not any(window.take_refusal() for window in of_a)
    of_others = [Window(windows, client, 11 * FIRST_BYTES, 0.0) for client in "bcdefg"]
    for window in of_others:
        while window.stand(0):
            pass
    assert windows.in_all <= 40 * FIRST_BYTES
    assert all(window.size >= FIRST_BYTES for window in (*of_a, *of_others)), "only slower"
    of_a.pop(0).close()
    assert of_a[-1].stand(0), "there is room again"
    for window in (*of_a, *of_others):
        window.close()
    assert not windows.in_all


def test_a_smaller_window_than_the_first_is_kept_to() -> None:
    windows = Windows(10 * FIRST_BYTES)
    window = Window(windows, "a", 4_000, 0.0)
    assert (window.size, window.of_call) == (4_000, 1_000)
    assert not window.give_back(4_000, 0.01)
    assert not window.stand(0)
    window.close()
    assert not windows.in_all
