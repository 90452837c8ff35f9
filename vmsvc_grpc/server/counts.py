"""Counters of the server, for tests and metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vmsvc_grpc.server.call import Code


@dataclass(slots=True)
class ServerCounts:
    """The counters of one server. All but `streams_open` only rise."""

    calls: Counter[tuple[str, Code]] = field(default_factory=Counter)
    """Calls that have ended, by path (`/package.Service/Method`) and code."""

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

    request_bytes: int = 0
    """Bytes of requests that were handed to methods."""

    drained: int = 0
    """Streams that were ended because the server stops."""
