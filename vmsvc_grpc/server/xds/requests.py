"""Reads requests of xDS, in both forms, and the nodes in them.

A message is read one level deep, and only the fields that matter here: messages in it stay bytes
until they are needed. So reading a request takes time in proportion to its length, and an error in
one part of it affects that part only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, cast, overload

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.server.call import RpcError, not_a

_Message: TypeAlias = Any
"""A message of Envoy's API, which come without types."""

_REPLACED = "\ufffd"  # What is decoded instead of bytes that are not UTF-8.

# A request may have 4 MiB; so much of a text in it is kept, or logged.
_TEXT_MAX = 1_000
# Of a name that is asked for: its tag and length. Of one that is held: the tags and lengths of an
# entry, a name and a version, and that.
_ASKED_BYTES = 3
_HELD_BYTES = 19
_VERSION_MAX = 12  # One more than ours have, so that another's, cut, cannot equal one of ours.
_NODE_BYTES_MAX = 64 * 1024  # An Envoy's takes some hundred bytes, and its metadata a few KB.
_METADATA_MAX = 1_000  # Of a mesh's Envoy: some tens.
_SMALL_BYTES = 512  # An ACK has some 150.
_REMEMBERED = 1_024


@dataclass(frozen=True, slots=True)
class Node:
    """The client.

    `message` is the Node for its status: without extensions, and, if it is large, with only its id.
    """

    id: str
    message: _Message = field(compare=False, repr=False)
    envoy: bool = False
    """Whether it is an Envoy; gRPC's clients, and all others, have API listeners."""
    namespace: str = ""
    """Its metadata's `namespace`, which bounds what it sees if the server is set so."""
    filter_class: FilterClass = FilterClass.READY_ONLY
    """ALL if its metadata's `readiness` is `all`."""


class SotwRequest(NamedTuple):
    """A DiscoveryRequest: everything that a client requests of a type.

    `node` are the bytes of the Node, which only a stream's first request is sure to have; `refusal`
    are the client's words if it is a NACK, cut if they are long.
    """

    node: bytes
    type_url: str
    nonce: str
    refusal: str | None
    version: str
    names: Sequence[str]


class DeltaRequest(NamedTuple):
    """A DeltaDiscoveryRequest: changes of what a client requests of a type.

    As a SotwRequest; `held` are the resources that a client holds from an earlier stream, each to
    be read by `held_version`.
    """

    node: bytes
    type_url: str
    nonce: str
    refusal: str | None
    subscribe: Sequence[str]
    unsubscribe: Sequence[str]
    held: Sequence[bytes]


class _Outline:
    """Reads a type of message: its texts, and the bytes of the messages in it.

    The bytes come as a list, even of one: joined they are the message, as protobuf defines it for a
    field that occurs more than once. The entries of a map are such a list too; protobuf itself
    takes some seconds for the 300,000 that a request can have.
    """

    def __init__(self, kind: Any, *read: str) -> None:
        """`kind` is its descriptor. `read` names the fields that are read; others are skipped."""
        self._name = kind.full_name
        fields = [kind.fields_by_name[name] for name in read]
        text, raw = FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES
        self._kind = _outlined(self._name, fields, text, text)
        self._raw_kind = _outlined(self._name, fields, raw, raw)
        self._mended_kind = _outlined(self._name, fields, text, raw)

    def read(self, content: bytes) -> _Message:
        """A message. Raises RpcError (INVALID_ARGUMENT) if even its fields cannot be separated.

        Invalid UTF-8 becomes U+FFFD: an Envoy takes the names of on-demand clusters from headers of
        its own clients, who must not be able to end its stream. Where there is any, lists of texts
        stay bytes, to be read by `_texts`.
        """
        try:
            return self._kind.FromString(content)
        except DecodeError:
            pass
        try:
            raw = self._raw_kind.FromString(content)
        except DecodeError:
            raise not_a(self._name) from None
        for meant in self._mended_kind.DESCRIPTOR.fields:
            if meant.type == FieldDescriptor.TYPE_STRING:
                mended = getattr(raw, meant.name).decode(errors="replace")
                setattr(raw, meant.name, mended.encode())
        return self._mended_kind.FromString(raw.SerializeToString())

    def read_part(self, content: bytes) -> _Message:
        """A message within a request; an empty one if it cannot be read."""
        try:
            return self.read(content)
        except RpcError:
            return self._kind()


class _Texts(Sequence[str]):
    """Texts that are decoded one by one, as that takes long where they are not UTF-8."""

    def __init__(self, raw: Sequence[bytes]) -> None:
        self._raw = raw

    def __len__(self) -> int:
        return len(self._raw)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...

    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        if isinstance(at, slice):
            return _Texts(self._raw[at])
        return self._raw[at].decode(errors="replace")

    def __contains__(self, text: object) -> bool:
        """Decodes nothing, unless it is asked for what may have been replaced."""
        if not isinstance(text, str) or _REPLACED in text:
            return super().__contains__(text)
        return text.encode() in self._raw


def _texts(listed: Sequence[str] | Sequence[bytes]) -> Sequence[str]:
    """A list of texts in a message that an outline has read."""
    if listed and isinstance(listed[0], bytes):
        return _Texts(cast(Sequence[bytes], listed))
    return cast(Sequence[str], listed)


def _outlined(name: str, fields: Sequence[FieldDescriptor], text: int, listed: int) -> Any:
    """The type of message with these fields: texts of the type `text`, and lists of bytes.

    Lists of texts are of the type `listed`.
    """
    file = descriptor_pb2.FileDescriptorProto(name=name, syntax="proto3")
    message = file.message_type.add(name="Outline")
    for meant in fields:
        is_text = meant.type == FieldDescriptor.TYPE_STRING
        of_text = listed if meant.is_repeated else text
        message.field.add(
            name=meant.name,
            number=meant.number,
            type=cast(Any, of_text if is_text else FieldDescriptor.TYPE_BYTES),
            label=FieldDescriptor.LABEL_REPEATED
            if meant.is_repeated or not is_text
            else FieldDescriptor.LABEL_OPTIONAL,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Outline"))


_COMMON = ("node", "type_url", "response_nonce", "error_detail")
_SOTW = _Outline(
    discovery_pb2.DiscoveryRequest.DESCRIPTOR, *_COMMON, "version_info", "resource_names"
)
_DELTA = _Outline(
    discovery_pb2.DeltaDiscoveryRequest.DESCRIPTOR,
    *_COMMON,
    "resource_names_subscribe",
    "resource_names_unsubscribe",
    "initial_resource_versions",
)
_HELD = _Outline(
    discovery_pb2.DeltaDiscoveryRequest.DESCRIPTOR.fields_by_name[
        "initial_resource_versions"
    ].message_type,
    "key",
    "value",
)
_STRUCT = _Outline(struct_pb2.Struct.DESCRIPTOR, "fields")
_ENTRY = _Outline(
    struct_pb2.Struct.DESCRIPTOR.fields_by_name["fields"].message_type, "key", "value"
)
_VALUE = _Outline(struct_pb2.Value.DESCRIPTOR, "string_value")
_STATUS = _Outline(status_pb2.Status.DESCRIPTOR, "message")
# An Envoy lists some hundred KB of extensions, which nobody needs.
_NODE = _Outline(
    base_pb2.Node.DESCRIPTOR,
    *(name for name in base_pb2.Node.DESCRIPTOR.fields_by_name if name != "extensions"),
)


def sotw(request: bytes) -> SotwRequest:
    """A state-of-the-world request. Raises RpcError (INVALID_ARGUMENT) for other bytes."""
    return _small_sotw(request) if len(request) <= _SMALL_BYTES else _sotw(request)


def delta(request: bytes) -> DeltaRequest:
    """A delta request. Raises RpcError (INVALID_ARGUMENT) for other bytes."""
    return _small_delta(request) if len(request) <= _SMALL_BYTES else _delta(request)


def _sotw(request: bytes) -> SotwRequest:
    message = _SOTW.read(request)
    return SotwRequest(
        b"".join(message.node),
        message.type_url,
        message.response_nonce,
        _refusal(message),
        message.version_info,
        _texts(message.resource_names),
    )


def _delta(request: bytes) -> DeltaRequest:
    message = _DELTA.read(request)
    return DeltaRequest(
        b"".join(message.node),
        message.type_url,
        message.response_nonce,
        _refusal(message),
        _texts(message.resource_names_subscribe),
        _texts(message.resource_names_unsubscribe),
        message.initial_resource_versions,
    )


# Streams that follow the same are sent the same message, and so acknowledge it in the same words.
_small_sotw = lru_cache(maxsize=_REMEMBERED)(_sotw)
_small_delta = lru_cache(maxsize=_REMEMBERED)(_delta)


def held_version(held: bytes) -> tuple[str, str] | None:
    """A name that a client holds, and its version; None if they cannot be read.

    A version that is too long to be one of ours is cut.
    """
    try:
        entry = _HELD.read(held)
    except RpcError:
        return None
    return entry.key, entry.value[:_VERSION_MAX]


HELD_FIELDS = 3
"""Fields of a request for a name that is held: an entry, the name, and its version."""

RESUMING_FIELDS = 1 + HELD_FIELDS
"""The same for a name that is asked for and held."""


def asked_bytes(name: str) -> int:
    """What a name takes in a request that asks for it."""
    return len(name.encode()) + _ASKED_BYTES


def held_bytes(name: str) -> int:
    """What a name takes at most in the request of a client that comes back and holds it."""
    return len(name.encode()) + _HELD_BYTES


def resuming_bytes(name: str) -> int:
    """The same if the client also asks for it by name."""
    return asked_bytes(name) + held_bytes(name)


def _refusal(message: _Message) -> str | None:
    if not message.error_detail:
        return None
    words: str = _STATUS.read_part(b"".join(message.error_detail)).message[:_TEXT_MAX]
    return words


def node(content: bytes) -> Node:
    """The node of a request; an empty one if it cannot be read."""
    said = _NODE.read_part(content)
    said.DiscardUnknownFields()
    kept = base_pb2.Node(id=said.id[:_TEXT_MAX])
    if said.ByteSize() <= _NODE_BYTES_MAX:
        with contextlib.suppress(DecodeError):  # Of what its metadata hold, say.
            kept = base_pb2.Node.FromString(said.SerializeToString())
    metadata = _metadata(b"".join(said.metadata))
    return Node(
        id=said.id[:_TEXT_MAX],
        message=kept,
        envoy=said.user_agent_name.lower().startswith("envoy"),
        namespace=metadata.get("namespace", "")[:_TEXT_MAX],  # No namespace has half of that.
        filter_class=FilterClass.ALL
        if metadata.get("readiness") == "all"
        else FilterClass.READY_ONLY,
    )


def _metadata(content: bytes) -> dict[str, str]:
    """The texts in a node's metadata, by key; none if there are too many."""
    entries = _STRUCT.read_part(content).fields
    if len(entries) > _METADATA_MAX:
        return {}
    read = map(_ENTRY.read_part, entries)
    return {entry.key: _VALUE.read_part(b"".join(entry.value)).string_value for entry in read}
