"""Connections that wait for something, in an order in which their clients take turns."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, Protocol, TypeVar


class _OfClient(Protocol):
    @property
    def client(self) -> str:
        """Whose it is."""


_Waiting = TypeVar("_Waiting", bound=_OfClient)


class Rotation(Generic[_Waiting]):
    """A queue that serves clients in turn, and the connections of each in order.

    So a client with thousands of connections delays those of others by one of its own, and not by
    all of them.
    """

    __slots__ = ("_count", "_of_client")

    def __init__(self) -> None:
        """Nobody waits."""
        self._of_client: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._count

    def append(self, connection: _Waiting) -> None:
        """Have a connection wait; also one that waits already."""
        self._count += 1
        waiting = self._of_client.get(connection.client)
        if waiting is None:
            self._of_client[connection.client] = deque((connection,))
        else:
            waiting.append(connection)

    def popleft(self) -> _Waiting:
        """The first connection of the client whose turn it is; it is then the others' turn."""
        self._count -= 1
        client, waiting = next(iter(self._of_client.items()))
        connection = waiting.popleft()
        if waiting:
            self._of_client.move_to_end(client)
        else:
            del self._of_client[client]
        return connection
