"""For tests of what changes Python's garbage collector, as a program does that is synced."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def unchanged_collector() -> Iterator[None]:
    """Afterwards the collector is as before: this process has other tests to run."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
