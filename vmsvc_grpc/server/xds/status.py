"""ClientStatusDiscoveryService: what each client of xDS was sent, and how it answered.

It shows our own state of ACKs; gRPC's ready-made servicer would show this process as a client.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from envoy.admin.v3 import config_dump_shared_pb2 as admin
from envoy.service.status.v3 import csds_pb2 as pb

from vmsvc_grpc.server.access.needs import Needs, UrlNeed
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
    parsed,
)
from vmsvc_grpc.server.encoding import bytes_field
from vmsvc_grpc.server.fields import shape_of
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds.requests import Node
from vmsvc_grpc.server.xds.resources import TypeUrl, resource_version
from vmsvc_grpc.server.xds.stream import XdsStream
from vmsvc_grpc.server.xds.subscription import ABSENT, XdsSubscription

_Message: TypeAlias = Any
"""A message of Envoy's API, which come without types."""

SERVICE: str = pb.DESCRIPTOR.services_by_name["ClientStatusDiscoveryService"].full_name

URL = "/vmsvc-grpc/csds"
"""The non-resource URL that callers need the right to get: answers show what others ask for."""

_MATCHES: dict[str, Callable[[str, str], bool]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
    "contains": str.__contains__,
}


_KINDS = ", ".join(_MATCHES)

_MATCHERS_MAX = 20  # Each is tried on each client.

# The possible statuses of a resource. (A look-up in protobuf takes as long as all the rest.)
_NOT_SENT = pb.ConfigStatus.NOT_SENT, admin.ClientResourceStatus.REQUESTED
_UNANSWERED = pb.ConfigStatus.STALE, admin.ClientResourceStatus.REQUESTED
_REFUSED = pb.ConfigStatus.ERROR, admin.ClientResourceStatus.NACKED
_GONE = pb.ConfigStatus.SYNCED, admin.ClientResourceStatus.DOES_NOT_EXIST
_TAKEN = pb.ConfigStatus.SYNCED, admin.ClientResourceStatus.ACKED

# The least that a resource takes: its type, a name of a few characters, and their lengths.
_ENTRY_BYTES_MIN = 70

_CONFIG = pb.ClientStatusResponse.DESCRIPTOR.fields_by_name["config"].number
_GENERIC = pb.ClientConfig.DESCRIPTOR.fields_by_name["generic_xds_configs"].number
_FIELDS = pb.ClientConfig.GenericXdsConfig.DESCRIPTOR.fields_by_name
_NAME, _VERSION = _FIELDS["name"].number, _FIELDS["version_info"].number


class ClientStatus:
    """FetchClientStatus and StreamClientStatus, over the streams that are open now."""

    def __init__(self, streams: Callable[[], Iterable[XdsStream]], limits: Limits) -> None:
        """`streams` returns the open ones; each is one ClientConfig."""
        self._streams = streams
        self._bytes_max = limits.status_bytes_max

    def methods(self) -> tuple[Method, ...]:
        """Both methods."""
        few = RequestBound.ONE_NAME  # A matcher names one thing, and there are few of them.
        asked = shape_of(pb.ClientStatusRequest.DESCRIPTOR)
        needs = Needs(UrlNeed("get", URL))
        stream = f"/{SERVICE}/StreamClientStatus"
        return (
            UnaryMethod(f"/{SERVICE}/FetchClientStatus", self.fetch, few, asked, needs),
            StreamMethod(stream, self._open, few, asked, needs, client_streaming=True),
        )

    def fetch(self, request: bytes, _call: Call) -> bytes:
        """A ClientStatusResponse, without contents, of the clients that any matcher matches.

        Raises RpcError: INVALID_ARGUMENT for a matcher that we do not support, and
        RESOURCE_EXHAUSTED if the answer would be too large, which is estimated before it is made.
        """
        asked = parsed(pb.ClientStatusRequest, request)
        wanted = _node_tests(asked.node_matchers)
        clients = [
            (node, stream)
            for stream in self._streams()
            if (node := stream.node) is not None
            and (not wanted or any(test(node) for test in wanted))
        ]
        self._check(sum(_bytes_at_least(node, stream) for node, stream in clients))
        parts: list[bytes] = []
        size = 0
        for node, stream in clients:
            part = bytes_field(_CONFIG, b"".join(_client(node, stream, self._bytes_max)))
            size += len(part)
            self._check(size)
            parts.append(part)
        return b"".join(parts)

    def _check(self, size: int) -> None:
        if size > self._bytes_max:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"the status is more than {self._bytes_max} bytes (status_bytes_max); ask "
                "for some clients, by node_matchers on node_id",
                limit="status_bytes_max",
            )

    def _open(self, call: Call, _wake: Wake) -> Stream:
        return AnswerStream(lambda request: self.fetch(request, call))


def _node_tests(matchers: Sequence[_Message]) -> list[Callable[[Node], bool]]:
    """A test of clients for each matcher; a client has to pass one of them."""
    if len(matchers) > _MATCHERS_MAX:
        text = f"node_matchers: {len(matchers)} are too many; use at most {_MATCHERS_MAX}"
        raise RpcError(Code.INVALID_ARGUMENT, text)
    return [_node_test(f"node_matchers[{n}]", matcher) for n, matcher in enumerate(matchers)]


def _node_test(field: str, matcher: _Message) -> Callable[[Node], bool]:
    """The test of one matcher; an empty matcher matches every client."""
    if matcher.node_metadatas:
        text = f"{field}.node_metadatas: cannot be matched by here; match on node_id"
        raise RpcError(Code.INVALID_ARGUMENT, text)
    if not matcher.HasField("node_id"):
        return lambda _: True
    kind = matcher.node_id.WhichOneof("match_pattern")
    if kind not in _MATCHES:
        # A regular expression can take for ever, and there is only one event loop.
        wrong = f"{kind} cannot be matched by here" if kind else "has no pattern"
        raise RpcError(Code.INVALID_ARGUMENT, f"{field}.node_id: {wrong}; use {_KINDS}")
    matches, wanted = _MATCHES[kind], getattr(matcher.node_id, kind)
    if matcher.node_id.ignore_case:
        folded = wanted.lower()
        return lambda node: matches(node.id.lower(), folded)
    return lambda node: matches(node.id, wanted)


def _bytes_at_least(node: Node, stream: XdsStream) -> int:
    """The least bytes that the status of a client takes."""
    entries = sum(s.names_at_least for s in stream.subscriptions.values())
    return int(node.message.ByteSize()) + entries * _ENTRY_BYTES_MIN


def _client(node: Node, stream: XdsStream, bytes_max: int) -> Iterator[bytes]:
    """A ClientConfig, field by field; cut short once it is known to be too large."""
    yield pb.ClientConfig(node=node.message).SerializeToString()
    size = 0
    for subscription in stream.subscriptions.values():
        unanswered = subscription.unanswered()
        for name in dict.fromkeys(subscription.held):
            entry = bytes_field(_GENERIC, _entry(subscription, name, unanswered))
            yield entry
            size += len(entry)
            if size > bytes_max:
                return


def _entry(subscription: XdsSubscription, name: str, unanswered: Container[str]) -> bytes:
    """A GenericXdsConfig: the status of one resource."""
    digest = subscription.holds(name)
    refusal = ""
    if digest is None:
        standing = _NOT_SENT
    elif name in unanswered:
        standing = _UNANSWERED
    elif refusal := subscription.refusals.words_of(name):
        standing = _REFUSED
    else:
        standing = _GONE if digest == ABSENT else _TAKEN
    entry = _standing(subscription.type_url, *standing) + bytes_field(_NAME, name.encode())
    if digest:
        entry += bytes_field(_VERSION, resource_version(digest).encode())
    if refusal:
        error = admin.UpdateFailureState(details=refusal)
        entry += pb.ClientConfig.GenericXdsConfig(error_state=error).SerializeToString()
    return entry


# A client has thousands of resources, mostly of two types and ACKed. Building a message for each
# would take three times as long.
@lru_cache(maxsize=64)
def _standing(type_url: TypeUrl, config_status: int, client_status: int) -> bytes:
    encoded: bytes = pb.ClientConfig.GenericXdsConfig(
        type_url=type_url.value, config_status=config_status, client_status=client_status
    ).SerializeToString()
    return encoded
