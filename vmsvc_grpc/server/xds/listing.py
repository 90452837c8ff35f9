"""What wildcards list of one type: kept up once, for all streams that follow it.

A listing takes in what changes among services, and has a log of what that changes of its
resources. A stream owns a version of that log, and no entry for each of them. Knows nothing of
requests, and of clients only what their readers were handed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice, repeat
from typing import NamedTuple

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.changes import CHANGES_KEPT, ChangeLog, Due, Reader
from vmsvc_grpc.cache.collection import ServiceReader
from vmsvc_grpc.cache.topic import Publication
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.call import Wake
from vmsvc_grpc.server.xds.resources import Resource, Resources, TypeUrl

DIGESTS = 1 << 128
"""How many digests there are: sums of them are taken modulo this."""

_NO_NAMES: Mapping[str, None] = {}


class Listed(NamedTuple):
    """What a listing has under a name as of a version: a resource, or nothing (any more)."""

    version: int
    resource: Resource | None

    @property
    def there(self) -> bool:
        """Whether the name is listed."""
        return self.resource is not None


ListedDue = Due[str, Listed]
"""A name of a listing that has changed for a reader."""

Follow = Callable[[Wake], ServiceReader]
"""Follows the services that a listing is made of."""


class Listing:
    """The resources of one type by their canonical names, of a namespace's services or of all.

    It is brought up to date by those who read it, `catch_up` by `catch_up`. `digest` is the sum
    of the digests of all that it has.
    """

    def __init__(
        self, type_url: TypeUrl, follow: Follow, resources: Resources, changes_kept: int
    ) -> None:
        """Empty, and behind. Its log looks back so many changes at least."""
        self.digest = 0
        self.users = 0
        self._type_url = type_url
        self._resources = resources
        self._changes_kept = changes_kept
        self._services = follow(self._wake)
        self._names_of: dict[Key, Mapping[str, None]] = {}
        self._listed: dict[str, Listed] = {}
        self._version = 0
        self._taking: Iterator[None] | None = None
        self._log: ChangeLog[str, Listed] | None = None  # From when it has been filled.

    def __len__(self) -> int:
        """How many there are."""
        return len(self._listed)

    def close(self) -> None:
        """Let go of the cache."""
        self._services.close()

    @property
    def behind(self) -> bool:
        """Whether there may be something to catch up with. Readers are woken if there is, later."""
        return self._taking is not None or self._services.behind

    def catch_up(self, most: int) -> int:
        """Take in what has changed among services, in at most so many looks; how many it took.

        If that is fewer than `most`, it is up to date.
        """
        if self._taking is None:
            self._taking = self._take_all()
        looks = sum(1 for _ in islice(self._taking, most))
        if looks < most:
            self._taking = None
            if self._log is None:
                self._log = ChangeLog(
                    self._version, self._sorted, self._cell, changes_kept=self._changes_kept
                )
        return looks

    def read(self, wake: Wake) -> Reader[str, Listed]:
        """A reader of it, from the beginning. It must be up to date now."""
        assert self._log is not None, "it has been filled"
        return Reader(self._log, wake)

    @property
    def all(self) -> Mapping[str, object]:
        """What there is, by name, in no order. A view of it."""
        return self._listed

    def names(self) -> tuple[str, ...]:
        """All names, by service and in the order of its ports."""
        return self._log.names() if self._log is not None else ()

    def resource(self, name: str) -> Resource | None:
        """What it has under a name."""
        listed = self._listed.get(name)
        return listed.resource if listed is not None else None

    def _wake(self) -> None:
        if self._log is not None:
            self._log.wake()

    def _take_all(self) -> Iterator[None]:
        while self._services.behind:
            due = self._services.take()
            if due is not None:
                yield from self._take(due.name, due.cell.current)
            yield  # Services without ports, and those that are not new, cost a little too.

    def _take(self, service: Key, publication: Publication) -> Iterator[None]:
        """List what a publication shows of a service, and nothing else of it."""
        names = self._resources.names(publication)
        before = self._names_of.pop(service, _NO_NAMES)
        if names:
            self._names_of[service] = names
        for name in names:
            resource = self._made(publication, name)
            self._list(name, resource)
            yield
            if resource is not None:
                yield from repeat(None, resource.more_looks)
        for name in before:
            if name not in names:
                self._list(name, None)

    def _made(self, publication: Publication, name: str) -> Resource | None:
        if self._type_url is TypeUrl.ENDPOINT:
            _, _, port = name.rpartition(":")
            return self._resources.endpoints(publication, name, port)
        return self._resources.static(self._type_url, name)

    def _list(self, name: str, resource: Resource | None) -> None:
        before = self.resource(name)
        digest, old = (resource.digest if resource else 0), (before.digest if before else 0)
        if digest == old:
            return
        self.digest = (self.digest + digest - old) % DIGESTS
        if self._log is not None:
            self._version += 1
        listed = Listed(self._version, resource)
        if resource is None:
            del self._listed[name]
        else:
            self._listed[name] = listed
        if self._log is not None:
            self._log.record(name, listed, was_there=before is not None)

    def _sorted(self) -> tuple[str, ...]:
        # Nearly in order: services come so at first.
        return tuple([name for key in sorted(self._names_of) for name in self._names_of[key]])

    def _cell(self, name: str) -> Listed:
        return self._listed.get(name) or Listed(0, None)


class Wildcard:
    """What one stream is handed of a listing: each resource once, and again when it is another.

    It holds a version, and no entry for each. `reading`: it is to be read until nothing is left
    of the run that began then.
    """

    __slots__ = ("_on_closed", "_reader", "_stream_wake", "_woken", "listing", "reading")

    def __init__(self, listing: Listing, wake: Wake, on_closed: Callable[[], object]) -> None:
        """`wake` is called when there may be something to take, and was nothing before."""
        self.listing = listing
        self.reading = False
        self._stream_wake = wake
        self._on_closed = on_closed
        self._reader: Reader[str, Listed] | None = None
        self._woken = False

    def close(self) -> None:
        """Let go of the listing."""
        if self._reader is not None:
            self._reader.close()
        self._on_closed()

    @property
    def behind(self) -> bool:
        """Whether there may be something to take; if not, its stream will be woken."""
        reader = self._reader
        return self._woken or reader is None or reader.behind or self.listing.behind

    @property
    def begun(self) -> bool:
        """Whether something may have been taken."""
        return self._reader is not None

    @property
    def running(self) -> bool:
        """Whether there is more to take of what there was when it was begun to be taken."""
        return self._reader is not None and self._reader.running

    @property
    def answered(self) -> bool:
        """Whether all that was listed when it began was taken once."""
        return self._reader is not None and self._reader.answered

    def has_told(self, name: str) -> bool:
        """Whether it is sure that a name was handed out as it is now, be it that it is gone."""
        return self._reader is not None and self._reader.has_told(name)

    def take(self) -> ListedDue | None:
        """The next that is new; None at the end, or while it is `running`, after many that are not.

        The listing must be up to date, and what is handed out must be told before the next call.
        """
        self._woken = False
        return self._read().take()

    def told_ahead(self, name: str) -> None:
        """One that is listed is told, as it is now, by other means. The listing is up to date."""
        self._read().told_ahead(name)

    def skip(self) -> None:
        """All that there is now is told by other means. Before the first `take`."""
        self._read().skip()

    def again(self) -> None:
        """Hand out all once more, after the run that is under way, and what has gone meanwhile."""
        if self._reader is not None:
            self._reader.again()

    def wake(self) -> None:
        """There may be something to take."""
        self._woken = True
        self._stream_wake()

    def _read(self) -> Reader[str, Listed]:
        if self._reader is None:
            self._reader = self.listing.read(self.wake)
        return self._reader


class Listings:
    """The listings that somebody follows: one for all who may see the same of a type."""

    def __init__(
        self, cache: Cache, resources: Resources, changes_kept: int = CHANGES_KEPT
    ) -> None:
        """There are none yet. The log of each looks back so many changes at least."""
        self._cache = cache
        self._resources = resources
        self._changes_kept = changes_kept
        self._open: dict[tuple[TypeUrl, str | None, FilterClass | None], Listing] = {}

    def __len__(self) -> int:
        """How many are kept up."""
        return len(self._open)

    def follow(
        self, type_url: TypeUrl, namespace: str | None, filter_class: FilterClass, wake: Wake
    ) -> Wildcard:
        """What wildcards list of a type in a namespace, or in all (None). To be closed.

        To be asked once the cache is synced.
        """
        # What is not a load assignment follows from names, and changes with ports alone.
        shown = filter_class if type_url is TypeUrl.ENDPOINT else None
        scope = type_url, namespace, shown
        listing = self._open.get(scope)
        if listing is None:
            follow = partial(self._cache.follow, namespace, shown)
            listing = Listing(type_url, follow, self._resources, self._changes_kept)
            self._open[scope] = listing
        listing.users += 1
        return Wildcard(listing, wake, partial(self._leave, scope))

    def _leave(self, scope: tuple[TypeUrl, str | None, FilterClass | None]) -> None:
        listing = self._open[scope]
        listing.users -= 1
        if not listing.users:
            listing.close()
            del self._open[scope]
