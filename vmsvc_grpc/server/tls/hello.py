"""When handshakes begin on the HTTP port: once the client's first message is there, few in a turn.

To answer it takes a signature, a millisecond or more. All clients come back at once after a
restart, and others would wait for all of theirs.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque

HANDSHAKES_A_TURN = 4
"""Handshakes that begin in one turn of the event loop: 5 ms of work, 12 with a key of RSA."""

# How many clients are looked at in one: 3 ms of work.
_LOOKS_A_TURN = 64

# RFC 8446, 5.1: a record has its type (this one is a handshake's), a version, and its length.
_HANDSHAKE = b"\x16"
HEADER_BYTES = 5
_RECORD_BYTES_MAX = 16 * 1024

# 4 and 5.1: a message has its type and its length, and may take several records. Clients with
# little memory have them of 512 bytes.
_MESSAGE_HEADER_BYTES = 4
_RECORDS_MAX = 32


def begins_tls(begun: bytes) -> bool:
    """Whether a client's first bytes may be those of TLS."""
    return begun[:1] == _HANDSHAKE


def _is_whole(message: bytes) -> bool:
    """Whether a message is all there, by the length that it begins with."""
    length = int.from_bytes(message[1:_MESSAGE_HEADER_BYTES], "big")
    return len(message) >= min(_MESSAGE_HEADER_BYTES + length, _RECORD_BYTES_MAX)


class _Line:
    """Futures that are done in the order in which they came, some in each turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, a_turn: int) -> None:
        self._loop = loop
        self._a_turn = a_turn
        self._waiting: deque[asyncio.Future[None]] = deque()

    def add(self, turn: asyncio.Future[None]) -> None:
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._let_some)

    def _let_some(self) -> None:
        for _ in range(min(self._a_turn, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():  # Else whoever waited was cancelled.
                turn.set_result(None)
        if self._waiting:
            self._loop.call_soon(self._let_some)


class Handshakes:
    """Lets handshakes begin, in the order in which clients are ready. One event loop owns it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """For sockets that `loop` accepts."""
        self._loop = loop
        self._looks = _Line(loop, _LOOKS_A_TURN)
        self._turns = _Line(loop, HANDSHAKES_A_TURN)

    async def ready(self, accepted: socket.socket) -> bytes:
        """Wait until a handshake may begin; the client's first bytes, which stay to be read.

        Returns at once if these are not TLS, or if the client is gone; what there is then, or
        nothing. Sets no time limit. Raises OSError. Safe to cancel.
        """
        try:
            first = await self._peeked(accepted, HEADER_BYTES)
            if len(first) == HEADER_BYTES and begins_tls(first):
                # Else it could send the rest together with others, and all would begin at once.
                first = await self._whole(accepted, first)
                turn = self._loop.create_future()
                self._turns.add(turn)
                await turn
        finally:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        return first

    async def _whole(self, accepted: socket.socket, begun: bytes) -> bytes:
        """What a client has sent once its first message is whole, in however many records.

        Less if the client sends no more, or what is no such message.
        """
        message, end = b"", 0
        for _ in range(_RECORDS_MAX):
            content = end + HEADER_BYTES
            if len(begun) < content:
                begun = await self._peeked(accepted, content)
            if len(begun) < content or not begins_tls(begun[end:]):
                break
            length = int.from_bytes(begun[content - 2 : content], "big")
            end = content + min(length, _RECORD_BYTES_MAX)
            begun = await self._peeked(accepted, end)
            message += begun[content:end]
            if len(begun) < end or _is_whole(message):
                break
        return begun

    async def _peeked(self, accepted: socket.socket, count: int) -> bytes:
        """So many bytes of what a client has sent; less if it sends no more."""
        # Else a part of them would wake us again and again.
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
        readable = self._loop.create_future()
        self._loop.add_reader(accepted, self._came, accepted, readable)
        try:
            await readable
        finally:
            self._loop.remove_reader(accepted)
        return accepted.recv(count, socket.MSG_PEEK)

    def _came(self, accepted: socket.socket, readable: asyncio.Future[None]) -> None:
        self._loop.remove_reader(accepted)
        self._looks.add(readable)
