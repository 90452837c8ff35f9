"""How a client reaches its server: the address for gRPC, and the channel's settings.

Does not import gRPC: the command line reads its arguments first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from grpc import ChannelCredentials

    from vmsvc.retry import RetryPolicy

DEFAULT_SERVER = "127.0.0.1:50051"

# A peer that vanished is noticed within the sum of these two.
_KEEPALIVE_TIME_S = 30
_KEEPALIVE_TIMEOUT_S = 10
_CONNECT_TIMEOUT_S = 5

# All endpoints of a service come in one message; some 400,000 fit.
_MESSAGE_BYTES_MAX = 64 * 1024 * 1024

# A client that stalls should hold few stale messages in flight, and then get the newest:
# with a window that does not grow, 445 small ones instead of 19,957.
_IN_FLIGHT_BYTES_MAX = 65_535

_HOST_AND_PORT = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):[0-9]{1,5}")
_GRPC_NAME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract):\S+")


_LOOPBACK = re.compile(
    r"(dns:(///)?)?(localhost|127(\.[0-9]{1,3}){3}|\[::1\]):[0-9]+"
    r"|ipv4:127(\.[0-9]{1,3}){3}:[0-9]+|ipv6:\[::1\]:[0-9]+|unix(-abstract)?:\S+"
)


def is_loopback(server: str) -> bool:
    """Whether what is sent to a server stays on this machine, as far as its address tells."""
    return _LOOPBACK.fullmatch(server) is not None


def target(server: str) -> str:
    """`server` as a target for gRPC: HOST:PORT, or a gRPC name such as `dns:///HOST:PORT`.

    Raises ValueError for anything else; gRPC itself would try port 443.
    """
    if not (_HOST_AND_PORT.fullmatch(server) or _GRPC_NAME.fullmatch(server)):
        raise ValueError(f"server {server!r} is not HOST:PORT; write for instance {DEFAULT_SERVER}")
    return server


# Reads may be tried again. A server that is about to stop has a successor soon.
_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_UNARY = (
    ("vmsvc.v1.EndpointService", "ResolveEndpoints"),
    ("vmsvc.v1.EndpointService", "ListServices"),
    ("vmsvc.v1.EndpointService", "ExplainEndpoints"),
    ("vmsvc.v1.ServerService", "GetVersion"),
)
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": service, "method": method} for service, method in _UNARY],
                "retryPolicy": _RETRY_POLICY,
            }
        ]
    }
)


Channel = TypeVar("Channel")


@dataclass(eq=False, slots=True)
class Held(Generic[Channel]):
    """A channel, and how many streams are open on it."""

    channel: Channel
    streams: int = 0


class Channels(Generic[Channel]):
    """A client's channel, made anew when its credentials change, and earlier ones with streams.

    Those go on, until the server ends their connections. Threads may not share it.
    """

    def __init__(self, make: Callable[[ChannelCredentials | None], Channel]) -> None:
        """`make` makes a channel with these credentials."""
        self._make = make
        self._credentials: ChannelCredentials | None = None
        self._held: list[Held[Channel]] = []

    def newest(self, credentials: ChannelCredentials | None) -> Held[Channel]:
        """The channel for calls that begin now."""
        if not self._held or credentials is not self._credentials:
            self._credentials = credentials
            self._held.append(Held(self._make(credentials)))
        return self._held[-1]

    def take_idle(self) -> list[Channel]:
        """Earlier ones without streams, to be closed; but not the last of them, which has calls."""
        idle = [held for held in self._held[:-2] if not held.streams]
        self._held = [held for held in self._held if held not in idle]
        return [held.channel for held in idle]

    def take_all(self) -> list[Channel]:
        """All, to be closed."""
        held, self._held = self._held, []
        return [each.channel for each in held]


def options(policy: RetryPolicy) -> Sequence[tuple[str, int | str]]:
    """The settings of a channel. Its own back-off follows that of the watches on it."""
    return (
        ("grpc.service_config", _SERVICE_CONFIG),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _IN_FLIGHT_BYTES_MAX),
        ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
        ("grpc.keepalive_time_ms", _KEEPALIVE_TIME_S * 1000),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_S * 1000),
        # What ends the connection in fact; a minute by itself, so that it took 90 s in all.
        ("grpc.http2.ping_timeout_ms", _KEEPALIVE_TIMEOUT_S * 1000),
        # A watch may be silent for hours.
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", round(policy.backoff_initial_s * 1000)),
        ("grpc.max_reconnect_backoff_ms", round(policy.backoff_max_s * 1000)),
        # Despite its name, this bounds one attempt to connect.
        ("grpc.min_reconnect_backoff_ms", _CONNECT_TIMEOUT_S * 1000),
    )
