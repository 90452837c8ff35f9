"""Requests of xDS, read: both forms of them, and what a node says about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.server.call import Code, RpcError

_Message: TypeAlias = Any
"""A message of Envoy's API, which come without types."""

_REFUSAL_MAX = 1_000  # Of a client's words: it may send as much as a request may hold.


@dataclass(frozen=True, slots=True)
class Node:
    """Who asks. `message` is the Node as it came, for showing it again, but for extensions."""

    id: str
    message: _Message = field(compare=False, repr=False)
    envoy: bool = False
    """Whether it is an Envoy; gRPC's clients, and all others, have API listeners."""
    namespace: str = ""
    """Its metadata's `namespace`, which bounds what it sees where the server says so."""
    filter_class: FilterClass = FilterClass.READY_ONLY
    """ALL if its metadata's `readiness` is `all`."""


@dataclass(frozen=True, slots=True)
class Request:
    """What both forms have in common.

    `node` is for sure only in a stream's first request. `refusal` is the client's words if it
    is a NACK, cut off where they are long.
    """

    node: Node
    type_url: str
    nonce: str
    refusal: str | None


@dataclass(frozen=True, slots=True)
class SotwRequest(Request):
    """A DiscoveryRequest: everything that is asked for of a type."""

    version: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeltaRequest(Request):
    """A DeltaDiscoveryRequest: what changes about what is asked for of a type.

    `held` are versions by name: what a client holds from a stream before this one.
    """

    subscribe: tuple[str, ...]
    unsubscribe: tuple[str, ...]
    held: Mapping[str, str]


def sotw(request: bytes) -> SotwRequest:
    """A state-of-the-world request. Raises RpcError (INVALID_ARGUMENT)."""
    message = _parsed(discovery_pb2.DiscoveryRequest, request)
    return SotwRequest(
        *_common(message), version=message.version_info, names=tuple(message.resource_names)
    )


def delta(request: bytes) -> DeltaRequest:
    """A delta request. Raises RpcError (INVALID_ARGUMENT)."""
    message = _parsed(discovery_pb2.DeltaDiscoveryRequest, request)
    return DeltaRequest(
        *_common(message),
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        held=dict(message.initial_resource_versions),
    )


def _parsed(kind: Callable[[], _Message], request: bytes) -> _Message:
    message = kind()
    try:
        message.ParseFromString(request)
    except DecodeError:
        name = message.DESCRIPTOR.full_name
        raise RpcError(Code.INVALID_ARGUMENT, f"the request is not a {name}") from None
    return message


def _common(message: _Message) -> tuple[Node, str, str, str | None]:
    refused = message.HasField("error_detail")
    return (
        _node(message.node),
        message.type_url,
        message.response_nonce,
        message.error_detail.message[:_REFUSAL_MAX] if refused else None,
    )


def _node(message: _Message) -> Node:
    metadata = message.metadata.fields

    def text(key: str) -> str:
        return str(metadata[key].string_value) if key in metadata else ""

    # A copy, as a part of a message keeps all of it alive; an Envoy lists some hundred KB of
    # extensions.
    kept = base_pb2.Node()
    kept.CopyFrom(message)
    kept.ClearField("extensions")
    return Node(
        id=message.id,
        message=kept,
        envoy=message.user_agent_name.lower().startswith("envoy"),
        namespace=text("namespace"),
        filter_class=FilterClass.ALL if text("readiness") == "all" else FilterClass.READY_ONLY,
    )
