"""What the event loop does between two of its turns: for how long, for how much CPU, and where."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from bench.standstills.steps import NOTED_S, Steps

TICK_S = 0.005
"""How often the loop is looked at. A piece of work shows as at most this much more than it took."""

# From here on a piece is long enough to ask what it is; half of what one may take.
_LONG_S = 0.025

# How often a thread looks whether the loop still stands; it needs the interpreter for that.
_LOOK_S = 0.005

_FRAMES = 6

_PACKAGE = str(Path(__file__).parents[2] / "vmsvc_grpc")


class Witness:
    """Sees how late the running event loop is, and what it does while it stands still."""

    def __init__(self, steps: Steps) -> None:
        """Nothing is seen before `run`. Must be made on the thread of the loop.

        Long collections are noted in `steps`: they happen within any other.
        """
        self._steps = steps
        self.lags_s: list[float] = []
        """How much later than due each tick came: what everybody waited for."""
        self.stood_s: list[float] = []
        """The same, but for what the thread waited for a core, which others' work had."""
        self.spent_s: list[float] = []
        """The thread's CPU from one tick to the next: a turn of the loop, or several short ones.

        No other process's work is in it.
        """
        self.kept_s = 0.0
        """The longest lag that was ours: the process has had as much CPU while it lasted.

        Also that of another thread, which may keep the interpreter while no step is at work.
        """
        self.places: Counter[str] = Counter()
        """Where the loop's thread was, as often as it was looked at in a long piece."""
        self._thread = threading.get_ident()
        self._ticked = time.perf_counter()
        self._collected = 0.0

    def forget(self) -> None:
        """Begin anew."""
        self.lags_s.clear()
        self.stood_s.clear()
        self.spent_s.clear()
        self.kept_s = 0.0
        self.places.clear()
        self._steps.forget()

    async def run(self) -> None:
        """Watch until cancelled."""
        over = threading.Event()
        looking = threading.Thread(target=self._look, args=(over,), name="witness", daemon=True)
        looking.start()
        gc.callbacks.append(self._collecting)
        try:
            while True:
                began, cpu_s, waited_s = time.perf_counter(), time.thread_time(), _waited_s()
                all_cpu_s = time.process_time()
                self._ticked = began
                await asyncio.sleep(TICK_S)
                lag_s = max(0.0, time.perf_counter() - began - TICK_S)
                self.lags_s.append(lag_s)
                self.stood_s.append(max(0.0, lag_s - (_waited_s() - waited_s)))
                self.spent_s.append(time.thread_time() - cpu_s)
                self.kept_s = max(self.kept_s, min(lag_s, time.process_time() - all_cpu_s))
        finally:
            gc.callbacks.remove(self._collecting)
            over.set()

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        """Note a collection that takes long: no other thread can see it."""
        if phase == "start":
            self._collected = time.thread_time()
            return
        spent_s = time.thread_time() - self._collected
        if spent_s >= NOTED_S:
            self._steps.note(f"garbage collector, generation {info['generation']}", spent_s)

    def _look(self, over: threading.Event) -> None:
        while not over.wait(_LOOK_S):
            if time.perf_counter() - self._ticked > _LONG_S:
                self.places[_place(sys._current_frames()[self._thread])] += 1  # noqa: SLF001


def _waited_s() -> float:
    """How long this thread has waited for a core so far, ready to run."""
    # Documentation/scheduler/sched-stats.rst: on the CPU, waiting for it, timeslices; ns.
    return int(Path("/proc/thread-self/schedstat").read_bytes().split()[1]) / 1e9


def _place(frame: FrameType | None) -> str:
    """Our functions in a stack, the innermost first."""
    names: list[str] = []
    while frame is not None and len(names) < _FRAMES:
        code = frame.f_code
        if code.co_filename.startswith(_PACKAGE):
            names.append(f"{Path(code.co_filename).stem}.{code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(names) or "none of ours"
