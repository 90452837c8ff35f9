"""What a client may send that carries nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.transport.http2_bounds import FRAMES_S, Bucket, Floods, Frames, Unread

LIMITS = Limits(resets_max=3, settings_max=2, empty_frames_max=5, client_ping_interval_min_s=5)


def taken(bucket: Bucket, now: float) -> int:
    count = 0
    while bucket.take(now):
        count += 1
    return count


def test_what_was_taken_comes_back_evenly() -> None:
    bucket = Bucket(30)
    assert taken(bucket, 100.0) == 30
    assert taken(bucket, 100.0) == 0
    assert taken(bucket, 100.0 + FRAMES_S / 3) == 10
    assert taken(bucket, 100.0 + 10 * FRAMES_S) == 30, "and never more than at first"


def test_what_is_given_is_bounded_too() -> None:
    bucket = Bucket(10)
    assert taken(bucket, 0.0) == 10
    bucket.give(4)
    assert taken(bucket, 0.0) == 4
    bucket.give(1_000)
    assert taken(bucket, 0.0) == 10


def test_each_flood_has_a_bound_of_its_own() -> None:
    floods = Floods(LIMITS)
    assert [floods.reset(0.0) for _ in range(4)] == [None, None, None, "resets_max"]
    assert [floods.settings(0.0) for _ in range(3)] == [None, None, "settings_max"]
    assert [floods.empty(0.0) for _ in range(6)][4:] == [None, "empty_frames_max"]


def test_pings_are_counted_by_their_distance() -> None:
    floods = Floods(LIMITS)
    assert [floods.pinged(5.0 * number) for number in range(10)] == [None] * 10
    early = [floods.pinged(45.0 + number) for number in range(1, 4)]
    assert early == [None, None, "client_ping_interval_min_s"]


def test_who_was_told_something_may_ping_and_open_its_windows() -> None:
    floods = Floods(replace(LIMITS, empty_frames_max=8))
    for _ in range(100):
        floods.sent(1, 10)
        assert [floods.pinged(0.0), floods.pinged(0.0)] == [None, None]
        assert [floods.empty(0.0) for _ in range(4)] == [None] * 4


def test_a_large_message_may_be_taken_in_by_many_windows() -> None:
    floods = Floods(LIMITS)
    for _ in range(1_000):
        floods.sent(0, 1_024)
        assert [floods.empty(0.0) for _ in range(4)] == [None] * 4
    assert "empty_frames_max" in [floods.empty(0.0) for _ in range(10)]


@pytest.mark.parametrize("piece", range(1, 40))
def test_where_frames_end_is_known_however_they_come(piece: int) -> None:
    frames = (b"\0\0\0" + bytes(6), b"\0\0\5" + bytes(11), b"\0\1\1" + bytes(6 + 257))
    data, ends = b"\xff" * 24, set()
    for frame in frames * 2:
        ends.add(len(data))
        data += frame
    ends.add(len(data))
    seen, at = Frames(24), 0
    assert seen.cut
    while at < len(data):
        seen.take(data[at : at + piece])
        at = min(at + piece, len(data))
        assert seen.cut == (at not in ends)


@pytest.mark.parametrize("piece", range(1, 40))
def test_it_is_known_when_only_one_kind_of_frame_may_come_next(piece: int) -> None:
    kinds = ((4, 0), (6, 0), (1, 0), (9, 1), (9, 4), (0, 1), (1, 5), (8, 0))
    frames = [b"\0\0\3" + bytes((kind, flags)) + bytes(4 + 3) for kind, flags in kinds]
    data, any_next = b"\xff" * 24, dict[int, bool]()
    for each, (kind, flags) in zip(frames, kinds, strict=True):
        data += each
        any_next[len(data)] = (kind, flags) not in ((1, 0), (9, 1))
    seen, at = Frames(24), 0
    while at < len(data):
        assert seen.any_next == any_next.get(at, False)
        seen.take(data[at : at + piece])
        at = min(at + piece, len(data))
    assert seen.any_next


@dataclass(eq=False)
class Somebody:
    """A connection, and whether it is to be flushed."""

    client: str = "a"
    marked: bool = False

    def mark(self) -> None:
        self.marked = True

    def refuse(self, limit: str) -> None:
        raise AssertionError(limit)


def test_who_stalls_is_bounded_a_connection_a_client_and_in_all() -> None:
    unread = Unread(3_200)
    assert unread.room("a", 30) == 70
    assert unread.room("a", 100) == unread.room("a", 130) == 0, "a connection"
    stalled = [Somebody() for _ in range(8)]
    for connection in stalled:
        unread.count(connection, 99)
    assert unread.room("a", 1) == 8, "a client"
    unread.count(stalled[0], 107)
    assert unread.room("a", 0) == unread.room("a", 1) == 0
    assert unread.room("b", 1) == 99
    others = [Somebody(client) for client in "bcd"]
    for connection in others:
        unread.count(connection, 800)
    assert unread.room("e", 0) == unread.room("e", 1) == 1, "in all: one message, if none waits"
    unread.count(late := Somebody("e"), 50)
    assert unread.room("e", 0) == 0
    for connection in (*stalled, *others, late):
        unread.count(connection, 0)
    assert not unread.in_all
    assert not unread._unread._of_client
    assert not unread._of_connection


def test_connections_without_room_have_it_in_turn_as_others_take_what_waits() -> None:
    unread = Unread(3_200)
    stalled, other = Somebody(), Somebody("b")
    unread.count(stalled, 800)
    first, second = Somebody(), Somebody()
    for connection in (first, second):
        unread.wait(connection)
    unread.count(other, 50)
    assert (first.marked, second.marked) == (False, False)
    unread.count(stalled, 700)
    assert (first.marked, second.marked) == (True, False)
    unread.count(first, 0)
    assert second.marked, "the first had nothing to say"
    assert not unread.crowded
    unread.wait(first)
    unread.wait_no_more(first)
    assert not unread.crowded


def test_the_slowest_is_the_one_that_has_taken_nothing_for_longest() -> None:
    unread = Unread(3_200)
    slow, slower, full, own = Somebody(), Somebody(), Somebody("b"), Somebody()
    for connection in (slow, slower):
        unread.count(connection, 450)
    unread.count(full, 100)
    assert unread.slowest(own) is slow
    unread.count(slow, 400)
    assert unread.slowest(own) is slower
    assert unread.slowest(full) is full, "it has no room whatever others do"
    for client in "cde":
        unread.count(Somebody(client), 800)
    assert unread.slowest(Somebody("f")) is slower, "in all"
