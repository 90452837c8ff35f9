"""Looks for what a client can send that a connection on libnghttp2 does not survive.

    python -m tests.fuzz.connection [libFuzzer's options] [folders of inputs]

An input is a script of what a client sends and what its server says meanwhile, one byte for each
step and then what the step takes. Inputs are guided by which lines of the transport they reach.
What must hold: nothing is raised that nobody catches, no bound is passed, and nothing is left of
the connection once the client is gone.
"""

from __future__ import annotations

import asyncio
import sys

import atheris
import uvloop

with atheris.instrument_imports(include=["vmsvc_grpc.server.transport"]):
    from vmsvc_grpc.server.transport import http2, http2_connection  # noqa: F401 - instrumented.

from tests.integration.http2_harness import LIMITS, PATHS, Harness, block, frame, head, play
from tests.integration.http2_toy import PREFACE, made
from vmsvc_grpc.server.transport.grpc_wire import HeaderField

_FIELDS: tuple[HeaderField, ...] = (
    (b"grpc-timeout", b"1n"),
    (b"grpc-timeout", b"99999999H"),
    (b"grpc-encoding", b"gzip"),
    (b"grpc-encoding", b"identity"),
    (b"content-type", b"text/html"),
    (b"x-bin", b"YQ"),
    (b"te", b"trailers"),
    (b"x", b"x" * 120),
)
_OURS = ("say", "end", "later", "full", "room", "drain", "age")
_STEPS_MAX = 60


async def _follow(given: atheris.FuzzedDataProvider, harness: Harness) -> None:
    if given.ConsumeBool():
        await harness.take(PREFACE + frame(4, 0, 0))
    for _ in range(_STEPS_MAX):
        if not given.remaining_bytes():
            break
        match given.ConsumeIntInRange(0, 4):
            case 0:
                more = [
                    _FIELDS[given.ConsumeIntInRange(0, len(_FIELDS) - 1)]
                    for _ in range(given.ConsumeIntInRange(0, 3))
                ]
                path = PATHS[given.ConsumeIntInRange(0, len(PATHS) - 1)]
                flags, stream = given.ConsumeIntInRange(0, 5), given.ConsumeIntInRange(0, 15)
                await harness.take(frame(1, flags, stream, block(head(path, more))))
            case 1:
                body = given.ConsumeBytes(given.ConsumeIntInRange(0, 60))
                if given.ConsumeBool():
                    body = b"\0" + len(body).to_bytes(4, "big") + body
                flags, stream = given.ConsumeIntInRange(0, 1), given.ConsumeIntInRange(0, 15)
                await harness.take(frame(0, flags, stream, body))
            case 2:
                kind, flags = given.ConsumeIntInRange(0, 12), given.ConsumeIntInRange(0, 255)
                stream = given.ConsumeIntInRange(0, 15)
                payload = given.ConsumeBytes(given.ConsumeIntInRange(0, 20))
                await harness.take(frame(kind, flags, stream, payload))
            case 3:
                play(_OURS[given.ConsumeIntInRange(0, len(_OURS) - 1)], harness)
                await harness.turns()
            case _:
                await harness.take(given.ConsumeBytes(given.ConsumeIntInRange(0, 60)))
        transport = harness.toy.transport
        assert transport.unread.in_all <= LIMITS.unread_bytes_max
        assert len(transport.streams) <= LIMITS.streams_max


def one_input(data: bytes) -> None:
    """Raises if one of the rules does not hold for this input."""

    async def whole() -> None:
        harness = Harness(made(LIMITS))
        await _follow(atheris.FuzzedDataProvider(data), harness)
        await harness.end()

    _RUNNER.run(whole())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as _RUNNER:
        atheris.Setup(sys.argv, one_input)
        atheris.Fuzz()
