"""Counters of the server, for tests and metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vmsvc_grpc.histogram import Histogram
from vmsvc_grpc.server.call import Code
from vmsvc_grpc.server.deliveries import Deliveries

HANDLING_BOUNDS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(60.0, 600.0, 3600.0),
)
"""The upper bounds of the buckets of calls: look-ups take below 1 ms, and streams half an hour."""


@dataclass(slots=True)
class ServerCounts:
    """The counters of one server. All but `streams_open` only rise."""

    started: Counter[str] = field(default_factory=Counter)
    """Calls that have begun, by path (`/package.Service/Method`)."""

    calls: Counter[tuple[str, Code]] = field(default_factory=Counter)
    """Calls that have ended, by path and code."""

    handling: dict[str, Histogram] = field(default_factory=dict)
    """How long calls took that have ended, by path."""

    streams_open: Counter[str] = field(default_factory=Counter)
    """Streams that are open now, by path."""

    encodings: Counter[str] = field(default_factory=Counter)
    """Messages about endpoints that were made, by kind: snapshot, delta, current, absent."""

    messages: Counter[str] = field(default_factory=Counter)
    """Messages that watches handed to the transport, by kind: the same ones, and synced."""

    xds_encodings: Counter[str] = field(default_factory=Counter)
    """Resources of xDS that were made, by type (Cluster, ClusterLoadAssignment, ...)."""

    xds_resources_sent: Counter[str] = field(default_factory=Counter)
    """Resources that were put into responses, by type; removals among them."""

    xds_resources_skipped: Counter[str] = field(default_factory=Counter)
    """Resources that were looked at for a stream and had nothing new for it, by type."""

    xds_acks: Counter[str] = field(default_factory=Counter)
    """Responses that clients acknowledged, by type."""

    xds_nacks: Counter[str] = field(default_factory=Counter)
    """Responses that clients refused, by type."""

    refusals: Counter[str] = field(default_factory=Counter)
    """What was refused at a bound, or had to wait there, by the setting that names it."""

    deliveries: Deliveries = field(default_factory=Deliveries)
    """How long changes take until streams are sent them."""

    request_bytes: int = 0
    """Bytes of requests that were handed to methods."""

    faults: int = 0
    """Calls that ended by a fault of ours, each of which is logged."""

    drained: int = 0
    """Streams that were ended because the server stops."""

    def ended(self, path: str, code: Code, seconds: float) -> None:
        """Count a call that has ended."""
        self.calls[path, code] += 1
        taken = self.handling.get(path)
        if taken is None:
            taken = self.handling[path] = Histogram(HANDLING_BOUNDS_S)
        taken.observe(seconds)
