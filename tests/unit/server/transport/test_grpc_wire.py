"""gRPC as bytes and header fields, by the sentences of PROTOCOL-HTTP2.md."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.session import Status
from vmsvc_grpc.server.transport import grpc_wire
from vmsvc_grpc.server.transport.grpc_wire import (
    HeaderField,
    HttpRefusal,
    Messages,
    RequestHead,
    framed,
)

CALL: list[HeaderField] = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/vmsvc.v1.EndpointService/ResolveEndpoints"),
    (b":authority", b"localhost"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
]


def call(*more: HeaderField, without: bytes = b"") -> RequestHead | HttpRefusal | Status:
    return grpc_wire.request([field for field in CALL if field[0] != without] + list(more))


def any_length(_length: int) -> None:
    """No bound."""


def at_most_ten(length: int) -> None:
    if length > 10:
        raise RpcError(Code.RESOURCE_EXHAUSTED, "too long")


def test_a_call_says_its_path_and_nothing_of_http() -> None:
    assert call() == RequestHead("/vmsvc.v1.EndpointService/ResolveEndpoints", None, "identity")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"1H", 3600.0), (b"2M", 120.0), (b"3S", 3.0), (b"250m", 0.25), (b"5u", 5e-6), (b"7n", 7e-9)],
)
def test_a_deadline_has_a_unit(text: bytes, seconds: float) -> None:
    said = call((b"grpc-timeout", text))
    assert isinstance(said, RequestHead)
    assert said.timeout_s == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"", b"1", b"S", b"123456789S", b"-1S", b"1.5S", b"1s", b"1S\n"])
def test_a_deadline_that_is_none_fails_the_call(text: bytes) -> None:
    said = call((b"grpc-timeout", text))
    assert isinstance(said, Status)
    assert said.code is Code.INTERNAL


@pytest.mark.parametrize("kind", [b"application/grpc+proto", b"application/grpc;charset=utf-8"])
def test_the_content_type_may_say_more(kind: bytes) -> None:
    assert isinstance(call((b"content-type", kind), without=b"content-type"), RequestHead)


@pytest.mark.parametrize(
    ("more", "without", "status"),
    [
        ([(b"content-type", b"application/json")], b"content-type", b"415"),
        ([(b"content-type", b"application/grpc-web")], b"content-type", b"415"),
        ([], b"content-type", b"415"),
        ([(b":method", b"GET")], b":method", b"405"),
    ],
)
def test_what_is_no_call_is_told_so_as_http(
    more: list[HeaderField], without: bytes, status: bytes
) -> None:
    said = call(*more, without=without)
    assert isinstance(said, HttpRefusal)
    assert (b":status", status) in said.fields
    assert b"gRPC" in said.body


@given(st.text())
def test_a_message_is_printable_ascii_and_comes_back(message: str) -> None:
    encoded = grpc_wire.percent_encoded(message)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert unquote_to_bytes(encoded.decode()) == message.encode("utf-8", "replace")


def test_trailers_say_no_more_than_there_is() -> None:
    assert grpc_wire.trailers(Status(Code.OK)) == [(b"grpc-status", b"0")]
    assert grpc_wire.trailers(Status(Code.NOT_FOUND, "none: ä", b"\0\1")) == [
        (b"grpc-status", b"5"),
        (b"grpc-message", b"none: %C3%A4"),
        (b"grpc-status-details-bin", b"AAE"),
    ]


@given(st.lists(st.binary(max_size=40), max_size=6), st.data())
def test_however_a_body_is_split_its_messages_are_the_same(
    sent: list[bytes], data: st.DataObject
) -> None:
    body = b"".join(map(framed, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    messages, taken = Messages("identity", any_length, many=True), []
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        messages.feed(body[start:end])
        while (message := messages.take()) is not None:
            taken.append(message)
    assert taken == sent


@given(st.lists(st.binary(max_size=20), max_size=6), st.data())
def test_however_a_body_is_split_messages_that_are_too_long_can_be_dropped(
    sent: list[bytes], data: st.DataObject
) -> None:
    body = b"".join(map(framed, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    messages, taken, dropped = Messages("identity", at_most_ten, many=True), [], 0
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        dropped += messages.feed(body[start:end])
        while True:
            if messages.fault() is not None:
                dropped += messages.drop()
            elif (message := messages.take()) is not None:
                taken.append(message)
            else:
                break
        assert messages.held < 15, "of those that are dropped nothing is kept"
    assert taken == [message for message in sent if len(message) <= 10]
    assert dropped == sum(5 + len(message) for message in sent if len(message) > 10)


def test_one_message_is_exactly_one() -> None:
    for body in (b"", b"\0\0\0", framed(b"a")[:-1], framed(b"a") * 2, framed(b"a") + b"\0"):
        messages = Messages("identity", any_length, many=True)
        messages.feed(body)
        with pytest.raises(RpcError, match="exactly one") as raised:
            messages.only()
        assert raised.value.code is Code.UNIMPLEMENTED
    messages = Messages("identity", any_length, many=True)
    messages.feed(framed(b"a"))
    assert messages.only() == b"a"


@pytest.mark.parametrize(
    ("prefix", "encoding", "code"),
    [
        (b"\1\0\0\0\1", "gzip", Code.UNIMPLEMENTED),
        (b"\1\0\0\0\1", "identity", Code.INTERNAL),
        (b"\2\0\0\0\1", "identity", Code.INTERNAL),
        (b"\0\0\0\0\x0b", "identity", Code.RESOURCE_EXHAUSTED),
        (b"\0\xff\xff\xff\xff", "identity", Code.RESOURCE_EXHAUSTED),
    ],
)
def test_a_message_that_cannot_be_taken_is_known_by_its_prefix(
    prefix: bytes, encoding: str, code: Code
) -> None:
    messages = Messages(encoding, at_most_ten, many=True)
    messages.feed(prefix[:4])
    assert messages.fault() is None
    messages.feed(prefix[4:])
    fault = messages.fault()
    assert fault is not None
    assert fault.code is code
    with pytest.raises(RpcError):
        messages.take()
