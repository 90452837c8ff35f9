"""The servers that a backend should have, from those of a service. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from vmsvc.feed.target import Server

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class State(Enum):
    """An administrative state, by HAProxy's word for it."""

    READY = "ready"
    DRAIN = "drain"
    """New requests go to it only where a session persists on it."""
    MAINT = "maint"
    """It gets no new requests, and no health checks; those under way go on."""


@dataclass(frozen=True, slots=True)
class WantedServer:
    """One server; as a `backup` it gets requests only while all others are down."""

    address: Address
    port: int
    state: State
    backup: bool = False


def wanted(servers: Iterable[Server], *, not_ready: State, zone: str) -> tuple[WantedServer, ...]:
    """What HAProxy should send requests to, each address and port once.

    A server that is not ready has the state `not_ready`. With a `zone`, servers of other zones are
    backups.
    """
    found: dict[tuple[Address, int], WantedServer] = {}
    for server in servers:
        key = (ipaddress.ip_address(server.address), server.port)
        if key not in found or server.ready:
            state = State.READY if server.ready else not_ready
            found[key] = WantedServer(*key, state, bool(zone) and server.zone != zone)
    return tuple(found.values())
