"""How much clients have of something that is bounded: each of them, and in all."""

from __future__ import annotations

from collections import Counter


class Tally:
    """Counts for clients by their addresses. It has no entry for one that has nothing.

    Knows no bound. Not thread-safe: one event loop owns it.
    """

    __slots__ = ("_of_client", "in_all")

    def __init__(self) -> None:
        """Nobody has anything."""
        self.in_all = 0
        self._of_client: Counter[str] = Counter()

    def of(self, client: str) -> int:
        """How much a client has."""
        return self._of_client[client]

    def add(self, client: str, more: int) -> None:
        """Count so much more for a client; less, if it is negative."""
        self.in_all += more
        self._of_client[client] += more
        if not self._of_client[client]:
            del self._of_client[client]
