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
    there are at most a part, its newest.
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

    def peek(self, key: Key) -> Kept | None:
        """What is remembered of a yes or in use, which leaves it as it is."""
        return self._used.get(key) or self._granted.peek(key)

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
    """The newest, of all callers and of each."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_of_one = max(1, most // IDLE_PART)
        self._kept: OrderedDict[Key, Kept] = OrderedDict()
        self._of: dict[str, OrderedDict[Key, None]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, key: Key) -> Kept | None:
        idle = self._kept.pop(key, None)
        if idle is not None:
            keys = self._of[idle.caller]
            del keys[key]
            if not keys:
                del self._of[idle.caller]
        return idle

    def peek(self, key: Key) -> Kept | None:
        return self._kept.get(key)

    def keep(self, key: Key, idle: Kept) -> None:
        keys = self._of.get(idle.caller, ())
        if len(keys) >= self._most_of_one:
            self.take(next(iter(keys)))
        elif len(self._kept) >= self._most:
            self.take(next(iter(self._kept)))
        self._kept[key] = idle
        self._of.setdefault(idle.caller, OrderedDict())[key] = None
