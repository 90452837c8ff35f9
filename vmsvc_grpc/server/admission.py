"""Which calls may begin: bounds on open streams, and none while the server drains."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from ipaddress import IPv6Address
from math import ceil
from typing import NamedTuple
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
_STRANGER = "stranger:"
_NEWCOMER = "newcomer:"
_ANONYMOUS = "anonymous:"

ANONYMOUS_PART = 10
"""Anonymous calls have this part of the places, and of the pace, that a client has."""


def is_stranger(client: str) -> bool:
    """Whether a client is whoever is at an address of whom it is not known yet who they are."""
    return client.startswith(_STRANGER)


def is_newcomer(client: str) -> bool:
    """Whether a client is a connection by which somebody calls who is not known yet."""
    return client.startswith(_NEWCOMER)


def is_anonymous(client: str) -> bool:
    """Whether a client is whoever is at an address and calls what is open to all."""
    return client.startswith(_ANONYMOUS)


def is_known(client: str) -> bool:
    """Whether a client is somebody, or an address where nobody is asked who they are."""
    return not client.startswith((_STRANGER, _NEWCOMER, _ANONYMOUS))


class Words(NamedTuple):
    """What a refusal says of a client: it may have been others at the same address."""

    who: str
    have: str = "have"
    make: str = "make"
    whose: str = ""
    instead: str = ""


_KNOWN = Words("this client", "has", "makes")
_WORDS = {
    _STRANGER: Words(
        "callers at this address of whom it is not known who they are",
        whose=" of callers of whom it is not known who they are",
        instead="try again",
    ),
    _NEWCOMER: Words(
        "this connection",
        "has",
        "makes",
        whose=" of connections with one caller of whom it is not known who they are",
        instead="try again",
    ),
    _ANONYMOUS: Words(
        "callers at this address who do not say who they are",
        whose=" of callers who do not say who they are",
        instead="say who asks, with a token or a client certificate",
    ),
}


def words_for(client: str) -> Words:
    """What a refusal says of a client."""
    kind, colon, _ = client.partition(":")
    return _WORDS.get(kind + colon, _KNOWN)


def stranger_at(peer: str) -> str:
    """The client for which a call of a guarded listener counts until it is known who calls.

    That takes nothing from those who are known, at that address or elsewhere.
    """
    return sys.intern(_STRANGER + client_of(peer))


def newcomer_at(peer: str) -> str:
    """The client for which one call at a time of a connection counts until it is known who calls.

    So whoever makes up tokens at an address does not keep out others who come from there.
    """
    return _NEWCOMER + peer


def stranger_of(client: str) -> str:
    """The strangers to whom a newcomer belongs; any other client as it is."""
    return stranger_at(client.removeprefix(_NEWCOMER)) if is_newcomer(client) else client


def anonymous_at(peer: str) -> str:
    """The client for which a call of what is open to all counts, if it is not known who calls.

    Nobody finds that out, so such a stream stays nobody's. That takes nothing from strangers, who
    wait to be known.
    """
    return sys.intern(_ANONYMOUS + client_of(peer))


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
    """Decides whether a call may begin. Not thread-safe: one event loop owns it.

    Strangers have as many places as all others, and no place of theirs; and so have newcomers, of
    each connection one. What is anonymous has a part as many, and none of theirs either.
    """

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
        self._strangers = Tally()
        self._newcomers = Tally()
        self._anonymous = Tally()
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

    def enter(self, path: str, client: str) -> None:
        """Count one more open stream of `path` for a client, until it is to `leave`.

        Raises RpcError: UNAVAILABLE as `check` does, RESOURCE_EXHAUSTED at a limit.
        """
        self.check(path)
        self._take_place(client)
        self._counts.streams_open[path] += 1

    def move(self, client: str, to: str) -> None:
        """Count an open stream of `client` for another one. Raises RpcError, moving nothing."""
        if client != to:
            self._take_place(to)
            self._places(client).add(client, -1)

    def leave(self, path: str, client: str) -> None:
        """Count one open stream less."""
        self._counts.streams_open[path] -= 1
        self._places(client).add(client, -1)

    def has_place_for(self, newcomer: str) -> bool:
        """Whether a newcomer may `enter`: its connection has no other, and there is room for it."""
        here = self._newcomers
        return not here.of(newcomer) and here.in_all < self._limits.streams_max

    def _places(self, client: str) -> Tally:
        if is_anonymous(client):
            return self._anonymous
        if is_newcomer(client):
            return self._newcomers
        return self._strangers if is_stranger(client) else self._streams

    def _take_place(self, client: str) -> None:
        places = self._places(client)
        words = words_for(client)
        part = ANONYMOUS_PART if is_anonymous(client) else 1
        most = ceil(self._limits.streams_max / part)
        if places.in_all >= most:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"the server has {most} streams{words.whose} open, which is its limit "
                "(streams_max); connect to another replica",
                limit="streams_max",
            )
        most = ceil(self._limits.streams_per_client_max / part)
        if places.of(client) >= most:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"{words.who} {words.have} {most} streams open, which is the limit "
                f"(streams_per_client_max); "
                f"{words.instead or 'watch several services on one stream'}",
                limit="streams_per_client_max",
            )
        places.add(client, 1)
