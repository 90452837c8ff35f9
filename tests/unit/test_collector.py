"""The garbage collector looks at little at a time, and finds what there is."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.unit.collector import unchanged_collector
from vmsvc_grpc.collector import OLD_MAX, WORK_S, YOUNG_MAX, GarbageScans, calm_collector

__all__ = ["unchanged_collector"]

pytestmark = pytest.mark.usefixtures("unchanged_collector")

STEP = 2_000  # Objects made between two scans.


@contextmanager
def scanned() -> Iterator[list[int]]:
    """How many objects each scan of the collector was of."""
    scans: list[int] = []

    def count(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            generations = range(info["generation"] + 1)
            scans.append(sum(len(gc.get_objects(generation)) for generation in generations))

    gc.callbacks.append(count)
    try:
        yield scans
    finally:
        gc.callbacks.remove(count)


def work() -> None:
    """Use as much CPU as a process uses between two scans."""
    until = time.process_time() + WORK_S
    while time.process_time() < until:
        pass


def worked(garbage: GarbageScans) -> None:
    work()
    garbage.scan_if_due()


class Node:
    """Refers to itself: a cycle, which nothing but the collector frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def garbage() -> GarbageScans:
    calm_collector()
    return GarbageScans()


def test_what_is_made_and_kept_is_never_scanned_all_at_once(garbage: GarbageScans) -> None:
    """200,000 objects, as 20,000 VMs once had: one scan of all took 54 to 200 ms."""
    held: list[list[object]] = []
    with scanned() as scans:
        for _ in range(100):
            held += [[] for _ in range(STEP)]
            worked(garbage)
    assert len(held) == 100 * STEP
    assert max(scans) <= OLD_MAX + YOUNG_MAX + 2 * STEP
    # Each object is scanned a few times, however many there are.
    assert sum(scans) < 6 * len(held)


def test_what_is_replaced_again_and_again_does_not_pile_up(garbage: GarbageScans) -> None:
    """As many objects are freed as are made: Python did not look, and then at all of them."""
    held: list[list[object]] = [[] for _ in range(50 * STEP)]
    calm_collector()
    with scanned() as scans:
        for first in range(0, len(held), STEP):
            held[first : first + STEP] = [[] for _ in range(STEP)]
            worked(garbage)
    assert max(scans) <= OLD_MAX + YOUNG_MAX + 2 * STEP


def test_only_what_lives_at_a_freeze_outlives_its_end(garbage: GarbageScans) -> None:
    """Cycles come and go while ever more is made and kept: all but those few are found."""
    kept: list[list[object]] = []
    nodes: list[Node] = []
    ends: list[weakref.ref[Node]] = []
    rounds, part = 200, 10
    for _ in range(rounds):
        nodes = [Node() for _ in range(part)]
        ends += map(weakref.ref, nodes)
        kept += [[] for _ in range(STEP)]
        worked(garbage)
    nodes.clear()
    gc.collect()
    freezes = len(kept) // (OLD_MAX // 2)
    assert sum(end() is not None for end in ends) <= freezes * part < len(ends) // 2


def test_old_garbage_is_found_while_little_is_kept(garbage: GarbageScans) -> None:
    """Connections come and go in a process that does nothing else: none of them is frozen."""
    ends: list[weakref.ref[Node]] = []
    for _ in range(60):
        nodes = [Node() for _ in range(STEP // 2)]
        gc.collect(1)  # They are old now,
        ends += map(weakref.ref, nodes)
        nodes.clear()  # and garbage.
        worked(garbage)
    assert sum(end() is not None for end in ends) <= OLD_MAX


def test_an_idle_process_does_not_look() -> None:
    """Other threads of the tests' process use CPU, too, so the clock is a list."""
    used_s = [1.0]
    garbage = GarbageScans(lambda: used_s[-1])
    garbage.scan_if_due()
    gc.disable()  # Else it is Python that looks.
    try:
        held: list[list[object]] = [[] for _ in range(2 * YOUNG_MAX)]
        with scanned() as scans:
            used_s.append(1.0 + WORK_S / 2)
            garbage.scan_if_due()
            assert not scans
            used_s.append(1.0 + 2 * WORK_S)
            garbage.scan_if_due()
        assert scans
    finally:
        gc.enable()
    assert len(held) == 2 * YOUNG_MAX
