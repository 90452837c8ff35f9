"""Who follows what, in words: the open streams, by connection.

Pure but for the streams that it looks at. What a client has chosen to be called is text, and cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any
from urllib.parse import unquote

from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.problem import escaped
from vmsvc_grpc.server.call import Call
from vmsvc_grpc.server.endpoint_service.watch import WatchStream
from vmsvc_grpc.server.xds.stream import XdsStream
from vmsvc_grpc.server.xds.subscription import XdsSubscription

STREAMS_MAX = 1_000
"""Streams that are looked at: some 5 ms."""

_CONNECTIONS_MAX = 200
_STREAMS_OF_ONE_MAX = 20
_NAMES_MAX = 3

OpenStream = tuple[Call, WatchStream | XdsStream]
"""A stream that is open, and its caller."""


def clients(streams: Iterable[OpenStream], streams_open: int, connections: int) -> dict[str, Any]:
    """The connections of the first streams, with what each stream follows.

    `streams_open` and `connections` are how many there are in all.
    """
    found: dict[str, dict[str, Any]] = {}
    left_out = 0
    looked_at = list(islice(streams, STREAMS_MAX))
    for call, stream in looked_at:
        known = found.get(call.peer)
        if known is None:
            if len(found) == _CONNECTIONS_MAX:
                left_out += 1
                continue
            known = found[call.peer] = {
                "address": address(call.peer),
                "user": escaped(call.username),
                "streams": 0,
                "follows": [],
            }
        known["streams"] += 1
        if len(known["follows"]) < _STREAMS_OF_ONE_MAX:
            known["follows"].append(_follows(stream))
    return {
        "connections": connections,
        "streams": streams_open,
        "not_shown": left_out + streams_open - len(looked_at),
        "clients": list(found.values()),
    }


def address(peer: str) -> str:
    """The address of a peer, which is in gRPC's form: ipv4:192.0.2.1:50000."""
    kind, _, rest = unquote(peer).partition(":")
    return rest if kind in ("ipv4", "ipv6") else escaped(peer)


def _follows(stream: WatchStream | XdsStream) -> str:
    return _watch(stream) if isinstance(stream, WatchStream) else _xds(stream)


def _watch(stream: WatchStream) -> str:
    asked = stream.asked
    if asked is None:
        return "a watch that has not asked yet"
    parts = ["all services"] if asked.all_services else []
    if asked.namespaces:
        parts.append(_some("namespace", sorted(asked.namespaces), len(asked.namespaces)))
    named = stream.services
    if named:
        parts.append(_some("service", map(str, islice(named, _NAMES_MAX)), len(named)))
    shown = "all endpoints" if asked.filter_class is FilterClass.ALL else "ready endpoints"
    return f"{', '.join(parts) or 'nothing'}: {shown}"


def _xds(stream: XdsStream) -> str:
    node = stream.node
    if node is None:
        return "xDS, without a request yet"
    parts = [_subscription(one) for one in stream.subscriptions.values()]
    return f"xDS, node {escaped(node.id) or '(none)'}: {'; '.join(parts) or 'nothing'}"


def _subscription(one: XdsSubscription) -> str:
    parts = ["all"] if one.wildcard else []
    if one.names:
        parts.append(_some("name", map(escaped, islice(one.names, _NAMES_MAX)), len(one.names)))
    text = f"{one.type_url.label}: {', '.join(parts) or 'none'}"
    return f"{text} (refuses what it was sent)" if one.refusals else text


def _some(noun: str, names: Iterable[str], count: int) -> str:
    shown = list(islice(names, _NAMES_MAX))
    more = f" and {count - len(shown)} more" if count > len(shown) else ""
    return f"{count} {noun}{'' if count == 1 else 's'} ({', '.join(shown)}{more})"
