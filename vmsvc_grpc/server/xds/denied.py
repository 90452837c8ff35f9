"""Names that do not exist, of which a delta client is to be informed once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from vmsvc_grpc.server.followed import StreamNames, kept_bytes

# What a name in `removed_resources` takes beside its text: a tag and a length.
_NAME_BYTES = 8


def removed_bytes(name: str) -> int:
    """The bytes that a name in `removed_resources` takes."""
    return len(name.encode()) + _NAME_BYTES


class Denied:
    """Names of one type to deny; nothing else is kept of them.

    Until they are sent they take room as names that are followed do. One that has no room is kept
    all the same if no other waits, so that a client at its bound that asks for one name after
    another is answered each time.
    """

    __slots__ = ("_bytes", "_names", "_room")

    def __init__(self, room: StreamNames) -> None:
        """No names yet. They count in `room`."""
        self._room = room
        self._names: dict[str, bool] = {}  # Whether it takes room.
        self._bytes = 0

    def __bool__(self) -> bool:
        """Whether there are names to deny."""
        return bool(self._names)

    def add(self, name: str, bytes_max: int) -> None:
        """Have the client informed that a name does not exist, if `bytes_max` has room for that.

        Other names are not answered, as anybody may choose any number of names of any length.
        """
        size = removed_bytes(name)
        if name in self._names or self._bytes + size > bytes_max:
            return
        # That it has none is no refusal: where the name was refused, that has been counted.
        has_room = not self._room.take_all(1, kept_bytes(name))
        if has_room or not self._names:
            self._names[name] = has_room
            self._bytes += size

    def take(self, most: int) -> Sequence[str]:
        """At most so many names, once, in the order in which they were added."""
        taken = list(islice(self._names, most))
        for name in taken:
            if self._names.pop(name):
                self._room.give_back(name)
            self._bytes -= removed_bytes(name)
        if not self._names:
            self._names = {}  # One that was full is as large when it is empty.
        return taken

    def close(self) -> None:
        """Drop all names. May be called twice."""
        self._names.clear()
        self._bytes = 0
        self._room.close()
