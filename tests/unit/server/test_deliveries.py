"""How long changes take to reach streams: counted by batch, measured from the oldest on."""

from __future__ import annotations

from collections import deque

from tests.unit.counting import counted_calls
from vmsvc_grpc.histogram import Histogram
from vmsvc_grpc.server.deliveries import BOUNDS_S, Batch, Deliveries


class Line:
    """Connections, by their names, and batches, in the order in which they are flushed."""

    def __init__(self) -> None:
        self.waiting: deque[str | Batch] = deque()
        self.left_over = 0

    def line_up(self, batch: Batch) -> bool:
        if not self.waiting:
            return False
        self.waiting.append(batch)
        return True

    def is_last(self, batch: Batch) -> bool:
        return bool(self.waiting) and self.waiting[-1] is batch

    def flush(self, count: int | None = None) -> None:
        for _ in range(len(self.waiting) if count is None else count):
            first = self.waiting.popleft()
            if isinstance(first, Batch):
                first.flush()


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.line = Line()
        self.deliveries = Deliveries(clock=lambda: self.now)
        self.deliveries.send_by(self.line)

    def publish(self, version: int, *marked: str, since: float | None = None) -> None:
        self.line.waiting.extend(marked)
        self.deliveries.published(self.now if since is None else since, version)

    def measured(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """How many, and the sum of their seconds; to the first stream, and to the last."""
        return shown(self.deliveries.to_first), shown(self.deliveries.to_last)


def shown(histogram: Histogram) -> tuple[float, float]:
    return histogram.buckets()[-1][1], histogram.sum_s


def test_a_change_is_sent_to_the_first_stream_and_to_the_last() -> None:
    world = World()
    world.publish(2, "a", "b", since=99.0)
    world.line.flush(1)
    world.deliveries.made(2)
    world.now = 102.0
    world.line.flush()
    assert world.measured() == ((1, 1.0), (1, 3.0))


def test_changes_that_are_sent_together_count_once_from_the_oldest_on() -> None:
    world = World()
    world.publish(1, "a")
    world.now = 101.0
    for version in range(2, 200):
        world.publish(version)
    assert len(world.line.waiting) == 2, "they stand in line together"
    world.deliveries.made(150)
    world.line.flush()
    assert world.measured() == ((1, 1.0), (1, 1.0))


def test_changes_that_mark_others_stand_behind_these() -> None:
    world = World()
    world.publish(1, "a")
    world.publish(2, "b")
    world.line.flush(2)
    world.deliveries.made(1)
    assert world.measured() == ((1, 0.0), (1, 0.0))
    world.now = 105.0
    world.deliveries.made(2)
    world.line.flush()
    assert world.measured() == ((2, 5.0), (2, 5.0))


def test_a_change_that_a_later_one_replaces_counts_to_where_it_stood() -> None:
    world = World()
    world.publish(1, "a")
    world.publish(2, "b")
    world.deliveries.made(2)
    world.now = 101.0
    world.line.flush()
    assert world.measured() == ((2, 1.0), (2, 2.0))


def test_what_is_left_over_is_waited_for() -> None:
    world = World()
    world.publish(1, "a")
    world.deliveries.made(1)
    world.line.waiting.popleft()
    world.line.waiting.append("a")  # It was sent a part, and is lined up again.
    world.line.left_over += 1
    world.line.flush(1)
    assert world.measured() == ((1, 0.0), (0, 0.0))
    world.now = 101.0
    world.line.flush()
    assert world.measured() == ((1, 0.0), (1, 1.0))


def test_nobody_waits_for_ever_for_what_is_left_over() -> None:
    world = World()
    world.publish(1, "a")
    world.now += BOUNDS_S[-1] + 1
    world.line.waiting.append("a")
    world.line.left_over += 1
    world.line.flush(2)
    assert world.measured()[1][0] == 1
    world.line.flush()
    assert world.measured()[1][0] == 1


def test_what_was_left_over_before_is_not() -> None:
    world = World()
    world.line.left_over = 7
    world.publish(1, "a")
    world.line.flush()
    assert world.measured() == ((1, 0.0), (1, 0.0))


def test_a_change_for_which_nobody_waits_does_not_count() -> None:
    world = World()
    world.publish(1)
    world.deliveries.made(1)
    assert world.measured() == ((0, 0.0), (0, 0.0))


def test_first_answers_are_no_changes() -> None:
    world = World()
    world.publish(3, "a")
    world.line.flush()
    world.deliveries.made(2)
    world.deliveries.made(3)
    world.deliveries.made(4)
    assert world.measured() == ((1, 0.0), (1, 0.0))


def test_without_a_line_nothing_is_measured() -> None:
    deliveries = Deliveries()
    deliveries.published(0.0, 1)
    deliveries.made(1)
    assert shown(deliveries.to_last) == (0, 0.0)


def test_an_event_costs_a_few_calls_and_a_message_none() -> None:
    world = World()
    world.publish(1, "a")
    with counted_calls() as counted:
        world.deliveries.published(100.0, 2)
    together = counted[0]
    world.line.waiting.append("b")
    with counted_calls() as counted:
        world.deliveries.published(100.0, 3)
    assert together <= 6
    assert counted[0] <= 10
