"""How much is done in one turn of the event loop, whoever it is for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from vmsvc_grpc.server.session import TURN_S
from vmsvc_grpc.server.transport.turns import Line, Turns


class Clock:
    """A time that passes only where work says that it took some."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class World:
    """Turns by a clock of ours, and a log of what was done, with a bar between two turns."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.turns = Turns(self.clock)
        self.log: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self.log.append("|")
        self._loop.call_soon(self._tick)

    def work(self, name: str, part: float = 0.0) -> Callable[[], str]:
        """Work that takes a part of what a turn is for."""

        def work() -> str:
            self.log.append(name)
            self.clock.now += part * TURN_S
            return name

        return work

    def by_turn(self) -> list[str]:
        return [turn for turn in "".join(self.log).split("|") if turn]


async def test_a_burst_is_done_in_order_some_ms_a_turn() -> None:
    world = World()
    names = "abcdefghij"
    done = await asyncio.gather(
        *(world.turns.run(Line.NEWS, world.work(name, 0.4)) for name in names)
    )
    assert "".join(done) == names
    assert world.by_turn() == ["abc", "def", "ghi", "j"]


async def test_work_that_takes_longer_than_a_turn_has_its_own() -> None:
    world = World()
    await asyncio.gather(*(world.turns.run(Line.NEWS, world.work(name, 3)) for name in "abc"))
    assert world.by_turn() == ["a", "b", "c"]


async def test_what_takes_no_time_never_waits() -> None:
    world = World()
    for name in "abc" * 10:
        await world.turns.run(Line.NEWS, world.work(name))
    assert world.log == list("abc" * 10)


async def test_slices_of_many_are_done_in_later_turns_one_after_the_other() -> None:
    world = World()

    async def works(name: str) -> None:
        for _ in range(3):
            await world.turns.run_later(Line.NEWS, world.work(name, 0.6))
            world.log.append("|")

    await asyncio.gather(*map(works, "abc"))
    assert "".join(world.log).replace("|", "") == "abcabcabc"
    assert all(len(turn) <= 2 for turn in world.by_turn())


async def test_who_comes_later_does_not_overtake() -> None:
    world = World()
    first = [asyncio.ensure_future(world.turns.run(Line.NEWS, world.work(n, 1))) for n in "ab"]
    await asyncio.sleep(0)
    await world.turns.run(Line.NEWS, world.work("c"))
    await asyncio.gather(*first)
    assert "".join(world.by_turn()) == "abc"


async def test_an_answer_waits_for_no_more_than_what_is_left_of_a_turn() -> None:
    """It waited behind a slice of each of 100 Envoys: 0.6 s."""
    world = World()
    slices = [
        asyncio.ensure_future(world.turns.run_later(Line.SLICES, world.work("s", 0.3)))
        for _ in range(100)
    ]
    while world.log.count("s") < 10:  # noqa: ASYNC110 - it is nobody's event
        await asyncio.sleep(0)
    for line in (Line.ANSWERS, Line.NEWS):
        before = world.log.count("s")
        await world.turns.run(line, world.work("a"))
        # What is left of this turn, and the next one, in which the caller hears of it.
        assert world.log.count("s") <= before + 8
    await asyncio.gather(*slices)


async def test_lines_in_which_work_waits_get_the_same_time() -> None:
    """So a client that asks for many answers, however costly, holds up no stream."""
    world = World()
    parts = {Line.ANSWERS: 1.5, Line.NEWS: 0.1, Line.SLICES: 0.5}
    waiting = [
        asyncio.ensure_future(world.turns.run_later(line, world.work(line.name[0], part)))
        for line, part in parts.items()
        for _ in range(100)
    ]
    while world.log.count("S") < 10:  # noqa: ASYNC110 - it is nobody's event
        await asyncio.sleep(0)
    spent = {line: world.log.count(line.name[0]) * part for line, part in parts.items()}
    # Each may be ahead by its last piece.
    assert max(spent.values()) - min(spent.values()) <= 2 * max(parts.values())
    await asyncio.gather(*waiting)


async def test_a_line_saves_up_no_time_and_has_none_held_against_it() -> None:
    world = World()
    for _ in range(50):
        await world.turns.run_later(Line.NEWS, world.work("n", 1))
    world.log.clear()
    both = [
        asyncio.ensure_future(world.turns.run_later(line, world.work(line.name[0], 1)))
        for _ in range(10)
        for line in (Line.NEWS, Line.SLICES)
    ]
    await asyncio.gather(*both)
    done = [name for name in world.log if name != "|"]
    assert all(abs(done[:n].count("N") - done[:n].count("S")) <= 1 for n in range(len(done)))


async def test_who_is_cancelled_has_nothing_done() -> None:
    world = World()
    first, second = (
        asyncio.ensure_future(world.turns.run_later(Line.NEWS, world.work(name, 1)))
        for name in "ab"
    )
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.wait_for(second, 5) == "b"
    assert first.cancelled()
    assert world.by_turn() == ["b"]


async def test_what_work_raises_is_for_who_asked() -> None:
    world = World()

    def fails() -> None:
        raise ZeroDivisionError

    for turn in (world.turns.run, world.turns.run_later):
        with pytest.raises(ZeroDivisionError):
            await turn(Line.NEWS, fails)
    assert await world.turns.run_later(Line.NEWS, world.work("a")) == "a"
