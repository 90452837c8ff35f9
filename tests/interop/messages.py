"""The messages of gRPC's interoperability tests, as far as they are used here.

Their numbers are those of grpc/testing/messages.proto.
"""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

_FIELD = descriptor_pb2.FieldDescriptorProto

# By message: its fields, each with its number, and its type: a scalar, or another message.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Payload": {"type": (1, "int32"), "body": (2, "bytes")},
    "EchoStatus": {"code": (1, "int32"), "message": (2, "string")},
    "SimpleRequest": {"response_size": (2, "int32"), "response_status": (7, "EchoStatus")},
    "SimpleResponse": {"payload": (1, "Payload")},
    "StreamingInputCallRequest": {"payload": (1, "Payload")},
    "StreamingInputCallResponse": {"aggregated_payload_size": (1, "int32")},
    "ResponseParameters": {"size": (1, "int32"), "interval_us": (2, "int32")},
    "StreamingOutputCallRequest": {
        "response_parameters": (2, "ResponseParameters[]"),
        "response_status": (7, "EchoStatus"),
    },
    "StreamingOutputCallResponse": {"payload": (1, "Payload")},
}

_SCALARS = {"int32": _FIELD.TYPE_INT32, "bytes": _FIELD.TYPE_BYTES, "string": _FIELD.TYPE_STRING}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="interop.proto", package="grpc.testing", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            added = message.field.add(name=field, number=number)
            added.label = _FIELD.LABEL_REPEATED if kind.endswith("[]") else _FIELD.LABEL_OPTIONAL
            if kind in _SCALARS:
                added.type = _SCALARS[kind]
            else:
                added.type = _FIELD.TYPE_MESSAGE
                added.type_name = f".grpc.testing.{kind.removesuffix('[]')}"
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file())


def kind(name: str) -> type[Message]:
    """The message of that name."""
    found = _POOL.FindMessageTypeByName(f"grpc.testing.{name}")
    return message_factory.GetMessageClass(found)
