"""ClientStatusDiscoveryService: what each client of xDS was told, and what it made of it.

It is our own state of ACKs; gRPC's ready-made servicer would show what this process
takes as a client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from envoy.admin.v3 import config_dump_shared_pb2 as admin
from envoy.service.status.v3 import csds_pb2 as pb
from google.protobuf.message import DecodeError

from vmsvc_grpc.server.call import (
    AnswerStream,
    Call,
    Code,
    Method,
    RequestBound,
    RpcError,
    Stream,
    StreamMethod,
    UnaryMethod,
    Wake,
)
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds.requests import Node
from vmsvc_grpc.server.xds.resources import version_text
from vmsvc_grpc.server.xds.stream import XdsStream
from vmsvc_grpc.server.xds.subscription import ABSENT, XdsSubscription

_Message: TypeAlias = Any
"""A message of Envoy's API, which come without types."""

SERVICE: str = pb.DESCRIPTOR.services_by_name["ClientStatusDiscoveryService"].full_name

_MATCHES: dict[str, Callable[[str, str], bool]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
    "contains": str.__contains__,
}


class ClientStatus:
    """FetchClientStatus and StreamClientStatus, over the streams that are open now."""

    def __init__(self, streams: Callable[[], Iterable[XdsStream]], limits: Limits) -> None:
        """`streams` tells which are open; each is one ClientConfig."""
        self._streams = streams
        self._bytes_max = limits.status_bytes_max

    def methods(self) -> tuple[Method, ...]:
        """Both methods."""
        many = RequestBound.MANY_NAMES
        return (
            UnaryMethod(f"/{SERVICE}/FetchClientStatus", self.fetch, many),
            StreamMethod(f"/{SERVICE}/StreamClientStatus", self._open, many, client_streaming=True),
        )

    def fetch(self, request: bytes, _call: Call) -> bytes:
        """A ClientStatusResponse, without contents.

        Of node matchers it knows those of `node_id` that need no regular expression. Raises
        RpcError: INVALID_ARGUMENT, and RESOURCE_EXHAUSTED where a client could not take it.
        """
        asked = pb.ClientStatusRequest()
        try:
            asked.ParseFromString(request)
        except DecodeError:
            name = asked.DESCRIPTOR.full_name
            raise RpcError(Code.INVALID_ARGUMENT, f"the request is not a {name}") from None
        wanted = [_node_test(matcher) for matcher in asked.node_matchers]
        parts: list[bytes] = []
        size = 0
        for stream in self._streams():
            node = stream.node
            if node is not None and (not wanted or any(test(node) for test in wanted)):
                # One after the other they are a response with all.
                config = pb.ClientStatusResponse(config=[_client(node, stream)])
                parts.append(config.SerializeToString())
                size += len(parts[-1])
                if size > self._bytes_max:
                    raise RpcError(
                        Code.RESOURCE_EXHAUSTED,
                        f"the status is more than {self._bytes_max} bytes (status_bytes_max); ask "
                        "for some clients, by node_matchers on node_id",
                        limit="status_bytes_max",
                    )
        return b"".join(parts)

    def _open(self, call: Call, _wake: Wake) -> Stream:
        return AnswerStream(lambda request: self.fetch(request, call))


def _node_test(matcher: _Message) -> Callable[[Node], bool]:
    kind = matcher.node_id.WhichOneof("match_pattern")
    if matcher.node_metadatas or kind not in _MATCHES:
        raise RpcError(
            Code.INVALID_ARGUMENT,
            "node_matchers: match on node_id, by exact, prefix, suffix or contains",
        )
    matches, wanted = _MATCHES[kind], getattr(matcher.node_id, kind)
    if matcher.node_id.ignore_case:
        return lambda node: matches(node.id.lower(), wanted.lower())
    return lambda node: matches(node.id, wanted)


def _client(node: Node, stream: XdsStream) -> _Message:
    config = pb.ClientConfig(node=node.message)
    for subscription in stream.subscriptions.values():
        for name in {**subscription.names, **subscription.told}:
            config.generic_xds_configs.append(_status(subscription, name))
    return config


def _status(subscription: XdsSubscription, name: str) -> _Message:
    digest = subscription.told.get(name)
    shown = pb.ClientConfig.GenericXdsConfig(
        type_url=subscription.type_url.value,
        name=name,
        version_info=version_text(digest) if digest else "",
    )
    if digest is None:
        shown.config_status = pb.ConfigStatus.NOT_SENT
        shown.client_status = admin.ClientResourceStatus.REQUESTED
    elif subscription.unanswered(name):
        shown.config_status = pb.ConfigStatus.STALE
        shown.client_status = admin.ClientResourceStatus.REQUESTED
    elif name in subscription.refused:
        shown.config_status = pb.ConfigStatus.ERROR
        shown.client_status = admin.ClientResourceStatus.NACKED
        shown.error_state.details = subscription.refused[name]
    else:
        gone = digest == ABSENT
        status = admin.ClientResourceStatus
        shown.config_status = pb.ConfigStatus.SYNCED
        shown.client_status = status.DOES_NOT_EXIST if gone else status.ACKED
    return shown
