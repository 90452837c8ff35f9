"""How large windows of HTTP/2 are: the bytes that clients may send before any is taken in.

A window grows while its client uses it up quickly, within bounds for each client and for all.
Pure: time is an argument, and a connection does what its window says.
"""

from __future__ import annotations

from vmsvc_grpc.server.limits import CLIENT_PART
from vmsvc_grpc.server.tally import Tally

FIRST_BYTES = 65_535
"""How large every window is at first (RFC 9113, 6.9.2), whatever a server would like."""

# A call's window is this part of the largest window. While the connection's window is smaller, it
# is half of that, but not less than at first.
_CALL_PART = 4

# A distant client waits for a window that is used up within this time: with a round trip of 40 ms,
# a window that is large enough lasts at least ten times as long.
_QUICK_S = 0.4

# A window that lasts so long is larger than its client needs.
_SLOW_S = 4.0


class Windows:
    """Counts the bytes by which windows have grown: in all, and of each client."""

    def __init__(self, bytes_max: int) -> None:
        """`bytes_max` is for all; one client may have a quarter of it."""
        self._bytes_max = bytes_max
        self._grown = Tally()

    @property
    def in_all(self) -> int:
        """The bytes by which all windows have grown."""
        return self._grown.in_all

    def grow(self, client: str, size: int) -> bool:
        """Count so many bytes more for a client's window, if there is room; whether there was."""
        grown = self._grown
        if grown.of(client) + size > self._bytes_max // CLIENT_PART:
            return False
        if grown.in_all + size > self._bytes_max:
            return False
        grown.add(client, size)
        return True

    def shrink(self, client: str, size: int) -> None:
        """Count so many bytes less for a window of a client."""
        self._grown.add(client, -size)


class Window:
    """The window of one connection: `size` bytes, which change as it is used."""

    __slots__ = ("_client", "_extra", "_most", "_refused", "_since", "_used", "_windows", "size")

    def __init__(self, windows: Windows, client: str, most: int, now: float) -> None:
        """It may grow to `most` bytes. `close` comes last."""
        self.size = min(FIRST_BYTES, most)
        self._windows = windows
        self._client = client
        self._most = most
        self._extra = 0  # What is counted of it.
        self._used = 0  # Bytes, since it was looked at last.
        self._since = now
        self._refused = False

    @property
    def of_call(self) -> int:
        """How much of it one call may have, so that stalled calls do not stop others."""
        return min(max(FIRST_BYTES, self.size // 2), self._most // _CALL_PART)

    def give_back(self, size: int, now: float) -> bool:
        """Note that so many bytes were taken in, and may be sent anew; whether its size changed."""
        self._used += size
        if self._used < self.size:
            return False
        lasted_s, self._since, self._used = now - self._since, now, 0
        # A client that was promised more could use that first. By now it has.
        self._count(max(0, self.size - FIRST_BYTES))
        if lasted_s <= _QUICK_S:
            return self._grow()
        if lasted_s >= _SLOW_S and self.size > FIRST_BYTES:
            self.size = max(FIRST_BYTES, self.size // 2)
            return True
        return False

    def stand(self, left: int) -> bool:
        """Note that so many bytes are left, as calls keep the others; whether its size changed.

        So calls that wait, for their rest or for their client, leave something to the others.
        """
        return left < self.size // 4 and self._grow()

    def _grow(self) -> bool:
        larger = min(self._most, self.size * 2)
        if larger <= self.size:
            return False
        extra = larger - FIRST_BYTES
        if extra > self._extra and not self._windows.grow(self._client, extra - self._extra):
            self._refused = True
            return False
        self._extra = max(self._extra, extra)
        self.size = larger
        return True

    def _count(self, extra: int) -> None:
        if extra < self._extra:
            self._windows.shrink(self._client, self._extra - extra)
            self._extra = extra

    def take_refusal(self) -> bool:
        """Whether there was no room for it to grow since it was asked last."""
        refused, self._refused = self._refused, False
        return refused

    def close(self) -> None:
        """Its connection is gone."""
        self._count(0)
