"""grpc.channelz.v1: the connections of a transport, for grpcdebug and similar tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_channelz.v1 import channelz_pb2

from vmsvc_grpc.server.access.needs import Needs, UrlNeed
from vmsvc_grpc.server.call import Call, Method, RequestBound, UnaryMethod, parsed
from vmsvc_grpc.server.fields import shape_of

FILE = channelz_pb2.DESCRIPTOR
"""The file that describes the service, for reflection."""

URL = "/vmsvc-grpc/channelz"
"""The non-resource URL that callers need the right to get: answers show others' addresses."""

ChannelzAnswer = Callable[[str, Message], Message]
"""Answers a method of channelz, by its name. Raises RpcError.

Every request for a page says how large it may be at most.
"""


# channelz.proto: if a request has no bound, the server chooses one. gRPC's core has none: it would
# list 10,000 connections at once.
_PAGE_MAX = 100
_PAGE_SIZE = "max_results"


def methods(source: ChannelzAnswer) -> Iterator[Method]:
    """All methods of channelz, answered by `source`."""
    service = FILE.services_by_name["Channelz"]
    for method in service.methods:
        path = f"/{service.full_name}/{method.name}"
        yield UnaryMethod(
            path,
            partial(_answer, source, method),
            RequestBound.ONE_NAME,
            shape_of(method.input_type),
            Needs(UrlNeed("get", URL)),
        )


def _answer(source: ChannelzAnswer, method: MethodDescriptor, request: bytes, _call: Call) -> bytes:
    asked = parsed(GetMessageClass(method.input_type), request)
    if _PAGE_SIZE in method.input_type.fields_by_name:
        size = getattr(asked, _PAGE_SIZE)
        setattr(asked, _PAGE_SIZE, size if 0 < size <= _PAGE_MAX else _PAGE_MAX)
    return source(method.name, asked).SerializeToString()
