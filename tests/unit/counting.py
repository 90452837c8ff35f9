"""Work counted by calls or lines, which is the same on every machine, unlike time."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from types import FrameType
from typing import Any


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """How many calls are made meanwhile, turns of generators among them."""
    counted = [0]

    def count(_frame: object, event: str, _of: object) -> None:
        counted[0] += event in ("call", "c_call")

    gc.disable()  # Others have callbacks in it.
    sys.setprofile(count)
    try:
        yield counted
    finally:
        sys.setprofile(None)
        gc.enable()


@contextmanager
def counted_lines() -> Iterator[list[int]]:
    """How many lines of Python are run meanwhile: each turn of a loop counts, with calls or not."""
    counted = [0]

    def count(_frame: FrameType, event: str, _of: object) -> Any:
        counted[0] += event == "line"
        return count

    before = sys.gettrace()
    gc.disable()  # As above.
    sys.settrace(count)
    try:
        yield counted
    finally:
        sys.settrace(before)
        gc.enable()


def is_linear(works: Sequence[int]) -> bool:
    """Whether each time there is twice as much to do, it is at most twice the work, and a bit."""
    return all(after < 2.2 * before for before, after in pairwise(works))
