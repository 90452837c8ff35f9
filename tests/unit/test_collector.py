"""The garbage collector looks at little at a time."""

from __future__ import annotations

import asyncio
import gc

import pytest

from tests.unit.collector import unchanged_collector
from vmsvc_grpc.collector import LOOK_S, calm_collector, collect_young

__all__ = ["unchanged_collector"]


@pytest.mark.usefixtures("unchanged_collector")
async def test_what_is_replaced_again_and_again_does_not_pile_up_among_the_young() -> None:
    """As many objects are freed as are made: Python did not look, and then at all of them."""
    calm_collector()
    looking = asyncio.create_task(collect_young())
    held: list[list[object]] = [[] for _ in range(200_000)]
    gc.collect(1)
    most = 0
    for first in range(0, len(held), 2_000):
        held[first : first + 2_000] = [[] for _ in range(2_000)]
        await asyncio.sleep(LOOK_S)
        most = max(most, len(gc.get_objects(0)) + len(gc.get_objects(1)))
    looking.cancel()
    assert most < len(held) / 4
