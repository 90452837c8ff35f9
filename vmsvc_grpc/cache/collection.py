"""All services there are, of a namespace or of all: their names in order.

A name is in it while its service exists and is not being deleted, refused or not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from vmsvc_grpc.model.objects import Key


class Collection:
    """The names of the services, sorted by namespace and name. Only the cache changes it."""

    def __init__(self) -> None:
        """There are none yet."""
        self._names: list[Key] = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self._names)

    def page(self, namespace: str | None, after: Key | None, size: int) -> list[Key]:
        """The next names of a namespace, or of all (None), beyond `after`: at most `size`.

        Costs the page, however many there are before and behind it.
        """
        names = self._names
        # No text sorts between a namespace and the same with a zero character behind it.
        start = 0 if namespace is None else bisect_left(names, Key(namespace, ""))
        end = len(names) if namespace is None else bisect_left(names, Key(namespace + "\0", ""))
        if after is not None:
            start = max(start, bisect_right(names, after))
        return names[start : min(end, start + size)]

    def add(self, name: Key) -> bool:
        """This service is there from now on; whether it was not before."""
        place = bisect_left(self._names, name)
        if self._names[place : place + 1] == [name]:
            return False
        self._names.insert(place, name)
        return True

    def discard(self, name: Key) -> None:
        """This service is not there any more; also if it was not before."""
        place = bisect_left(self._names, name)
        if self._names[place : place + 1] == [name]:
            del self._names[place]
