"""Looks for bytes that `grpc_wire` reads wrongly, guided by which lines they reach.

    python -m tests.fuzz.wire [libFuzzer's options] [folders of inputs]

An input is header fields, a body, and where the body is cut. What must hold for each: whatever
comes is a call or a refusal that can be sent; and a body gives the same messages and the same
error, however it is cut, and never keeps more than has come.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

import atheris

with atheris.instrument_imports(include=["vmsvc_grpc.server.transport"]):
    from vmsvc_grpc.server.transport import grpc_wire

from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.session import Status

_LENGTH_MAX = 1_000

_NAMES = (
    b":method",
    b":path",
    b"content-type",
    b"grpc-timeout",
    b"grpc-encoding",
    b"te",
    b"x-bin",
)
_CALL = {b":method": b"POST", b":path": b"/toy.Toy/Echo", b"content-type": b"application/grpc"}


def one_input(data: bytes) -> None:
    """Raises if one of the rules does not hold for this input."""
    given = atheris.FuzzedDataProvider(data)
    many = given.ConsumeBool()
    fields = dict(_CALL) if given.ConsumeBool() else {}
    for _ in range(given.ConsumeIntInRange(0, 4)):
        name = _NAMES[given.ConsumeIntInRange(0, len(_NAMES) - 1)]
        fields[name] = given.ConsumeBytes(given.ConsumeIntInRange(0, 20))
    asked = grpc_wire.request(fields.items())
    _check_status(given.ConsumeUnicode(10))
    cuts = [given.ConsumeIntInRange(0, 12) for _ in range(given.ConsumeIntInRange(0, 6))]
    if isinstance(asked, grpc_wire.RequestHead):
        body = given.ConsumeBytes(given.remaining_bytes())
        told = [_told(asked.encoding, pieces, many=many) for pieces in _split(body, cuts)]
        assert all(each == told[0] for each in told), f"{body!r} cut at {cuts}: {told}"
    elif isinstance(asked, Status):
        assert grpc_wire.trailers(asked)
    else:
        assert dict(asked.fields)[b":status"].isdigit()


def _check_status(message: str) -> None:
    fields = dict(grpc_wire.trailers(Status(Code.INTERNAL, message)))
    encoded = fields.get(b"grpc-message", b"")
    assert all(0x20 <= byte <= 0x7E for byte in encoded), encoded
    assert unquote_to_bytes(encoded) == message.encode("utf-8", "replace")


def _split(body: bytes, cuts: list[int]) -> Iterator[list[bytes]]:
    """The body whole, byte by byte, and as the input has it."""
    yield [body]
    yield [body[at : at + 1] for at in range(len(body))]
    pieces, at = [], 0
    for size in cuts:
        pieces.append(body[at : at + size])
        at += size
    yield [*pieces, body[at:]]


def _told(encoding: str, pieces: list[bytes], *, many: bool) -> list[bytes | tuple[Code, str]]:
    """What a body gives: its messages, and the error that ends them."""
    messages = grpc_wire.Messages(encoding, _check_length, many=many)
    told: list[bytes | tuple[Code, str]] = []
    came = 0
    try:
        for piece in pieces:
            messages.feed(piece)
            came += len(piece)
            assert messages.held <= came
            assert messages.missing == (0 < messages.held < messages.first_bytes)
            if many:
                told += iter(messages.take, None)
        if not many:
            told.append(messages.only())
    except RpcError as error:
        assert messages.fault() is not None or not many
        told.append((error.code, error.message))
    return told


def _check_length(length: int) -> None:
    if length > _LENGTH_MAX:
        raise RpcError(Code.RESOURCE_EXHAUSTED, f"{length} bytes")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
