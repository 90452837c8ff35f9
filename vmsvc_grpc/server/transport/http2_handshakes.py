"""When TLS goes on: clients take turns, and one turn of the event loop has few steps.

A step of a handshake takes a signature, or checks one; records that say nothing take as long. All
clients come back at once after a restart, and whoever reaches the port may have thousands of
handshakes end in the same moment: others would wait for all.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from vmsvc_grpc.server.transport.round_robin import RoundRobin

HANDSHAKES_TURN_S = 0.005
"""How long steps may take in one turn of the event loop; a single one may be longer."""

# What has begun may have this part of it while others wait: else whoever sends handshakes byte by
# byte would let nobody in.
_BEGUN_PART = 0.75


class Shaking(Protocol):
    """A connection that has something to do for TLS."""

    client: str

    @property
    def begun(self) -> bool:
        """Whether it has taken a step of its handshake already."""

    def step(self) -> None:
        """Go on, if there still is something to do. Raises for a fault of ours alone."""


class HandshakeTurns:
    """Lets TLS go on, those first that have begun their handshakes. One event loop owns it.

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
        now = self._loop.time()
        try:
            self._some(self._begun, now + HANDSHAKES_TURN_S * (_BEGUN_PART if self._others else 1))
            self._some(self._others, now + HANDSHAKES_TURN_S)
        finally:  # Whatever happens, the others have their turns.
            if self._begun or self._others:
                self._work()

    def _some(self, waiting: RoundRobin[str, Shaking], until: float) -> None:
        """One that waits at least, if any does, and more until the time is over."""
        while waiting:
            waiting.popleft().step()
            if self._loop.time() > until:
                break
