"""What calls leave behind goes in slices, however many end at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from vmsvc_grpc.server.leaving import STEPS_MAX, Leaving


class Left:
    """What a call leaves behind, in so many steps."""

    def __init__(self, steps: int) -> None:
        self.made = 0
        self._steps = steps

    def steps(self) -> Iterator[None]:
        for _ in range(self._steps):
            self.made += 1
            yield


def test_what_is_little_goes_at_once() -> None:
    leaving, left = Leaving(), Left(10)
    leaving.let_go(left.steps())
    assert left.made == 10


async def test_what_is_much_goes_a_slice_a_turn_and_in_order() -> None:
    leaving, calls = Leaving(), [Left(3 * STEPS_MAX + 7) for _ in range(20)]
    for call in calls:
        leaving.let_go(call.steps())
    made = [sum(call.made for call in calls)]
    while any(call.made < 3 * STEPS_MAX + 7 for call in calls):
        await asyncio.sleep(0)
        made.append(sum(call.made for call in calls))
        done = [call.made for call in calls]
        assert done == sorted(done, reverse=True)
    a_turn = [after - before for before, after in zip([0, *made], made, strict=False)]
    assert max(a_turn) <= STEPS_MAX
    leaving.let_go((last := Left(1)).steps())
    await asyncio.sleep(0)
    assert last.made == 1
