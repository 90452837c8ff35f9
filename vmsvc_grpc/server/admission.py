"""Which calls may begin: bounds on open streams, and none while the server drains."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from ipaddress import IPv6Address
from urllib.parse import unquote

from vmsvc_grpc.server.call import Code, RequestBound, RpcError
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.fields import FieldShape, counted
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.tally import Tally


def draining() -> RpcError:
    """The error with which calls end, or are refused, while the server drains."""
    message = "the server is about to stop; connect again, to another replica"
    return RpcError(Code.UNAVAILABLE, message)


# An IPv6 host has a network of its own, and takes any of its addresses (RFC 4291, 2.5.4).
_IPV6_HOST_BITS = 64


_USER = "user:"


def is_known(client: str) -> bool:
    """Whether a client is somebody whose name is known, and not an address."""
    return client.startswith(_USER)


def client_of(peer: str, username: str = "") -> str:
    """The client for which a call counts: who calls, if that is known, else its address.

    That is without the port; of IPv6, the /64.

    `peer` is in gRPC's form (`ipv4:192.0.2.1:50000`, an IPv6 address in brackets, percent-encoded
    or not). All calls of a client share one text.
    """
    if username:
        return sys.intern(_USER + username)
    kind, _, rest = peer.partition(":")
    host = rest.rpartition(":")[0]
    if kind != "ipv6":
        return sys.intern(f"{kind}:{host}" if host else kind)
    return sys.intern(_network_of(unquote(host).strip("[]")))


def _network_of(host: str) -> str:
    """The network of an IPv6 address, in the form of a client."""
    address = IPv6Address(host)
    if address.ipv4_mapped is not None:
        return f"ipv4:{address.ipv4_mapped}"
    network = IPv6Address(int(address) >> _IPV6_HOST_BITS << _IPV6_HOST_BITS)
    # The same link-local network is another one on another interface.
    zone = f"%{address.scope_id}" if address.scope_id else ""
    return f"ipv6:[{network}{zone}]/{_IPV6_HOST_BITS}"


class Admission:
    """Decides whether a call may begin. Not thread-safe: one event loop owns it."""

    def __init__(
        self,
        limits: Limits,
        counts: ServerCounts,
        *,
        while_draining: AbstractSet[str] = frozenset(),
    ) -> None:
        """Calls of the paths in `while_draining` may begin even while the server drains."""
        self._limits = limits
        self._counts = counts
        self._while_draining = while_draining
        self._draining = False
        self._streams = Tally()
        self._request_bytes_max = {bound: getattr(limits, bound.value) for bound in RequestBound}

    def drain(self) -> None:
        """Refuse all calls from now on."""
        self._draining = True

    def check(self, path: str) -> None:
        """Raise RpcError (UNAVAILABLE) if no call of `path` may begin."""
        if self._draining and path not in self._while_draining:
            raise draining()

    def check_request(self, bound: RequestBound, request: bytes) -> None:
        """Raise RpcError (RESOURCE_EXHAUSTED) if a request is too large to be read."""
        self.check_length(bound, len(request))
        self._counts.request_bytes += len(request)

    def check_fields(self, shape: FieldShape, request: bytes) -> Iterator[None]:
        """Raise RpcError (RESOURCE_EXHAUSTED) if a request has too many fields to be read.

        Yields after each step of some ms, so that others have their turn.
        """
        most = self._limits.request_fields_max
        if len(request) <= most:
            return
        for fields in counted(request, shape):
            if fields > most:
                raise RpcError(
                    Code.RESOURCE_EXHAUSTED,
                    f"the request has more than {most} fields, which is the server's limit "
                    "(request_fields_max)",
                    limit="request_fields_max",
                )
            yield

    def check_length(self, bound: RequestBound, length: int) -> None:
        """The same for a request of `length` bytes that has not arrived yet."""
        most = self._request_bytes_max[bound]
        if length > most:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"the request has {length} bytes; the server's limit ({bound.value}) is {most}",
                limit=bound.value,
            )

    def enter(self, path: str, peer: str) -> str:
        """Count one more open stream of `path`; returns the client, for `leave`.

        `peer` is the client's address in gRPC's form (`ipv4:192.0.2.1:50000`); its port does not
        count. Raises RpcError: UNAVAILABLE as `check` does, RESOURCE_EXHAUSTED at a limit.
        """
        self.check(path)
        client = client_of(peer)
        self._check_room(client)
        self._streams.add(client, 1)
        self._counts.streams_open[path] += 1
        return client

    def move(self, client: str, to: str) -> None:
        """Count an open stream of `client` for another one. Raises RpcError, moving nothing."""
        if client != to:
            self._check_client(to)
            self._streams.add(client, -1)
            self._streams.add(to, 1)

    def leave(self, path: str, client: str) -> None:
        """Count one open stream less."""
        self._counts.streams_open[path] -= 1
        self._streams.add(client, -1)

    def _check_room(self, client: str) -> None:
        most = self._limits.streams_max
        if self._streams.in_all >= most:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"the server has {most} streams open, which is its limit (streams_max); "
                "connect to another replica",
                limit="streams_max",
            )
        self._check_client(client)

    def _check_client(self, client: str) -> None:
        most = self._limits.streams_per_client_max
        if self._streams.of(client) >= most:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"this client has {most} streams open, which is the limit "
                "(streams_per_client_max); watch several services on one stream",
                limit="streams_per_client_max",
            )
