"""How much the server has done, for tests and metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vmsvc_grpc.server.call import Code


@dataclass(slots=True)
class Counts:
    """Numbers of one server. All but `streams_open` only rise."""

    calls: Counter[tuple[str, Code]] = field(default_factory=Counter)
    """Calls that have ended, by path (`/package.Service/Method`) and code."""

    streams_open: Counter[str] = field(default_factory=Counter)
    """Streams that are open now, by path."""

    encodings: Counter[str] = field(default_factory=Counter)
    """Messages about endpoints that were made, by kind: snapshot, delta, current, absent."""

    messages: Counter[str] = field(default_factory=Counter)
    """Messages that watches gave to the transport, by kind: those, and synced."""

    drained: int = 0
    """Streams that were ended because the server stops."""
