"""How calls travel: a transport moves bytes, and knows nothing of what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from google.protobuf.message import Message

from vmsvc_grpc.server.call import Method, RpcError
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import Sessions


class Transport(Protocol):
    """Carries the calls of one server. Life: `serve`, `bind`, `start`, then `stop`.

    Made on the event loop that is to run it. `stop` may come twice.
    """

    def channelz(self, method: str, request: Message) -> Message:
        """What channelz's `method` answers of this transport's connections. Raises RpcError."""

    def serve(self, methods: Iterable[Method]) -> None:
        """These are the methods that there are. Once, before `start`."""

    def bind(self, address: str) -> int:
        """Take `address` (`host:port`); the port, also where 0 was asked for. Raises OSError."""

    async def start(self) -> None:
        """Take calls from now on."""

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and end those that have not ended within `grace_s`."""

    @property
    def streams_open(self) -> int:
        """How many streams have not been ended yet, by either side."""

    def end_streams(self, count: int, error: RpcError) -> None:
        """End that many streams with `error`, the oldest first; also those that are stalled."""


MakeTransport = Callable[[Sessions, Limits], Transport]
"""Makes the transport of a server."""
