from __future__ import annotations

import asyncio
from typing import cast

import pytest

from vmsvc_grpc.server.transport.http2_handshakes import HANDSHAKES_TURN_S, HandshakeTurns


class Loop:
    """A loop of which each turn is asked for; its time passes by what is done."""

    def __init__(self) -> None:
        self.now = 0.0
        self._soon: list[object] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: object) -> None:
        self._soon.append(callback)

    def turn(self) -> None:
        (callback,) = self._soon
        self._soon.clear()
        assert callable(callback)
        callback()

    @property
    def rests(self) -> bool:
        return not self._soon


class Shaking:
    def __init__(
        self, client: str, loop: Loop, done: list[str], takes_s: float, *, begun: bool = False
    ) -> None:
        self.client = client
        self.begun = begun
        self._loop, self._done, self._takes_s = loop, done, takes_s

    def step(self) -> None:
        self._loop.now += self._takes_s
        self._done.append(self.client)


def test_a_turn_has_time_for_some_and_clients_take_turns() -> None:
    loop, done = Loop(), list[str]()
    turns = HandshakeTurns(cast(asyncio.AbstractEventLoop, loop))
    step_s = HANDSHAKES_TURN_S / 4
    for client in (*["many"] * 100, "one"):
        turns.line_up(Shaking(client, loop, done, step_s))
    loop.turn()
    assert len(done) == 5, "the last one began in time"
    assert done[1] == "one"
    turns.line_up(Shaking("late", loop, done, step_s))
    loop.turn()
    assert done[6] == "late"
    while not loop.rests:
        before = len(done)
        loop.turn()
        assert len(done) - before <= 5
    assert len(done) == 102
    turns.line_up(Shaking("after", loop, done, step_s))
    loop.turn()
    assert (done[-1], loop.rests) == ("after", True)


def test_a_step_that_takes_longer_than_a_turn_is_the_last_of_it() -> None:
    loop, done = Loop(), list[str]()
    turns = HandshakeTurns(cast(asyncio.AbstractEventLoop, loop))
    for _ in range(3):
        turns.line_up(Shaking("slow", loop, done, 2 * HANDSHAKES_TURN_S))
    for count in (1, 2, 3):
        loop.turn()
        assert len(done) == count


def test_what_has_begun_comes_first() -> None:
    """So that a crowd that takes longer than clients wait is served in part, and not nearly."""
    loop, done = Loop(), list[str]()
    turns = HandshakeTurns(cast(asyncio.AbstractEventLoop, loop))
    step_s = HANDSHAKES_TURN_S / 4
    for number in range(20):
        turns.line_up(Shaking(f"begins-{number}", loop, done, step_s))
    loop.turn()
    for number in range(3):
        turns.line_up(Shaking(f"goes-on-{number}", loop, done, step_s, begun=True))
    loop.turn()
    assert done[5:8] == ["goes-on-0", "goes-on-1", "goes-on-2"]
    assert done[8] == "begins-5"


class Dribbling(Shaking):
    """Sends its handshake byte by byte: each step is followed by another."""

    turns: HandshakeTurns

    def step(self) -> None:
        super().step()
        self.turns.line_up(self)


@pytest.mark.parametrize("steps", [0.1, 2.0])
def test_who_goes_on_for_ever_leaves_others_time_to_begin(steps: float) -> None:
    loop, done = Loop(), list[str]()
    turns = HandshakeTurns(cast(asyncio.AbstractEventLoop, loop))
    dribbling = Dribbling("dribbling", loop, done, steps * HANDSHAKES_TURN_S, begun=True)
    dribbling.turns = turns
    for one in (dribbling, Shaking("other", loop, done, 0.0), Shaking("another", loop, done, 0.0)):
        turns.line_up(one)
    loop.turn()
    loop.turn()
    assert {"other", "another"} < set(done)


class Faulty(Shaking):
    def step(self) -> None:
        raise ZeroDivisionError


def test_a_fault_at_one_leaves_the_others_their_turns() -> None:
    loop, done = Loop(), list[str]()
    turns = HandshakeTurns(cast(asyncio.AbstractEventLoop, loop))
    turns.line_up(Faulty("faulty", loop, done, 0.0))
    turns.line_up(Shaking("other", loop, done, 0.0))
    with pytest.raises(ZeroDivisionError):
        loop.turn()
    loop.turn()
    assert (done, loop.rests) == (["other"], True)
