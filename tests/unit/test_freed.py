"""Memory that is free goes back to the system, now and then."""

from __future__ import annotations

import os
from pathlib import Path

from vmsvc_grpc.freed import EVERY_S, FreedMemory, trim

_PIECE_BYTES = 64 * 1024  # Larger ones have pages of their own.


class Process:
    """Its clocks, and how often its memory was given back."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.cpu_s = 5.0
        self.blocks = 1_000_000
        self.times = self.scans = 0
        self.freed = FreedMemory(
            self.give_back,
            self.collect,
            clock=lambda: self.now_s,
            cpu=lambda: self.cpu_s,
            blocks=lambda: self.blocks,
        )

    def give_back(self) -> None:
        self.times += 1

    def collect(self) -> None:
        self.scans += 1

    def after(self, wait_s: float, work_s: float) -> int:
        self.now_s += wait_s
        self.cpu_s += work_s
        self.freed.give_back_if_due()
        return self.times


def test_a_process_that_works_gives_back_what_it_has_freed_now_and_then() -> None:
    process = Process()
    assert process.after(EVERY_S / 2, 4.0) == 0
    assert process.after(EVERY_S / 2, 4.0) == 1
    assert process.after(EVERY_S / 2, 4.0) == 1
    assert process.after(EVERY_S / 2, 4.0) == 2


def test_an_idle_process_gives_back_nothing_until_it_has_worked() -> None:
    process = Process()
    assert [process.after(EVERY_S, 0.001) for _ in range(20)] == [0] * 20
    assert process.after(EVERY_S, 1.0) == 1


def test_everything_is_looked_at_for_garbage_once_after_much_was_freed() -> None:
    process = Process()
    for blocks in (2_000_000, 1_950_000):
        process.blocks = blocks
        process.after(EVERY_S, 1.0)
    assert (process.scans, process.times) == (0, 2)
    process.blocks = 1_200_000
    process.after(EVERY_S, 1.0)
    assert (process.scans, process.times) == (1, 2), "one thing a turn"
    process.after(0.02, 0.0)
    assert (process.scans, process.times) == (1, 3)
    for _ in range(5):
        process.after(EVERY_S, 1.0)
    assert (process.scans, process.times) == (1, 8)


def test_memory_between_what_is_in_use_is_given_back() -> None:
    made = [bytes([number % 251]) * _PIECE_BYTES for number in range(1_000)]
    del made[1::2]  # So nothing lies free at the end of the heap.
    before_bytes = _held_bytes()
    trim()
    assert before_bytes - _held_bytes() > len(made) * _PIECE_BYTES / 2


def _held_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
