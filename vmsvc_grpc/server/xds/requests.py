"""Requests of xDS, read: both forms of them, and what a node says about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.server.call import Code, RpcError

_Message: TypeAlias = Any
"""A message of Envoy's API, which come without types."""

# A request may hold 4 MiB; this much of it is kept, or put into the log.
_TEXT_MAX = 1_000
_VERSION_MAX = 33  # One more than ours have: another's must not become one of ours.
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


def sotw(request: bytes) -> SotwRequest:
    """A state-of-the-world request. Raises RpcError (INVALID_ARGUMENT) for other bytes."""
    message = _parsed(discovery_pb2.DiscoveryRequest, request)
    return SotwRequest(
        message,
        message.type_url,
        message.response_nonce,
        _refusal(message),
        message.version_info,
        tuple(message.resource_names),
    )


def delta(request: bytes) -> DeltaRequest:
    """A delta request. Raises RpcError (INVALID_ARGUMENT) for other bytes."""
    message = _parsed(discovery_pb2.DeltaDiscoveryRequest, request)
    held = message.initial_resource_versions
    return DeltaRequest(
        message,
        message.type_url,
        message.response_nonce,
        _refusal(message),
        message.resource_names_subscribe,
        message.resource_names_unsubscribe,
        {name: version[:_VERSION_MAX] for name, version in held.items()} if held else held,
    )


def _parsed(kind: Any, request: bytes) -> _Message:
    try:
        return kind.FromString(request)
    except DecodeError:
        pass
    try:
        return kind.FromString(_repaired(kind, request))
    except DecodeError:
        name = kind.DESCRIPTOR.full_name
        raise RpcError(Code.INVALID_ARGUMENT, f"the request is not a {name}") from None


def _repaired(kind: Any, request: bytes) -> bytes:
    """A request without what protobuf refuses of its fields: text that is not UTF-8, say.

    An Envoy takes the names of on-demand clusters from headers of its own clients, who are not
    to end its stream. Text has U+FFFD where it is wrong; a node or an error is left empty, and
    a version that is held is left out. Raises DecodeError where even the fields are unclear.
    """
    raw = _RAW[kind].FromString(request)
    for field_, value in raw.ListFields():
        meant = kind.DESCRIPTOR.fields_by_name[field_.name]
        if field_.is_repeated:
            value[:] = [one for one in map(_reader(meant), value) if one is not None]
        else:
            setattr(raw, field_.name, _reader(meant)(value) or b"")
    repaired: bytes = raw.SerializeToString()
    return repaired


def _reader(meant: FieldDescriptor) -> Callable[[bytes], bytes | None]:
    """What makes a field's bytes readable; None of a message that is not."""
    if meant.message_type is None:
        return lambda text: text.decode(errors="replace").encode()
    kind = message_factory.GetMessageClass(meant.message_type)
    return lambda content: content if _is_a(kind, content) else None


def _is_a(kind: Any, content: bytes) -> bool:
    try:
        kind.FromString(content)
    except DecodeError:
        return False
    return True


def _raw(kind: Any) -> Any:
    """A message as `kind`, each field the bytes that it is on the wire.

    All fields of a request are texts or messages, which both are bytes there.
    """
    described = descriptor_pb2.DescriptorProto()
    kind.DESCRIPTOR.CopyToProto(described)
    file = descriptor_pb2.FileDescriptorProto(name=f"raw/{described.name}", syntax="proto3")
    message = file.message_type.add(name=described.name)
    for meant in described.field:
        message.field.add(
            name=meant.name, number=meant.number, label=meant.label, type=meant.TYPE_BYTES
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(described.name))


_RAW = {
    kind: _raw(kind)
    for kind in (discovery_pb2.DiscoveryRequest, discovery_pb2.DeltaDiscoveryRequest)
}


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
