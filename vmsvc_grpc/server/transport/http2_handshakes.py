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

    def step(self) -> None:
        """Go on with the handshake, if it still is not. Does not raise."""


class HandshakeTurns:
    """Lets handshakes go on. One event loop owns it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """None waits."""
        self._loop = loop
        self._waiting: RoundRobin[str, Shaking] = RoundRobin()

    def line_up(self, shaking: Shaking) -> None:
        """Have a connection take its step in its client's turn."""
        self._waiting.append(shaking, shaking.client)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        until = self._loop.time() + HANDSHAKES_TURN_S
        for _ in range(len(self._waiting)):
            self._waiting.popleft().step()
            if self._loop.time() > until:
                break
        if self._waiting:
            self._loop.call_soon(self._turn)
