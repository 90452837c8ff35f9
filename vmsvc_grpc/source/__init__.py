"""Where objects come from: each source emits the same events.

A source does not know the cache. Its `run` calls `emit` for one event at a time, on the event
loop, beginning with a complete list of each kind, until it is cancelled. Nothing is awaited between
reading an object and emitting it, so each event is true when it is emitted. A bad object is
reported and skipped; `run` raises only if nothing can be read at all and trying again would not
help.
"""

from __future__ import annotations

from collections.abc import Callable

from vmsvc_grpc.model.events import Event

Emit = Callable[[Event], None]
"""Takes in the next event. Does not wait."""


class SourceError(Exception):
    """Nothing can be read, and trying again would not help; the message says why."""
