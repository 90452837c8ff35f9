"""When handshakes of TLS go on: clients take turns, and one turn of the event loop has few steps.

A step takes a signature, or checks one. All clients come back at once after a restart, and whoever
reaches the port may have thousands of handshakes end in the same moment: others would wait for all.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from vmsvc_grpc.server.transport.round_robin import RoundRobin

HANDSHAKES_TURN_S = 0.005
"""How long handshakes may take in one turn of the event loop; a single step may be longer."""


class Shaking(Protocol):
    """A connection whose handshake is not over."""

    client: str

    @property
    def begun(self) -> bool:
        """Whether it has taken a step already."""

    def step(self) -> None:
        """Go on with the handshake, if it still is not. Raises for a fault of ours alone."""


class HandshakeTurns:
    """Lets handshakes go on, those that have begun first. One event loop owns it.

    Clients give up after some time: gRPC's connect again if it has been 20 s. When there is more to
    do than fits in that, some are served in time so, where else all would be nearly done.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """None waits."""
        self._loop = loop
        self._begun: RoundRobin[str, Shaking] = RoundRobin()
        self._others: RoundRobin[str, Shaking] = RoundRobin()
        self._at_work = False

    def line_up(self, shaking: Shaking) -> None:
        """Have a connection take its step in its client's turn."""
        (self._begun if shaking.begun else self._others).append(shaking, shaking.client)
        self._work()

    def _work(self) -> None:
        if not self._at_work:
            self._at_work = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._at_work = False
        until = self._loop.time() + HANDSHAKES_TURN_S
        try:
            while (waiting := self._begun or self._others) and self._loop.time() <= until:
                waiting.popleft().step()
        finally:  # Whatever happens, the others have their turns.
            if self._begun or self._others:
                self._work()
