"""Whatever calls are made, the transport on libnghttp2 answers them as grpc.aio does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.serving import TRANSPORTS
from vmsvc_grpc.server.access.gate import OpenGate
from vmsvc_grpc.server.access.needs import OPEN, Needs
from vmsvc_grpc.server.admission import Admission
from vmsvc_grpc.server.call import (
    AnswerStream,
    Call,
    Code,
    Method,
    RequestBound,
    RpcError,
    StreamMethod,
    UnaryMethod,
)
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import Sessions
from vmsvc_grpc.server.transport import Listener

OPEN_TO_ALL = Needs(OPEN)

LIMITS = Limits(message_bytes_max=5_000, one_name_bytes_max=2_000)

ONE, FEW, MANY = "/like.Like/One", "/like.Like/Few", "/like.Like/Many"


class Asked(NamedTuple):
    """One call; `wait`: its client sends a message only once the one before is answered."""

    path: str
    messages: tuple[bytes, ...]
    wait: bool
    metadata: tuple[tuple[str, str | bytes], ...]


class Answered(NamedTuple):
    """What a client makes of it."""

    messages: tuple[bytes, ...]
    code: grpc.StatusCode
    text: str | None
    details: bytes | None


def fails(request: bytes) -> bool:
    """Whether a request asks for a status: two bytes, of which the second says which."""
    return len(request) == 2 and request[0] == 0


def answer(request: bytes, _call: Call | None = None) -> bytes:
    """The request twice, or the status that it asks for."""
    if fails(request):
        codes = [code for code in Code if code]
        code = codes[request[1] % len(codes)]
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = request[1]
        raise RpcError(code, f"no: {request!r} ü%\n", [retry] if request[1] % 2 else [])
    return request + request


def methods() -> Iterator[Method]:
    yield UnaryMethod(ONE, answer, RequestBound.ONE_NAME, {}, OPEN_TO_ALL)
    yield UnaryMethod(FEW, answer, RequestBound.MANY_NAMES, {}, OPEN_TO_ALL)
    yield StreamMethod(
        MANY,
        lambda _call, _wake: AnswerStream(answer),
        RequestBound.MANY_NAMES,
        {},
        OPEN_TO_ALL,
        client_streaming=True,
    )


async def said(channel: grpc.aio.Channel, asked: Asked) -> Answered:
    """What a server answers to a call."""
    method: Any = (channel.stream_stream if asked.path == MANY else channel.unary_unary)(asked.path)
    got: list[bytes] = []
    if asked.path != MANY:
        call = method(asked.messages[0], metadata=asked.metadata, wait_for_ready=True)
        with suppress(grpc.aio.AioRpcError):
            got.append(await call)
    elif asked.wait:
        call = method(metadata=asked.metadata, wait_for_ready=True)
        with suppress(grpc.aio.AioRpcError):
            for message in asked.messages:
                await call.write(message)
                got.append(await call.read())
            await call.done_writing()
    else:
        call = method(iter(asked.messages), metadata=asked.metadata, wait_for_ready=True)
        with suppress(grpc.aio.AioRpcError):
            async for answered in call:
                got.append(answered)  # noqa: PERF401 - those before an error count.
    code, text = await call.code(), await call.details()
    trailing: dict[str, bytes] = dict(iter(await call.trailing_metadata() or ()))
    return Answered(tuple(got), code, text, trailing.get("grpc-status-details-bin"))


async def answers(script: list[Asked], name: str) -> list[Answered]:
    """The answers by a server of that transport, all asked side by side on one connection."""
    counts = ServerCounts()
    transport = TRANSPORTS[name](
        Sessions(Admission(LIMITS, counts), counts, LIMITS, OpenGate()), LIMITS
    )
    transport.serve(methods())
    port = transport.bind(Listener("127.0.0.1:0"))
    await transport.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            return list(await asyncio.gather(*(said(channel, asked) for asked in script)))
    finally:
        await transport.stop(0)


bodies = st.one_of(
    st.binary(max_size=50),
    st.builds(lambda number: bytes((0, number)), st.integers(0, 255)),
    # Core refuses by itself what is larger than any method takes, in words of its own.
    st.integers(1_900, 5_000).map(bytes),
)
# HTTP/2 has no values that begin or end with a blank (RFC 9113, 8.2.1); grpc.aio takes them.
metadata = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(("x", "user", "x-y_z.0")), st.text("ab ,%=", max_size=20).map(str.strip)
        ),
        st.tuples(st.just("x-bin"), st.binary(max_size=20)),
    ),
    max_size=3,
).map(tuple)


def until_refused(messages: list[bytes]) -> tuple[bytes, ...]:
    """The messages up to the one that ends the call.

    A client of grpc.aio loses a status that comes while it writes another message.
    """
    for count, message in enumerate(messages, 1):
        if fails(message):
            return tuple(messages[:count])
    return tuple(messages)


calls = st.one_of(
    st.builds(
        lambda path, body, more: Asked(path, (body,), False, more),
        st.sampled_from((ONE, FEW, "/like.Like/None", "/none.None/One")),
        bodies,
        metadata,
    ),
    st.builds(
        Asked,
        st.just(MANY),
        st.lists(bodies, max_size=4).map(until_refused),
        st.booleans(),
        metadata,
    ),
)


@settings(deadline=None)
@given(st.lists(calls, min_size=1, max_size=5))
async def test_answers_are_those_of_grpc_aio(script: list[Asked]) -> None:
    assert await answers(script, "http2") == await answers(script, "grpcio")
