"""How much a client may send that carries nothing, and how long a connection may stand.

Knows no frames and no engine: a connection says what has come, and is told when it has been
too much or too long.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from vmsvc_grpc.server.limits import CLIENT_PART, Limits

FRAMES_S = 30.0
"""The time that the bounds on frames are for: what was taken comes back evenly within it."""

# Pings in excess before a client is sent away, as gRPC's own servers count.
_PING_STRIKES_MAX = 2

# One connection's part of what may wait for all clients.
_CONNECTION_PART = 32

# Windows may be opened this often for what a client is told, of the stream and of the connection:
# after each message, and within a large one by a part of the smallest window that is of use.
_UPDATES_A_MESSAGE = 4
_BYTES_AN_UPDATE = 256


class Bucket:
    """So much at once, and so much in `FRAMES_S`."""

    __slots__ = ("_at", "_left", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = float(most)
        self._at = -math.inf

    def take(self, now: float) -> bool:
        """Whether one more may come at `now` (seconds); then it has."""
        self._left = min(self._most, self._left + (now - self._at) * self._most / FRAMES_S)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give(self, count: float) -> None:
        """That many more may come than otherwise."""
        self._left = min(self._most, self._left + count)


class Floods:
    """Counts a connection's frames that carry nothing. Each answer is the bound, or None."""

    __slots__ = ("_empty", "_limits", "_ping_at", "_pings_in_excess", "_resets", "_settings")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._resets = Bucket(limits.resets_max)
        self._settings = Bucket(limits.settings_max)
        self._empty = Bucket(limits.empty_frames_max)
        self._ping_at = -math.inf
        self._pings_in_excess = 0

    def reset(self, now: float) -> str | None:
        """The client has reset a stream."""
        return None if self._resets.take(now) else "resets_max"

    def settings(self, now: float) -> str | None:
        """It has sent settings."""
        return None if self._settings.take(now) else "settings_max"

    def empty(self, now: float) -> str | None:
        """It has sent a frame that nothing follows from."""
        return None if self._empty.take(now) else "empty_frames_max"

    def pinged(self, now: float) -> str | None:
        """It has sent a ping."""
        early = now - self._ping_at < self._limits.client_ping_interval_min_s
        self._ping_at = now
        self._pings_in_excess = self._pings_in_excess + 1 if early else 0
        return "client_ping_interval_min_s" if self._pings_in_excess > _PING_STRIKES_MAX else None

    def said(self, messages: int, size: int) -> None:
        """It was told so many, or more of one: it may ping to measure how fast that comes.

        `size` is in bytes, and what it may open its windows for.

        Both grpc-go's and gRPC's core's clients do, whenever data have come.
        """
        self._ping_at = -math.inf
        self._pings_in_excess = 0
        self._empty.give(messages * _UPDATES_A_MESSAGE + size / _BYTES_AN_UPDATE)


class Entrance:
    """Counts the connections of a server: in all, and of each client."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._in_all = 0
        self._of_client: Counter[str] = Counter()

    def enter(self, client: str) -> str | None:
        """Count one more of a client; or the bound that it is one too many for."""
        if self._in_all >= self._limits.connections_max:
            return "connections_max"
        if self._of_client[client] >= self._limits.connections_per_client_max:
            return "connections_per_client_max"
        self._in_all += 1
        self._of_client[client] += 1
        return None

    def leave(self, client: str) -> None:
        """One that was let in is gone."""
        self._in_all -= 1
        self._of_client[client] -= 1
        if not self._of_client[client]:
            del self._of_client[client]


class Unread:
    """Counts what waits to be taken in by clients: in all, and of each client."""

    def __init__(self, bytes_max: int) -> None:
        """`bytes_max` is for all; of a client and of a connection it is a part of that."""
        self._bytes_max = bytes_max
        self._in_all = 0
        self._of_client: Counter[str] = Counter()
        self.room_for_one = max(1, bytes_max // _CONNECTION_PART)

    def add(self, client: str, size: int) -> None:
        """That much more waits, or less."""
        self._in_all += size
        self._of_client[client] += size
        if not self._of_client[client]:
            del self._of_client[client]

    def room(self, client: str, of_connection: int) -> int:
        """How much more may wait for a connection that so much waits for already.

        Where nothing does, it is `room_for_one`, whatever others do.
        """
        if not of_connection:
            return self.room_for_one
        room = min(
            self.room_for_one - of_connection,
            self._bytes_max // CLIENT_PART - self._of_client[client],
            self._bytes_max - self._in_all,
        )
        return max(room, 0)


class Living(Protocol):
    """The connection whose life it is."""

    def ping(self) -> None:
        """Ask the client whether it is there."""

    def refuse(self, limit: str) -> None:
        """Send the client away at a bound, by its name in `Limits`."""

    def go_away(self) -> None:
        """Tell the client to begin no more calls here, and close once those that are have ended."""

    def abort(self) -> None:
        """End it now, with all calls on it."""

    def cut(self) -> None:
        """End it without a word."""

    def unwritten(self) -> int:
        """Bytes that its socket has not taken yet."""


class Life:
    """How long a connection may be still, and how long it may live."""

    __slots__ = (
        "_busy",
        "_connection",
        "_idle_since",
        "_limits",
        "_loop",
        "_read_at",
        "_taken",
        "_timers",
        "_written",
    )

    def __init__(self, connection: Living, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        """It begins now."""
        self._connection = connection
        self._limits = limits
        self._loop = loop
        self._busy = False
        self._idle_since = self._read_at = loop.time()
        self._written = self._taken = 0  # Bytes; those taken, when looked at last.
        age_s = limits.connection_age_s * random.uniform(0.9, 1.1)  # noqa: S311 - nobody's secret
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._later("greeting", limits.handshake_s, self._miss_greeting)
        self._later("alive", limits.keepalive_s, self._keep_alive)
        self._later("idle", limits.connection_idle_s, self._look_idle)
        self._later("age", age_s, self._leave)

    def greeted(self) -> None:
        """The client has said all that a connection begins with."""
        if (timer := self._timers.pop("greeting", None)) is not None:
            timer.cancel()

    def heard(self, now: float) -> None:
        """Something has come from it."""
        self._read_at = now

    def answered(self) -> None:
        """The client has answered our ping."""
        self._later("alive", self._limits.keepalive_s, self._keep_alive)

    def busy(self, *, calls: bool) -> None:
        """Whether calls are open now."""
        if not calls:
            self._idle_since = self._loop.time()
        self._busy = calls

    def wrote(self, size: int) -> None:
        """Bytes were handed to the socket."""
        self._written += size
        if "write" not in self._timers:
            self._look_later()

    def full(self, *, full: bool) -> None:
        """Whether as much waits for the client as may: not for ever."""
        if full and "full" not in self._timers:
            self._later("full", self._limits.connection_write_s, self._stay_full)
        elif not full and (timer := self._timers.pop("full", None)) is not None:
            timer.cancel()

    def end(self) -> None:
        """It is over, and the connection is let go of: with it, this would be a circle."""
        self.close()
        del self._connection

    def close(self) -> None:
        """It is closing: nothing is looked at any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def close_within(self, patience_s: float) -> None:
        """What is left is being written: give the client that long to take it."""
        self.close()
        self._later("close", patience_s, self._connection.cut)

    def _later(self, what: str, delay_s: float, callback: Callable[[], None]) -> None:
        if (timer := self._timers.get(what)) is not None:
            timer.cancel()
        self._timers[what] = self._loop.call_later(delay_s, callback)

    def _miss_greeting(self) -> None:
        self._connection.refuse("handshake_s")

    def _keep_alive(self) -> None:
        """Ping a client that says nothing; close where it does not answer."""
        silent_s = self._loop.time() - self._read_at
        wait_s = self._limits.keepalive_s - silent_s
        if wait_s <= 0:
            if silent_s >= self._limits.keepalive_s + self._limits.keepalive_timeout_s:
                self._connection.cut()
                return
            self._connection.ping()
            wait_s = self._limits.keepalive_timeout_s
        self._later("alive", wait_s, self._keep_alive)

    def _look_idle(self) -> None:
        """Leave a client that has had no call for long; look again when that may be."""
        wait_s = self._limits.connection_idle_s
        if not self._busy:
            wait_s -= self._loop.time() - self._idle_since
        if wait_s > 0:
            self._later("idle", wait_s, self._look_idle)
        else:
            self._leave()

    def _leave(self) -> None:
        self._connection.go_away()
        self._later("age", self._limits.connection_age_grace_s, self._connection.abort)

    def _stay_full(self) -> None:
        self._connection.refuse("unread_bytes_max")

    def _look_later(self) -> None:
        self._taken = self._written - self._connection.unwritten()
        self._later("write", self._limits.connection_write_s, self._look_written)

    def _look_written(self) -> None:
        """Cut off a client whose socket has taken nothing since the last look."""
        unwritten = self._connection.unwritten()
        if not unwritten:
            del self._timers["write"]
        elif self._written - unwritten > self._taken:
            self._look_later()
        else:
            self._connection.refuse("connection_write_s")
