"""Which facts are remembered: those that open calls have, and some of the others. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from vmsvc_grpc.server.tally import Tally

IDLE_PART = 4
"""One caller has at most this part of the facts that no call has."""


class _Caused(Protocol):
    caller: str

    @property
    def granted(self) -> bool: ...


Key = TypeVar("Key", bound=Hashable)
Kept = TypeVar("Kept", bound=_Caused)


class Memory(Generic[Key, Kept]):
    """Facts by their keys. Each operation is O(1).

    Those in use are all there, and counted by caller. Of the idle ones, the newest are; no's are
    kept apart, so that one who makes up tokens or namespaces displaces no yes, and of one caller
    there is at most a part.
    """

    def __init__(self, granted_max: int, refused_max: int) -> None:
        """At most so many are kept that are idle, by whether they are a yes."""
        self._used: dict[Key, Kept] = {}
        self._granted = _Idle[Key, Kept](granted_max)
        self._refused = _Idle[Key, Kept](refused_max)
        self.in_use = Tally()

    def __len__(self) -> int:
        return len(self._used) + len(self._granted) + len(self._refused)

    def uses(self, key: Key) -> bool:
        """Whether there is one in use."""
        return key in self._used

    def find(self, key: Key) -> Kept | None:
        """What is remembered; it is in use from now on, until it is released."""
        fact = self._used.get(key)
        if fact is None:
            fact = self._granted.take(key) or self._refused.take(key)
            if fact is not None:
                self.use(key, fact)
        return fact

    def use(self, key: Key, fact: Kept) -> None:
        """Remember a new one, which is in use."""
        self._used[key] = fact
        self.in_use.add(fact.caller, 1)

    def release(self, key: Key, fact: Kept, *, keep: bool) -> None:
        """No call has it any more; `keep`: it is worth being kept."""
        del self._used[key]
        self.in_use.add(fact.caller, -1)
        if keep:
            (self._granted if fact.granted else self._refused).keep(key, fact)


class _Idle(Generic[Key, Kept]):
    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Key, Kept] = OrderedDict()
        self._of = Tally()

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, key: Key) -> Kept | None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._of.add(found.caller, -1)
        return found

    def keep(self, key: Key, idle: Kept) -> None:
        if self._of.of(idle.caller) >= max(1, self._most // IDLE_PART):
            return
        if len(self._kept) >= self._most:
            _, oldest = self._kept.popitem(last=False)
            self._of.add(oldest.caller, -1)
        self._kept[key] = idle
        self._of.add(idle.caller, 1)
