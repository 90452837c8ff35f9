"""What is done again and again: in a thread of its own, or one after another from a deck."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

Act = Callable[[], None]


@contextmanager
def repeating(name: str, act: Act, pause_s: float) -> Iterator[None]:
    """Acts in a thread, with pauses, until the block ends. Raises there what has failed here."""
    end = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            while not end.wait(pause_s):
                act()
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            failed.append(error)

    thread = threading.Thread(target=run, name=name)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
    if failed:
        raise failed[0]


class Deck:
    """Acts by name. Each is done once before any is done again, in an order of the dice."""

    def __init__(self, acts: Mapping[str, Act], seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._acts = acts
        self._random = random.Random(f"{seed} deck")

    def play(self, until_s: float, pause_s: float) -> None:
        """Act until that time (of the monotonic clock), with pauses; each at least once."""
        while True:
            for name in self._shuffled():
                self._acts[name]()
                self.counts[name] += 1
                time.sleep(pause_s)
                if time.monotonic() > until_s and len(self.counts) == len(self._acts):
                    return

    def _shuffled(self) -> Sequence[str]:
        return self._random.sample(sorted(self._acts), len(self._acts))
