"""Where objects come from: each source tells the same events.

A source does not know the cache. It calls `emit` for one event at a time, on the event
loop, and what it read is true at that moment: nothing is awaited between reading and
emitting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vmsvc_grpc.model.events import Event

Emit = Callable[[Event], None]


class Source(Protocol):
    """Tells what exists, and what changes, for as long as it runs."""

    async def run(self, emit: Emit) -> None:
        """Tell events, beginning with a complete list of each kind; until cancelled.

        A bad object is reported and passed over. Raises only where nothing can be
        read at all and trying again would not help.
        """
