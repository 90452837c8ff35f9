"""Many who ask for the metrics at once cost the event loop what one costs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from vmsvc_grpc.server.http.scrapes import Scrapes

PARTS = 5


class Desk:
    """Pages that say which they are; each part is a slice of work."""

    def __init__(self) -> None:
        self.begun = 0
        self.turn = 0
        self.working = asyncio.Event()
        self.slices: Counter[int] = Counter()
        self.scrapes = Scrapes(self._page, work_s=0)

    def _page(self, open_metrics: bool) -> Iterator[bytes]:
        self.begun += 1
        yield f"{self.begun}{' open' * open_metrics}".encode()
        self.working.set()
        for _ in range(PARTS):
            self.slices[self.turn] += 1
            yield b"."

    async def count_turns(self) -> None:
        while True:
            self.turn += 1
            await asyncio.sleep(0)

    def ask(self, open_metrics: bool = False) -> asyncio.Task[bytes]:
        return asyncio.create_task(self.scrapes.page(open_metrics))


DOTS = b"." * PARTS


async def test_scrapes_at_once_share_a_page_and_a_turn() -> None:
    desk = Desk()
    turns = asyncio.create_task(desk.count_turns())
    early = desk.ask()
    await desk.working.wait()
    late = [desk.ask() for _ in range(60)]
    opened = [desk.ask(open_metrics=True) for _ in range(60)]
    bodies = await asyncio.gather(early, *late, *opened)
    # Who asks while a page is made gets one that is begun after that.
    assert bodies == [b"1" + DOTS, *[b"2" + DOTS] * 60, *[b"3 open" + DOTS] * 60]
    assert max(desk.slices.values()) == 1
    turns.cancel()


async def test_each_of_two_scrapes_one_after_the_other_gets_a_page_of_its_own() -> None:
    desk = Desk()
    assert await desk.ask() == b"1" + DOTS
    assert await desk.ask() == b"2" + DOTS


async def test_who_goes_away_leaves_the_page_to_the_next() -> None:
    desk = Desk()
    first, second, third = desk.ask(), desk.ask(), desk.ask()
    await desk.working.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert [await second, await third] == [b"2" + DOTS] * 2
