"""How calls travel: a transport moves bytes, and does not know what they mean."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, NamedTuple, Protocol

from google.protobuf.message import Message

from vmsvc_grpc.server.call import Method, RpcError
from vmsvc_grpc.server.deliveries import Line
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import Sessions


class Listener(NamedTuple):
    """Where clients connect, and how.

    `address` is `host:port`, an IPv6 host in brackets; port 0 takes a free one. With `tls`, every
    connection has to use TLS; without, none does. It gives the context for a handshake that begins
    now, a server's that offers HTTP/2, and nothing else, by ALPN (RFC 9113, 3.2).
    `guarded`: each call is asked who calls, and whether it may.
    """

    address: str
    tls: Callable[[], ssl.SSLContext] | None = None
    guarded: bool = False


class Transport(Protocol):
    """Carries the calls of one server. Life: `serve`, `bind`, `start`, then `stop`.

    `bind` may be called for several listeners, whose connections count together.

    Must be made on the event loop that will run it. `stop` may be called twice.
    """

    name: ClassVar[str]
    """As `--transport` has it."""

    def channelz(self, method: str, request: Message) -> Message:
        """The answer of channelz' `method` about this transport's connections. Raises RpcError."""

    def serve(self, methods: Iterable[Method]) -> None:
        """Set the methods. Once, before `start`."""

    def bind(self, listener: Listener) -> int:
        """Bind a listener's address; returns the port, a free one for 0. Raises OSError."""

    async def start(self) -> None:
        """Accept calls from now on."""

    async def stop(self, grace_s: float) -> None:
        """Accept no more calls, and end those that have not ended after `grace_s`."""

    def taken(self) -> Mapping[str, int]:
        """How much is taken of bounds that are for all connections, by their names in `Limits`."""

    @property
    def line(self) -> Line | None:
        """Where its connections wait to be flushed; None if they do not."""

    @property
    def streams_open(self) -> int:
        """How many streams neither side has ended yet."""

    def end_streams(self, count: int, error: RpcError) -> None:
        """End so many streams with `error`, the oldest first; stalled ones too."""


MakeTransport = Callable[[Sessions, Limits], Transport]
"""Makes the transport of a server."""
