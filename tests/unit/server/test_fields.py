"""Fields of requests, counted on bytes that anybody may have made."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2 as pb
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError, Message
from hypothesis import example, given
from hypothesis import strategies as st

from vmsvc.v1 import endpoint_service_pb2
from vmsvc_grpc.server.call import RpcError
from vmsvc_grpc.server.fields import counted, shape_of
from vmsvc_grpc.server.xds import requests

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
        pytest.param(b"\x7b" + sized(1, b"\x07") + b"\x7c" + EMPTY, 4, id="no message in a group"),
        pytest.param(sized(1, b"\x07") + EMPTY, 3, id="a message that cannot be read"),
        pytest.param(sized(1, b"\x12\x7f") + EMPTY, 3, id="a field longer than its message"),
        pytest.param(sized(1, b"\x78\xff") + EMPTY, 3, id="a number longer than its message"),
        pytest.param(sized(1, b"\x7b") + sized(1, EMPTY), 4, id="a group longer than its message"),
        pytest.param(sized(1, b"\x3a\x7f") + EMPTY * 9, 11, id="a message longer than its message"),
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
        of_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        for one in value.values() if of_map else value if field.is_repeated else [value]:
            fields += 1 + (naive(one) if isinstance(one, Message) else 0)
    return fields


def test_as_protobuf_counts_them() -> None:
    file = FileDescriptorProto()
    endpoint_service_pb2.DESCRIPTOR.CopyToProto(file)
    shape = shape_of(FileDescriptorProto.DESCRIPTOR)
    assert count(file.SerializeToString(), shape) == naive(file) > 300


# Numbers of a text, of messages, of a map's entries, and of fields that nobody knows.
NUMBERS = st.sampled_from([1, 2, 3, 5, 6, 7, 15])
SCALARS = st.builds(
    lambda number, rest: bytes((number << 3 | rest[0],)) + rest[1:],
    NUMBERS,
    st.sampled_from([b"\x00\x01", b"\x00\xff\x7f", b"\x05" + bytes(4), b"\x01" + bytes(8)]),
)
BROKEN = st.sampled_from(
    [b"\x07", b"\x06", b"\x12", b"\x12\x7f", b"\x7b", b"\x7c", b"\x78\xff", b"\x00"]
)
CONTENTS = st.recursive(
    SCALARS | BROKEN | st.binary(max_size=3) | st.just(b"\x1a\x00" * 3),
    lambda inner: st.one_of(
        st.builds(sized, NUMBERS, inner),
        st.builds(lambda n, x: bytes((n << 3 | 3,)) + x + bytes((n << 3 | 4,)), NUMBERS, inner),
        st.lists(inner, max_size=4).map(b"".join),
    ),
    max_leaves=8,
)
GROUPS = st.builds(
    lambda n, x, fields: bytes((n << 3 | 3,)) + sized(x, fields) + bytes((n << 3 | 4,)),
    NUMBERS,
    NUMBERS,
    CONTENTS,
)
REQUESTS = st.lists(GROUPS | CONTENTS | st.just(b"\x1a\x00" * 5), max_size=5).map(b"".join)


@given(REQUESTS)
@example(b"\x7b\x0a\x01\x07\x7c" + b"\x1a\x00" * 5)
def test_no_fewer_than_protobuf_reads(request: bytes) -> None:
    try:
        read = pb.DeltaDiscoveryRequest.FromString(request)
    except DecodeError:
        return
    assert count(request) >= naive(read)


@given(REQUESTS)
@example(b"\x0a\x01\x07" + b"\x1a\x00" * 5)
def test_no_fewer_than_are_read_one_level_deep(request: bytes) -> None:
    try:
        read = requests.delta(request)
    except RpcError:
        return
    assert count(request) >= len(read.subscribe) + len(read.unsubscribe) + len(read.held)


@given(st.binary(max_size=300))
def test_whatever_the_bytes_are_it_ends(request: bytes) -> None:
    fields = count(request)
    assert fields <= len(request)
    try:
        read = pb.DeltaDiscoveryRequest.FromString(request)
    except DecodeError:
        return
    assert len(read.resource_names_subscribe) + len(read.resource_names_unsubscribe) <= fields
