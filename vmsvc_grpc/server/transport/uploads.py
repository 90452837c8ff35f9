"""Bounds the bytes of unfinished request messages that a server keeps: of a client, and in all."""

from __future__ import annotations

from collections.abc import Callable

from vmsvc_grpc.server.limits import CLIENT_PART
from vmsvc_grpc.server.tally import Tally


class Room:
    """The room for one unfinished message. Once it is `granted`, the client may send the rest."""

    __slots__ = ("client", "granted", "on_grant", "size")

    def __init__(self, client: str, size: int, on_grant: Callable[[], None]) -> None:
        """`on_grant` is called when it is granted after a wait."""
        self.client = client
        self.size = size
        self.on_grant = on_grant
        self.granted = False


class Uploads:
    """Grants unfinished messages room, each for its whole length, so that each can be finished.

    The messages of one client are granted in order, and clients take turns. A client without any
    room is granted any size. Not thread-safe: one event loop owns it.
    """

    def __init__(self, bytes_max: int) -> None:
        """`bytes_max` is for all clients; one of them may hold a quarter of it."""
        self._bytes_max = bytes_max
        self._granted = Tally()
        self._waiting: dict[str, dict[Room, None]] = {}

    @property
    def in_all(self) -> int:
        """The bytes of all messages that were granted room."""
        return self._granted.in_all

    def ask(self, room: Room) -> None:
        """Ask for room: `granted` now, or by `on_grant` once others have let go of theirs."""
        if room.client not in self._waiting and self._fits(room):
            self._grant(room)
        else:
            self._waiting.setdefault(room.client, {})[room] = None

    def let_go(self, room: Room) -> None:
        """Give room back, or stop waiting for it."""
        if room.granted:
            self._granted.add(room.client, -room.size)
        else:
            self._leave(room)  # The next of its client may be smaller.
        self._grant_waiting()

    def _grant_waiting(self) -> None:
        """Grant what fits now, one message of each client in turn.

        Cheap: clients wait only where there is little room.
        """
        granted = True
        while granted and self.in_all < self._bytes_max:
            granted = False
            for client in list(self._waiting):
                room = next(iter(self._waiting[client]))
                if self._fits(room):
                    self._leave(room)
                    self._grant(room)
                    room.on_grant()
                    granted = True

    def _fits(self, room: Room) -> bool:
        held = self._granted.of(room.client)
        return (not held or held + room.size <= self._bytes_max // CLIENT_PART) and (
            not self.in_all or self.in_all + room.size <= self._bytes_max
        )

    def _grant(self, room: Room) -> None:
        room.granted = True
        self._granted.add(room.client, room.size)

    def _leave(self, room: Room) -> None:
        waiting = self._waiting[room.client]
        del waiting[room]
        if not waiting:
            del self._waiting[room.client]
