"""Requests of xDS, read: both forms of them, and what a node says about itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.server.call import Code, RpcError

_Message: TypeAlias = Any
"""A message of Envoy's API, which come without types."""

# A request may hold 4 MiB; this much of it is kept, or put into the log.
_TEXT_MAX = 1_000
_VERSION_MAX = 33  # One more than ours have: another's must not become one of ours.
_NAME_MAX = 1_024  # Of characters. An xdstp name may be long; ours take 209.
_NODE_BYTES_MAX = 64 * 1024  # An Envoy's takes some hundred bytes, and its metadata a few KB.


@dataclass(frozen=True, slots=True)
class Node:
    """Who asks.

    `message` is the Node for showing it again: without extensions, and, where it is large,
    with nothing but its id.
    """

    id: str
    message: _Message = field(compare=False, repr=False)
    envoy: bool = False
    """Whether it is an Envoy; gRPC's clients, and all others, have API listeners."""
    namespace: str = ""
    """Its metadata's `namespace`, which bounds what it sees where the server says so."""
    filter_class: FilterClass = FilterClass.READY_ONLY
    """ALL if its metadata's `readiness` is `all`."""


class SotwRequest(NamedTuple):
    """A DiscoveryRequest: everything that is asked for of a type.

    `message` is the whole of it, and `refusal` the client's words if it is a NACK, cut off
    where they are long. Only a stream's first request is sure to say who asks.
    """

    message: _Message
    type_url: str
    nonce: str
    refusal: str | None
    version: str
    names: tuple[str, ...]


class DeltaRequest(NamedTuple):
    """A DeltaDiscoveryRequest: what changes about what is asked for of a type.

    As a SotwRequest; `held` are versions by name: what a client holds from a stream before
    this one.
    """

    message: _Message
    type_url: str
    nonce: str
    refusal: str | None
    subscribe: Sequence[str]
    unsubscribe: Sequence[str]
    held: Mapping[str, str]


def sotw(request: bytes, names_max: int) -> SotwRequest:
    """A state-of-the-world request. Raises RpcError (INVALID_ARGUMENT, RESOURCE_EXHAUSTED)."""
    message = _parsed(discovery_pb2.DiscoveryRequest, request)
    names = tuple(message.resource_names)
    if names:
        _check(message, names, names_max)
    return SotwRequest(
        message,
        message.type_url,
        message.response_nonce,
        _refusal(message),
        message.version_info,
        names,
    )


def delta(request: bytes, names_max: int) -> DeltaRequest:
    """A delta request. Raises RpcError (INVALID_ARGUMENT, RESOURCE_EXHAUSTED)."""
    message = _parsed(discovery_pb2.DeltaDiscoveryRequest, request)
    subscribe, unsubscribe = message.resource_names_subscribe, message.resource_names_unsubscribe
    held = message.initial_resource_versions
    if subscribe or unsubscribe or held:  # An ACK has none of them.
        for names in filter(None, (subscribe, unsubscribe, held)):
            _check(message, names, names_max)
        held = {name: version[:_VERSION_MAX] for name, version in held.items()}
    return DeltaRequest(
        message,
        message.type_url,
        message.response_nonce,
        _refusal(message),
        subscribe,
        unsubscribe,
        held,
    )


def too_many(names_max: int, type_url: str) -> RpcError:
    """How a stream ends that asks for too much, or would be told too much, of a type."""
    return RpcError(
        Code.RESOURCE_EXHAUSTED,
        f"more than {names_max} resources of {type_url[:_NAME_MAX]!r} on one stream, which is the "
        "server's limit (xds_resources_max); ask for less, or on several streams",
        limit="xds_resources_max",
    )


def _check(message: _Message, names: Collection[str], names_max: int) -> None:
    if len(names) > names_max:
        raise too_many(names_max, message.type_url)
    if max(map(len, names)) > _NAME_MAX:
        text = f"a resource's name is longer than {_NAME_MAX} characters"
        raise RpcError(Code.INVALID_ARGUMENT, text)


def _parsed(kind: Any, request: bytes) -> _Message:
    try:
        return kind.FromString(request)
    except DecodeError:
        name = kind.DESCRIPTOR.full_name
        raise RpcError(Code.INVALID_ARGUMENT, f"the request is not a {name}") from None


def _refusal(message: _Message) -> str | None:
    if not message.HasField("error_detail"):
        return None
    words: str = message.error_detail.message[:_TEXT_MAX]
    return words


def node(request: SotwRequest | DeltaRequest) -> Node:
    """Who a request says that it is from."""
    message = request.message.node
    metadata = message.metadata.fields

    def text(key: str) -> str:
        return str(metadata[key].string_value) if key in metadata else ""

    # An Envoy lists some hundred KB of extensions, which a copy would keep even if it cleared
    # them. And a part of a message keeps all of it alive.
    message.ClearField("extensions")
    kept = base_pb2.Node(id=message.id[:_TEXT_MAX])
    if message.ByteSize() <= _NODE_BYTES_MAX:
        kept.CopyFrom(message)
    return Node(
        id=kept.id,
        message=kept,
        envoy=message.user_agent_name.lower().startswith("envoy"),
        namespace=text("namespace"),
        filter_class=FilterClass.ALL if text("readiness") == "all" else FilterClass.READY_ONLY,
    )
