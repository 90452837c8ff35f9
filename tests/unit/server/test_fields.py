"""Fields of requests, counted on bytes that anybody may have made."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2 as pb
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from vmsvc.v1 import endpoint_service_pb2
from vmsvc_grpc.server.fields import counted, shape_of

DELTA = shape_of(pb.DeltaDiscoveryRequest.DESCRIPTOR)
EMPTY = b"\x12\x00"  # A node, or a name, with nothing in it.


def count(request: bytes, shape: Any = DELTA) -> int:
    *_, fields = counted(request, shape)
    return fields


def sized(number: int, content: bytes) -> bytes:
    """A field with a length, which takes three bytes at most."""
    size = len(content)
    return (
        bytes((number << 3 | 2, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14)) + content
    )


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        pytest.param(b"", 0, id="nothing"),
        pytest.param(EMPTY * 30_000, 30_000, id="empty names"),
        pytest.param(sized(1, sized(9, EMPTY * 5) * 3), 1 + 3 * (1 + 5), id="in messages of one"),
        pytest.param(sized(1, b"\x4a\x00" * 20_000), 20_001, id="extensions of a node"),
        pytest.param(sized(5, sized(1, EMPTY * 9) + sized(2, b"v")), 3, id="text is not looked at"),
        pytest.param(b"\x7a\x00" * 20_000, 20_000, id="fields that nobody knows"),
        pytest.param(b"\x78\xff\x01" * 20_000, 20_000, id="numbers"),
        pytest.param(b"\x7d\0\0\0\0\x79\0\0\0\0\0\0\0\0", 2, id="numbers of a fixed length"),
        pytest.param(sized(15, b"\x01" * 50_000), 1, id="a packed list that nobody knows"),
        pytest.param(b"\x7b" * 20_000 + b"\x7c" * 20_000, 40_000, id="groups in groups"),
        pytest.param(b"\x80\x80\x80\x80\x0f\x00" + EMPTY, 2, id="a long tag"),
        pytest.param(EMPTY + b"\x12\x80\x80", 2, id="cut off in a length"),
        pytest.param(EMPTY + b"\x78" + b"\xff" * 9_000, 2, id="a number without end"),
        pytest.param(EMPTY + b"\x7f" + EMPTY, 2, id="a kind of field that there is not"),
        pytest.param(EMPTY + sized(1, EMPTY)[:-1], 3, id="cut off in a message"),
    ],
)
def test_fields_are_counted(request_: bytes, fields: int) -> None:
    assert count(request_) == fields


def test_others_have_their_turn_in_between() -> None:
    steps = list(counted(EMPTY * 50_000, DELTA))
    assert steps[-1] == 50_000
    assert max(after - before for before, after in zip([0, *steps], steps, strict=False)) <= 10_000


def naive(message: Any) -> int:
    """What protobuf itself says of a message that it has read."""
    fields = 0
    for field, value in message.ListFields():
        for one in value if field.is_repeated else [value]:
            fields += 1 + (naive(one) if field.message_type else 0)
    return fields


def test_as_protobuf_counts_them() -> None:
    file = FileDescriptorProto()
    endpoint_service_pb2.DESCRIPTOR.CopyToProto(file)
    shape = shape_of(FileDescriptorProto.DESCRIPTOR)
    assert count(file.SerializeToString(), shape) == naive(file) > 300


@given(st.binary(max_size=300))
def test_whatever_the_bytes_are_it_ends(request: bytes) -> None:
    fields = count(request)
    assert fields <= len(request)
    try:
        read = pb.DeltaDiscoveryRequest.FromString(request)
    except DecodeError:
        return
    assert len(read.resource_names_subscribe) + len(read.resource_names_unsubscribe) <= fields
