"""Fields as bytes: what protobuf makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.wrappers_pb2 import UInt32Value

from vmsvc_grpc.server.encoding import bytes_field, number_field, varint

NUMBERS = [1, 127, 128, 16_383, 16_384, 2**32 - 1]


@pytest.mark.parametrize("number", [0, *NUMBERS])
def test_a_varint_is_what_a_number_is_on_the_wire(number: int) -> None:
    assert UInt32Value.FromString(b"\x08" + varint(number)).value == number


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_is_written_as_protobuf_writes_it(number: int) -> None:
    assert number_field(1, number) == UInt32Value(value=number).SerializeToString()


@pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384])
def test_content_of_any_length_is_written_as_protobuf_writes_it(size: int) -> None:
    message: Any = PackedMessage(value=b"x" * size)
    assert bytes_field(2, b"x" * size) == message.SerializeToString()
