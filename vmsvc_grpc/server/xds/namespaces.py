"""Wildcards of clients who may hear of some namespaces: one listing for each, handed out as one.

The listings, and all that is encoded for them, are shared with all others who may hear of the same
namespaces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.collection import ServiceReader
from vmsvc_grpc.server.call import Wake
from vmsvc_grpc.server.xds.listing import DIGESTS, ListedDue, Listing, Wildcard
from vmsvc_grpc.server.xds.resources import Resource
from vmsvc_grpc.server.xds.visible import Visible

# How many changes of services are taken in in one turn: some 2 ms of work.
_TAKES_A_TURN = 1_000

Later = Callable[[Callable[[], None]], object]
"""Has something done in another turn of the event loop."""


class Namespaces:
    """The namespaces that have services, for all streams that may hear of some of them.

    `version` rises when there is one more. One without services may be among them for a while.
    """

    def __init__(self, cache: Cache, later: Later) -> None:
        """Nobody asks yet. It is not read before the cache is synced."""
        self.version = 0
        self.names: frozenset[str] = frozenset()
        self._cache = cache
        self._later = later
        self._reader: ServiceReader | None = None
        self._wildcards: dict[NamespacesWildcard, Wake] = {}

    def follow(self, wildcard: NamespacesWildcard, wake: Wake) -> None:
        """Call `wake` for each namespace that comes, until the wildcard leaves."""
        self._wildcards[wildcard] = wake
        if self._reader is None:
            self._reader = self._cache.follow(None, None, self._note)
            self._reader.skip()
            self._look()

    def leave(self, wildcard: NamespacesWildcard) -> None:
        """Do not wake for a wildcard any more. May be called twice."""
        self._wildcards.pop(wildcard, None)
        if not self._wildcards and self._reader is not None:
            self._reader.close()
            self._reader = None

    def _note(self) -> None:
        # Streams are woken by new namespaces only, and the cache must not be asked within a wake.
        self._later(self._take)

    def _take(self) -> None:
        """Take in changes of services, as many as a turn of the event loop allows."""
        reader, came = self._reader, False
        for _ in range(_TAKES_A_TURN):
            if reader is None or not reader.behind:
                break
            if (due := reader.take()) is not None:
                came |= due.name.namespace not in self.names
        else:
            self._later(self._take)
        if came:
            self._look()
            for wake in list(self._wildcards.values()):
                wake()

    def _look(self) -> None:
        self.version += 1
        self.names = frozenset(self._cache.collection.namespaces())


class NamespacesListing:
    """The resources of one type of some namespaces, as one `Listing`."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: dict[str, Listing] = {}

    def __len__(self) -> int:
        """The number of resources. O(namespaces)."""
        return sum(map(len, self.parts.values()))

    @property
    def digest(self) -> int:
        """The sum of the digests of all resources. O(namespaces)."""
        return sum(part.digest for part in self.parts.values()) % DIGESTS

    @property
    def held_bytes(self) -> int:
        """What a delta client that comes back takes to say that it holds all. O(namespaces)."""
        return sum(part.held_bytes for part in self.parts.values())

    @property
    def behind(self) -> bool:
        """Whether there may be changes to catch up with. O(namespaces)."""
        return any(part.behind for part in self.parts.values())

    def catch_up(self, most: int) -> int:
        """Take in changes of services, in at most so many looks; the number of looks it took."""
        return self._go_on(most, lambda part, left: part.catch_up(left) if part.behind else 0)

    @property
    def encodes(self) -> bool:
        """Whether the endpoints of large services are left to be encoded. O(namespaces)."""
        return any(part.encodes for part in self.parts.values())

    def awaits(self, name: str) -> bool:
        """Whether a name is listed as soon as the endpoints of its service are encoded."""
        part = self.parts.get(namespace_of(name))
        return part is not None and part.awaits(name)

    def encode(self, most: int) -> int:
        """Encode endpoints of large services, in at most so many looks; how many it took."""
        return self._go_on(most, lambda part, left: part.encode(left) if part.encodes else 0)

    def _go_on(self, most: int, step: Callable[[Listing, int], int]) -> int:
        looks = 0
        for part in self.parts.values():
            if looks < most:
                looks += step(part, most - looks)
        return looks

    @property
    def all(self) -> Mapping[str, object]:
        """A view of the resources, by name, in no order."""
        return _AllNames(self.parts)

    def names(self) -> tuple[str, ...]:
        """All names, by namespace, service and port."""
        return tuple([name for part in sorted(self.parts) for name in self.parts[part].names()])

    def resource(self, name: str) -> Resource | None:
        """The resource of a name; None if there is none."""
        part = self.parts.get(namespace_of(name))
        return part.resource(name) if part is not None else None


class _AllNames(Mapping[str, object]):
    """The names of several listings, none of which is in two."""

    def __init__(self, parts: Mapping[str, Listing]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts.values()))

    def __iter__(self) -> Iterator[str]:
        return (name for part in self._parts.values() for name in part.all)

    def __getitem__(self, name: str) -> object:
        return self._parts[namespace_of(name)].all[name]

    def __contains__(self, name: object) -> bool:
        part = self._parts.get(namespace_of(name)) if isinstance(name, str) else None
        return part is not None and name in part.all


def namespace_of(name: str) -> str:
    """The namespace in a canonical name; of another name, whatever stands there."""
    return name.partition(":")[0].rpartition(".")[2]


class NamespacesWildcard:
    """A `Wildcard` of the namespaces that a client may hear of, which may become more."""

    __slots__ = (
        "_asked",
        "_first",
        "_follow",
        "_fresh",
        "_namespaces",
        "_only",
        "_parts",
        "_run",
        "_seen",
        "_unseen",
        "_visible",
        "listing",
    )

    def __init__(
        self,
        follow: Callable[[str], Wildcard],
        namespaces: Namespaces,
        visible: Visible,
        wake: Wake,
        *,
        only: str | None,
    ) -> None:
        """`follow` follows the listing of one namespace. `look` comes next.

        `only`: the namespace that is covered if it is visible; None: all that are.
        """
        self._only = only
        self.listing = NamespacesListing()
        self._follow = follow
        self._namespaces = namespaces
        self._visible = visible
        self._parts: dict[str, Wildcard] = {}
        self._run: dict[str, None] | None = None  # Namespaces left of the run under way.
        self._fresh = True  # Nothing was taken, not even that there is nothing.
        self._seen: tuple[int, int] | None = None
        self._unseen: deque[str] = deque()  # Namespaces left to look at.
        self._first = True  # Whether all were not looked at yet for the first time.
        self._asked: set[str] = set()  # Those that it asks about, shown or not.
        namespaces.follow(self, wake)

    def close(self) -> None:
        """Release all listings."""
        self._namespaces.leave(self)
        for part in self._parts.values():
            part.close()
        for namespace in self._asked:
            self._visible.let_go(namespace)
        self._asked.clear()

    def look(self) -> bool:
        """Follow namespaces that have become visible; whether there are any. Raises RpcError.

        The verdicts asked for may yet be unknown: see `Visible.settled`. If the turn is spent, it
        is `looking`, and to be asked again in another.
        """
        if not self.looking:
            self._begin_look()
        before = len(self._parts)
        while self._unseen and not self._visible.spent:
            self._look_at(self._unseen.popleft())
        if not self._unseen:
            self._first = False
        return len(self._parts) > before

    def _begin_look(self) -> None:
        now = self._namespaces.version, self._visible.gained
        if now == self._seen:
            return
        self._seen = now
        names = self._namespaces.names if self._only is None else frozenset((self._only,))
        self._unseen.extend(sorted(names - self._parts.keys()))
        for namespace in self._asked - names - self._parts.keys():
            self._asked.remove(namespace)
            self._visible.let_go(namespace)

    def _look_at(self, namespace: str) -> None:
        if namespace not in self._asked:
            self._asked.add(namespace)
            self._visible.hold(namespace)
        if self._visible.shows(namespace, required=self._first):
            part = self._parts[namespace] = self._follow(namespace)
            self.listing.parts[namespace] = part.listing

    @property
    def looking(self) -> bool:
        """Whether there are namespaces left to look at."""
        return bool(self._unseen)

    @property
    def _changed(self) -> bool:
        return self.looking or self._seen != (self._namespaces.version, self._visible.gained)

    @property
    def behind(self) -> bool:
        """Whether there may be something to take. If not, the stream will be woken."""
        return self._fresh or self._changed or any(part.behind for part in self._parts.values())

    @property
    def reading(self) -> bool:
        """Whether a run has begun, and is to be read to its end."""
        return self._run is not None

    @reading.setter
    def reading(self, reading: bool) -> None:
        if not reading:
            self._run = None
        elif self._run is None:
            self._run = self._due()

    def _due(self) -> dict[str, None]:
        return {namespace: None for namespace, part in self._parts.items() if part.behind}

    @property
    def begun(self) -> bool:
        """Whether anything may have been taken yet."""
        return any(part.begun for part in self._parts.values())

    @property
    def running(self) -> bool:
        """Whether the run that has begun has more to take."""
        return bool(self._run)

    @property
    def answered(self) -> bool:
        """Whether everything that was listed when it began has been taken."""
        return not self._fresh and all(part.answered for part in self._parts.values())

    def has_sent(self, name: str) -> bool:
        """Whether a name is known to have been handed out as it is now, even if it is gone."""
        part = self._parts.get(namespace_of(name))
        return part is not None and part.has_sent(name)

    def take(self) -> ListedDue | None:
        """As `Wildcard.take`: the next change, namespace by namespace."""
        if not self._run:
            self._run = self._due()
        while self._run:
            namespace = next(iter(self._run))
            part = self._parts[namespace]
            if (due := part.take()) is not None:
                return due
            if part.running:
                return None
            del self._run[namespace]
        self._fresh = False
        return None

    def sent_ahead(self, name: str) -> None:
        """Note that a listed name was sent, as it is now, in another way. Must be up to date."""
        self._parts[namespace_of(name)].sent_ahead(name)

    def skip(self) -> None:
        """Note that all was sent, as it is now, in another way, of namespaces not yet answered.

        Of one that is answered, the changes are to be taken.
        """
        self._fresh = False
        for part in self._parts.values():
            if not part.answered:
                part.skip()

    def again(self) -> None:
        """Hand out everything once more after the current run, and names that are gone by then."""
        for part in self._parts.values():
            part.again()


AnyWildcard = Wildcard | NamespacesWildcard
"""What a wildcard of any client is handed out by."""
