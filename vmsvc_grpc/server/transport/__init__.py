"""How calls travel: a transport moves bytes, and does not know what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from google.protobuf.message import Message

from vmsvc_grpc.server.call import Method, RpcError
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import Sessions


class Transport(Protocol):
    """Carries the calls of one server. Life: `serve`, `bind`, `start`, then `stop`.

    Must be made on the event loop that will run it. `stop` may be called twice.
    """

    def channelz(self, method: str, request: Message) -> Message:
        """The answer of channelz' `method` about this transport's connections. Raises RpcError."""

    def serve(self, methods: Iterable[Method]) -> None:
        """Set the methods. Once, before `start`."""

    def bind(self, address: str) -> int:
        """Bind `address` (`host:port`); returns the port, a free one for 0. Raises OSError."""

    async def start(self) -> None:
        """Accept calls from now on."""

    async def stop(self, grace_s: float) -> None:
        """Accept no more calls, and end those that have not ended after `grace_s`."""

    def taken(self) -> Mapping[str, int]:
        """How much is taken of bounds that are for all connections, by their names in `Limits`."""

    @property
    def streams_open(self) -> int:
        """How many streams neither side has ended yet."""

    def end_streams(self, count: int, error: RpcError) -> None:
        """End so many streams with `error`, the oldest first; stalled ones too."""


MakeTransport = Callable[[Sessions, Limits], Transport]
"""Makes the transport of a server."""
