"""A client of HTTP/2 that says what no library would: frames by hand, for tests of bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import ngh2
from ngh2 import events

from tests.integration.serving import PATIENCE_S
from vmsvc_grpc.server.call import Code

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
_INITIAL_WINDOW = 4  # Of SETTINGS.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_BYTES = 16_384

Header = tuple[str | bytes, str | bytes]
HeaderFields = dict[bytes, bytes]

# What the engine that reads along takes each call for.
_SOME_CALL = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"x")]

# What a client of gRPC takes it for that a call is reset (PROTOCOL-HTTP2, "Errors").
_RESETS = {7: Code.UNAVAILABLE, 8: Code.CANCELLED, 11: Code.RESOURCE_EXHAUSTED}


class Frame(NamedTuple):
    """A frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as it goes."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def message(payload: bytes, *, compressed: bool = False, length: int | None = None) -> bytes:
    """A message of gRPC; `length` is what it says of its length, if not the truth."""
    said = len(payload) if length is None else length
    return bytes((compressed,)) + said.to_bytes(4, "big") + payload


def _text(value: str | bytes) -> bytes:
    """A string of HPACK, with its length."""
    text = value.encode() if isinstance(value, str) else value
    if len(text) < 127:
        return bytes((len(text),)) + text
    left, head = len(text) - 127, [127]
    while left >= 128:
        head.append(left % 128 + 128)
        left //= 128
    return bytes((*head, left)) + text


@dataclass
class RawClient:
    """One connection. What comes in is kept in `frames`, but for what keeps it going.

    An engine that writes nothing reads along, so as to know what header fields mean.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    frames: list[Frame] = field(default_factory=list)
    ended: bool = False
    sent_bytes: int = 0
    fields: dict[int, HeaderFields] = field(default_factory=dict)
    """All header fields of the answers so far, by their calls."""
    _along: ngh2.Connection = field(init=False)
    _windows: dict[int, int] = field(default_factory=lambda: {0: 65_535})
    _window: int = 65_535
    _next: int = 1
    _read: bytes = b""

    def __post_init__(self) -> None:
        many = ngh2.Configuration(peer_max_concurrent_streams=5_000)
        self._along = ngh2.Connection(ngh2.Role.CLIENT, many)
        # gRPC's core does not say that it uses no table (RFC 7541, 4.2), which only an engine that
        # has asked for that would require.
        self._along.initiate_connection({})
        self._along.data_to_send()

    @classmethod
    async def connect(cls, address: str, *, preface: bool = True) -> Self:
        """Connect to `host:port`. Without a preface it only connects."""
        host, _, port = address.rpartition(":")
        client = cls(*await asyncio.open_connection(host, int(port)))
        if preface:
            # Without a table, so that headers come as they are.
            client.writer.write(PREFACE + frame(SETTINGS, 0, 0, b"\0\1\0\0\0\0"))
        return client

    def open(self, path: str | bytes, headers: Iterable[Header] = (), *, flags: int = 0) -> int:
        """Begin a call; the number of its stream."""
        stream, self._next = self._next, self._next + 2
        self._windows[stream] = self._window
        self._along.send_request(_SOME_CALL)
        self._along.data_to_send()
        block = b"".join(
            b"\0" + _text(name) + _text(value)
            for name, value in (
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "x"),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                *headers,
            )
        )
        self.writer.write(frame(HEADERS, END_HEADERS | flags, stream, block))
        return stream

    async def send(self, stream: int, payload: bytes, *, end: bool = True) -> int:
        """Send data, as far as the server lets us; how much it took before it answered."""
        done = 0
        while done < len(payload):
            room = min(self._windows[0], self._windows[stream], _FRAME_BYTES)
            if room <= 0:
                if self.answer(stream) or self.ended or not await self._take(wait_s=0.5):
                    return done
                continue
            part = payload[done : done + room]
            done += len(part)
            last = end and done == len(payload)
            self.writer.write(frame(DATA, END_STREAM if last else 0, stream, part))
            self._windows[0] -= len(part)
            self._windows[stream] -= len(part)
            self.sent_bytes += len(part)
            await self.writer.drain()
        return done

    def reset(self, stream: int) -> None:
        """Break a call off."""
        self.writer.write(frame(RST_STREAM, 0, stream, (8).to_bytes(4, "big")))

    def answer(self, stream: int) -> HeaderFields | None:
        """What a call has ended with, as header fields; None if it has not ended."""
        fields = self.fields.get(stream, {})
        if b"grpc-status" in fields:
            return fields
        for kind, _, number, payload in self.frames:
            if (kind, number) == (RST_STREAM, stream):
                code = _RESETS.get(int.from_bytes(payload, "big"), Code.INTERNAL)
                return {**fields, b"grpc-status": b"%d" % code.value}
        return None

    async def status(self, stream: int) -> int:
        """The code that a call ends with."""
        async with asyncio.timeout(PATIENCE_S):
            while (fields := self.answer(stream)) is None:
                assert await self._take(wait_s=PATIENCE_S), f"the connection ended: {self.frames}"
        return int(fields[b"grpc-status"])

    async def heard(self, stream: int) -> None:
        """Wait for the header fields of an answer, whatever it is."""
        async with asyncio.timeout(PATIENCE_S):
            while not any(f.stream == stream and f.kind == HEADERS for f in self.frames):
                assert await self._take(wait_s=PATIENCE_S), f"the connection ended: {self.frames}"

    async def until_ended(self) -> None:
        """Read until the server closes the connection."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.ended:
                await self._take(wait_s=PATIENCE_S)

    async def settle(self) -> None:
        """Read what comes within a moment: the server's settings, for one."""
        while await self._take(wait_s=0.1):
            pass

    async def close(self) -> None:
        """Go away."""
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    async def _take(self, wait_s: float) -> bool:
        """Read one frame; False if none came."""
        try:
            async with asyncio.timeout(wait_s):
                while (got := self._first()) is None and not self.ended:
                    part = await self.reader.read(65_536)
                    self._read += part
                    self._read_along(part)
                    self.ended = not part
        except TimeoutError:
            return False
        except ConnectionError:
            self.ended = True
            return False
        if got is None:
            return False
        payload = got.payload
        if got.kind == WINDOW_UPDATE:
            size = int.from_bytes(payload, "big")
            self._windows[got.stream] = self._windows.get(got.stream, self._window) + size
        elif got.kind == SETTINGS and not got.flags & ACK:
            self._set(payload)
            self.writer.write(frame(SETTINGS, ACK, 0))
        elif got.kind == PING and not got.flags & ACK:
            self.writer.write(frame(PING, ACK, 0, payload))
        else:
            self.frames.append(got)
        return True

    def _read_along(self, part: bytes) -> None:
        """Note the header fields in what has come."""
        with suppress(ngh2.NGH2Error):  # It reads nothing more after a GOAWAY.
            self._along.receive_data(part)
        for event in self._along.events():
            if isinstance(event, events.ResponseReceived | events.TrailersReceived):
                self.fields.setdefault(event.stream_id, {}).update(event.headers)

    def _first(self) -> Frame | None:
        """Take the first whole frame of what has been read, if there is one."""
        head = self._read[:9]
        end = 9 + int.from_bytes(head[:3], "big")
        if len(self._read) < end or len(head) < 9:
            return None
        payload, self._read = self._read[9:end], self._read[end:]
        return Frame(head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFF_FFFF, payload)

    def _set(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            setting = int.from_bytes(payload[at : at + 2], "big")
            if setting == _INITIAL_WINDOW:
                size = int.from_bytes(payload[at + 2 : at + 6], "big")
                for stream in self._windows.keys() - {0}:
                    self._windows[stream] += size - self._window
                self._window = size


async def close_all(clients: Sequence[RawClient]) -> None:
    """Have them all go away."""
    for client in clients:
        await client.close()
