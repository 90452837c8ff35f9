"""Work counted by calls, which is the same on every machine, unlike time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """How many calls are made meanwhile, turns of generators among them."""
    counted = [0]

    def count(_frame: object, event: str, _of: object) -> None:
        counted[0] += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        yield counted
    finally:
        sys.setprofile(None)
