"""Bounds on a connection: frames that carry nothing, unread bytes, silence and age.

Knows no engine: a connection reports what it has received, and learns when a bound is exceeded.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from typing import Protocol

from vmsvc_grpc.server.limits import CLIENT_PART, Limits
from vmsvc_grpc.server.tally import Tally

FRAMES_S = 30.0
"""The bounds on frames hold for this time. A used-up allowance comes back evenly within it."""

# Pings that may come too early before a client is sent away: as many as gRPC's own servers allow.
_PING_STRIKES_MAX = 2

# One connection may have this part of the bytes that may wait for all clients.
_CONNECTION_PART = 32

# A client answers messages with WINDOW_UPDATE frames, for the stream and for the connection. It may
# send so many for each message, and one more for so many bytes of a large one.
_UPDATES_A_MESSAGE = 4
_BYTES_AN_UPDATE = 256

# RFC 9113, 4.1: the bytes of a frame before its payload; the first say its length, kind and flags.
_HEAD_BYTES = 9
_LENGTH_BYTES = 3
_FLAGS_BYTES = 5

# RFC 9113, 6.2 and 6.10: a header block goes on, with nothing in between, until this flag.
_HEADERS, _CONTINUATION, _END_HEADERS = 1, 9, 4


class Bucket:
    """An allowance: so many at once, and so many in `FRAMES_S`."""

    __slots__ = ("_at", "_left", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = float(most)
        self._at = -math.inf

    def take(self, now: float) -> bool:
        """Take one at `now` (seconds), if one is left; whether it was."""
        self._left = min(self._most, self._left + (now - self._at) * self._most / FRAMES_S)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give(self, count: float) -> None:
        """Add so many, up to the most that there may be at once."""
        self._left = min(self._most, self._left + count)


class Floods:
    """Counts a connection's frames that carry nothing. Each method returns an exceeded bound."""

    __slots__ = (
        "_earned",
        "_empty",
        "_limits",
        "_ping_at",
        "_pings_in_excess",
        "_resets",
        "_settings",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._resets = Bucket(limits.resets_max)
        self._settings = Bucket(limits.settings_max)
        self._empty = Bucket(limits.empty_frames_max)
        self._earned = 0.0  # Empty frames that it may send more, by what it was sent.
        self._ping_at = -math.inf
        self._pings_in_excess = 0

    def reset(self, now: float) -> str | None:
        """The client has reset a stream."""
        return None if self._resets.take(now) else "resets_max"

    def settings(self, now: float) -> str | None:
        """The client has sent settings."""
        return None if self._settings.take(now) else "settings_max"

    def empty(self, now: float) -> str | None:
        """The client has sent a frame without any effect."""
        if self._earned:
            self._empty.give(self._earned)
            self._earned = 0.0
        return None if self._empty.take(now) else "empty_frames_max"

    def pinged(self, now: float) -> str | None:
        """The client has sent a ping."""
        early = now - self._ping_at < self._limits.client_ping_interval_min_s
        self._ping_at = now
        self._pings_in_excess = self._pings_in_excess + 1 if early else 0
        return "client_ping_interval_min_s" if self._pings_in_excess > _PING_STRIKES_MAX else None

    def sent(self, messages: int, size: int) -> None:
        """The client was sent `messages`, or more of one; `size` bytes of them.

        It may ping now, and open its windows: the clients of grpc-go and of gRPC's core ping
        whenever they receive data, to measure how fast it comes.
        """
        self._ping_at = -math.inf
        self._pings_in_excess = 0
        self._earned += messages * _UPDATES_A_MESSAGE + size / _BYTES_AN_UPDATE


class Frames:
    """Where the bytes that a client has sent so far end: within a frame, or after one."""

    __slots__ = ("_begun", "_left", "_more")

    def __init__(self, first_bytes: int) -> None:
        """So many bytes come before the first frame."""
        self._left = first_bytes  # Bytes to come until the next frame.
        self._begun = b""  # What has come of its length, kind and flags.
        self._more = True  # Whether it is the only one that may come: SETTINGS, or CONTINUATION.

    def take(self, data: bytes) -> None:
        """More has come."""
        data = self._begun + data
        at, size = self._left, len(data)
        while at + _FLAGS_BYTES <= size:
            kind, flags = data[at + _LENGTH_BYTES], data[at + _FLAGS_BYTES - 1]
            self._more = kind in (_HEADERS, _CONTINUATION) and not flags & _END_HEADERS
            at += _HEAD_BYTES + int.from_bytes(data[at : at + _LENGTH_BYTES], "big")
        self._begun = data[at:]
        self._left = max(0, at - size)

    @property
    def cut(self) -> bool:
        """Whether the rest of a frame has yet to come."""
        return bool(self._left or self._begun)

    @property
    def any_next(self) -> bool:
        """Whether a frame of any kind may come next."""
        return not (self._left or self._begun or self._more)


class Entrance:
    """Counts the connections of a server: in all, and of each client."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._connections = Tally()

    @property
    def in_all(self) -> int:
        """How many connections there are."""
        return self._connections.in_all

    def enter(self, client: str) -> str | None:
        """Count one more connection of a client; or the bound that it would exceed."""
        if self.in_all >= self._limits.connections_max:
            return "connections_max"
        if self._connections.of(client) >= self._limits.connections_per_client_max:
            return "connections_per_client_max"
        self._connections.add(client, 1)
        return None

    def leave(self, client: str) -> None:
        """A connection that was counted has ended."""
        self._connections.add(client, -1)


class Reading(Protocol):
    """What `Unread` uses of a connection."""

    client: str

    def mark(self) -> None:
        """Have it flushed soon."""

    def refuse(self, limit: str) -> None:
        """Send the client away for exceeding `limit`, a name in `Limits`."""


class Unread:
    """Counts the bytes that clients have yet to take: in all, of each client and connection.

    A connection without room waits for it. A client that has no bytes waiting is always let one
    message, so that nobody else can silence it.
    """

    def __init__(self, bytes_max: int) -> None:
        """`bytes_max` is for all clients; a client and a connection may each have a part of it."""
        self._bytes_max = bytes_max
        self._unread = Tally()
        self._of_connection: dict[Reading, int] = {}  # Those that took something last come last.
        self._waiting: dict[str, dict[Reading, None]] = {}  # For room, by client, in order.
        self.crowded = False
        """Whether connections wait for room. Only `Unread` sets it."""
        self.room_for_one = max(1, bytes_max // _CONNECTION_PART)

    @property
    def in_all(self) -> int:
        """How many bytes all clients have yet to take."""
        return self._unread.in_all

    def count(self, connection: Reading, size: int) -> None:
        """Note that `size` bytes wait for a connection; 0, too, once it is closed.

        Marks connections for which there is room then.
        """
        before = self._of_connection.get(connection, 0)
        if size < before:
            del self._of_connection[connection]
        if size:
            self._of_connection[connection] = size
        self._unread.add(connection.client, size - before)
        for client in list(self._waiting):  # Few, where there is room.
            if self.room(client, 0):
                first = next(iter(self._waiting[client]))
                self.wait_no_more(first)
                first.mark()

    def room(self, client: str, of_connection: int) -> int:
        """How many bytes more may wait for a connection for which `of_connection` wait already."""
        if not self.in_all:
            return max(self.room_for_one - of_connection, 0)
        of_client = self._unread.of(client)
        room = min(
            self.room_for_one - of_connection,
            self._part - of_client,
            self._bytes_max - self.in_all,
        )
        return max(room, 0 if of_client else 1)

    def wait(self, connection: Reading) -> None:
        """Mark a connection for which nothing waits once there is room for it."""
        self._waiting.setdefault(connection.client, {})[connection] = None
        self.crowded = True

    def wait_no_more(self, connection: Reading) -> None:
        """The connection has had its turn, or is closed."""
        waiting = self._waiting.get(connection.client, {})
        waiting.pop(connection, None)
        if not waiting:
            self._waiting.pop(connection.client, None)
            self.crowded = bool(self._waiting)

    def slowest(self, connection: Reading) -> Reading:
        """The one that has taken nothing for longest, of those that leave a connection no room."""
        if self._of_connection.get(connection, 0) >= self.room_for_one:
            return connection
        of_client = self._unread.of(connection.client) >= self._part
        for other in self._of_connection:
            if other.client == connection.client or not of_client:
                return other
        return connection

    @property
    def _part(self) -> int:
        return self._bytes_max // CLIENT_PART


class Living(Protocol):
    """What `Life` uses of its connection."""

    @property
    def came(self) -> bool:
        """Whether received bytes have yet to be taken in."""

    def ping(self) -> None:
        """Ask the client whether it is there."""

    def refuse(self, limit: str) -> None:
        """Send the client away for exceeding `limit`, a name in `Limits`."""

    def stay_full(self) -> None:
        """It has had no room for `connection_write_s`."""

    def go_away(self) -> None:
        """Ask the client to begin no more calls, and close once those under way have ended."""

    def abort(self) -> None:
        """End it now, with all calls on it."""

    def count(self, limit: str) -> None:
        """Count that the client is at a bound, by its name in `Limits`."""

    def cut(self) -> None:
        """Drop the connection without a goodbye."""

    def unwritten(self) -> int:
        """Bytes that its socket has not taken yet."""


class Life:
    """How long a connection may be silent or idle, and how long it may live."""

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
        """The connection was made now."""
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
        """The client's preface is complete."""
        if (timer := self._timers.pop("greeting", None)) is not None:
            timer.cancel()

    def heard(self, now: float) -> None:
        """The client has sent something."""
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
        """Whether no more bytes may wait for the client; it may not stay so for ever."""
        if full and "full" not in self._timers:
            self._later("full", self._limits.connection_write_s, self._stay_full)
        elif not full and (timer := self._timers.pop("full", None)) is not None:
            timer.cancel()

    def end(self) -> None:
        """Release the connection, which refers to this: together they would be a cycle."""
        self.close()
        del self._connection

    def close(self) -> None:
        """The connection is closing: stop all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def close_within(self, patience_s: float) -> None:
        """Give the client that long to take the last bytes, then cut it off."""
        self.close()
        self._later("close", patience_s, self._connection.cut)

    def _later(self, what: str, delay_s: float, callback: Callable[[], None]) -> None:
        if (timer := self._timers.get(what)) is not None:
            timer.cancel()
        self._timers[what] = self._loop.call_later(delay_s, callback)

    def _miss_greeting(self) -> None:
        """Send away a client that has not begun; unless what it has sent waits for its turn."""
        if self._connection.came:
            self._later("greeting", self._limits.handshake_s, self._miss_greeting)
        else:
            self._connection.refuse("handshake_s")

    def _keep_alive(self) -> None:
        """Ping a silent client; cut it off if it does not answer."""
        silent_s = self._loop.time() - self._read_at
        wait_s = self._limits.keepalive_s - silent_s
        if wait_s <= 0:
            if silent_s >= self._limits.keepalive_s + self._limits.keepalive_timeout_s:
                self._connection.count("keepalive_timeout_s")
                self._connection.cut()
                return
            self._connection.ping()
            wait_s = self._limits.keepalive_timeout_s
        self._later("alive", wait_s, self._keep_alive)

    def _look_idle(self) -> None:
        """Leave a client that has had no call for long, or look again when it may be so."""
        wait_s = self._limits.connection_idle_s
        if not self._busy:
            wait_s -= self._loop.time() - self._idle_since
        if wait_s > 0:
            self._later("idle", wait_s, self._look_idle)
        else:
            self._connection.count("connection_idle_s")
            self._leave()

    def _leave(self) -> None:
        self._connection.go_away()
        self._later("age", self._limits.connection_age_grace_s, self._connection.abort)

    def _stay_full(self) -> None:
        del self._timers["full"]
        self._connection.stay_full()

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
