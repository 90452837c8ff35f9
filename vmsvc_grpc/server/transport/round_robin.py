"""Connections that wait for something, in an order in which their clients take turns."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

_Party = TypeVar("_Party", bound=Hashable)
_Waiting = TypeVar("_Waiting")


class RoundRobin(Generic[_Party, _Waiting]):
    """A queue whose parties are served in turn, and what waits of each in order.

    So a client with thousands of connections delays those of others by one of its own, and not by
    all of them.
    """

    __slots__ = ("_count", "_of_party")

    def __init__(self) -> None:
        """Nobody waits."""
        self._of_party: OrderedDict[_Party, deque[_Waiting]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._count

    @property
    def parties(self) -> int:
        """How many parties have one that waits."""
        return len(self._of_party)

    @property
    def next_party(self) -> _Party:
        """The party whose turn it is."""
        return next(iter(self._of_party))

    def pass_over(self) -> None:
        """Let the others have their turns before the party whose turn it is."""
        self._of_party.move_to_end(self.next_party)

    def append(self, waiting: _Waiting, party: _Party) -> None:
        """Have one wait in the turns of its party; also one that waits already."""
        self._count += 1
        of_party = self._of_party.get(party)
        if of_party is None:
            self._of_party[party] = deque((waiting,))
        else:
            of_party.append(waiting)

    def popleft(self) -> _Waiting:
        """The first one of the party whose turn it is; it is then the others' turn."""
        self._count -= 1
        party, of_party = next(iter(self._of_party.items()))
        waiting = of_party.popleft()
        if of_party:
            self._of_party.move_to_end(party)
        else:
            del self._of_party[party]
        return waiting
