"""The resources of one type that wildcards cover: kept up once, for all streams that follow it.

A listing takes in changes of services, and has a log of the changes of its resources that follow. A
stream owns a version of that log, and no entry for each resource. Knows nothing about requests;
about clients, only what their readers have handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice, repeat
from typing import NamedTuple

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.changes import ChangeLog, Due, Reader
from vmsvc_grpc.cache.collection import ServiceReader
from vmsvc_grpc.cache.topic import Publication
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.call import Wake
from vmsvc_grpc.server.xds.requests import held_bytes
from vmsvc_grpc.server.xds.resources import Resource, Resources, TypeUrl

DIGESTS = 1 << 128
"""The number of digests: sums are taken modulo this."""

_NO_NAMES: Mapping[str, None] = {}

STEPS_BESIDE = 32
"""After more steps than these in a turn, a large resource is put together in another."""

_LOOKS_A_TURN = 128  # No stream has more.


class Listed(NamedTuple):
    """What a listing has under a name at a version: a resource, or None for none."""

    version: int
    resource: Resource | None

    @property
    def there(self) -> bool:
        """Whether the name is listed."""
        return self.resource is not None


ListedDue = Due[str, Listed]
"""A name of a listing that has changed for a reader."""

Follow = Callable[[Wake], ServiceReader]
"""Returns a reader of the services of a listing."""


class Listing:
    """The resources of one type, by canonical name, of the services of a namespace or of all.

    Its readers bring it up to date, slice by slice, with `catch_up`. `digest` is the sum of the
    digests of all its resources.

    The endpoints of large services are encoded apart, with `encode`: until they are, it has what it
    had of those, and all others go on. Whatever changes meanwhile, what was begun is listed first:
    otherwise a large service that changes all the time would never be.
    """

    def __init__(self, type_url: TypeUrl, follow: Follow, resources: Resources) -> None:
        """Empty, and behind. Its log remembers at least so many changes."""
        self.digest = 0
        self.held_bytes = 0
        """What a delta client that comes back takes to say that it holds all of it."""
        self.users = 0
        self._type_url = type_url
        self._resources = resources
        self._services = follow(self._wake)
        self._names_of: dict[Key, Mapping[str, None]] = {}
        self._listed: dict[str, Listed] = {}
        self._version = 0
        self._taking: Iterator[None] | None = None
        self._large: dict[Key, Publication] = {}  # Those to be encoded; the first is under way.
        self._newer: Publication | None = None  # Of that one, what has come since.
        self._encoding: Iterator[None] | None = None
        self._log: ChangeLog[str, Listed] | None = None  # Exists once the listing has been filled.

    def __len__(self) -> int:
        """The number of resources."""
        return len(self._listed)

    def close(self) -> None:
        """Release the cache, and what refers back here: resources may be many, and not wait."""
        self._services.close()
        self._taking = self._encoding = self._log = None
        self._large, self._newer = {}, None

    @property
    def behind(self) -> bool:
        """Whether there may be changes to catch up with. If not, the next one wakes readers."""
        return self._taking is not None or self._services.behind

    @property
    def encodes(self) -> bool:
        """Whether the endpoints of large services are left to be encoded."""
        return bool(self._large)

    def awaits(self, name: str) -> bool:
        """Whether a name is listed as soon as the endpoints of its service are encoded."""
        return (
            bool(self._large)
            and name not in self._listed
            and any(
                name in self._resources.names(publication) for publication in self._large.values()
            )
        )

    def catch_up(self, most: int) -> int:
        """Take in changes of services, in at most so many looks; the number of looks it took.

        If that is fewer than `most`, it is up to date.
        """
        if self._taking is None:
            self._taking = self._take_all()
        looks = sum(1 for _ in islice(self._taking, most))
        if looks < most:
            self._taking = None
            if self._log is None:
                self._log = ChangeLog(self._version, self._sorted, self._cell)
        return looks

    def encode(self, most: int) -> int:
        """Encode endpoints of large services, in at most so many looks; how many it took."""
        if self._encoding is None:
            self._encoding = self._encode_all()
        looks = sum(1 for _ in islice(self._encoding, most))
        if looks < most:
            self._encoding = None
        return looks

    def read(self, wake: Wake) -> Reader[str, Listed]:
        """A reader, from the beginning. The listing must be up to date."""
        assert self._log is not None, "it has been filled"
        return Reader(self._log, wake)

    @property
    def all(self) -> Mapping[str, object]:
        """A view of the resources, by name, in no order."""
        return self._listed

    def names(self) -> tuple[str, ...]:
        """All names, by service and in the order of its ports."""
        return self._log.names() if self._log is not None else ()

    def resource(self, name: str) -> Resource | None:
        """The resource of a name; None if there is none."""
        listed = self._listed.get(name)
        return listed.resource if listed is not None else None

    def _wake(self) -> None:
        if self._log is not None:
            self._log.wake()

    def _take_all(self) -> Iterator[None]:
        while self._services.behind:
            due = self._services.take()
            if due is not None:
                yield from self._take_or_wait(due.name, due.cell.current)
            yield  # Services without ports, and unchanged ones, cost a little too.
        if self._log is None:
            yield from self._encode_all()  # Nobody reads before everything is listed once.

    def _take_or_wait(self, service: Key, publication: Publication) -> Iterator[None]:
        """List a service, or have it encoded first."""
        if service == next(iter(self._large), None):
            self._newer = publication
        elif self._type_url is TypeUrl.ENDPOINT and self._resources.is_large(publication):
            self._large[service] = publication
        else:
            self._large.pop(service, None)
            yield from self._take(service, publication)

    def _encode_all(self) -> Iterator[None]:
        while self._large:
            service, publication = next(iter(self._large.items()))
            for name in self._resources.names(publication):
                yield from self._encode(publication, name)
            yield from self._take(service, publication)
            del self._large[service]
            if self._newer is not None:
                self._large[service], self._newer = self._newer, None

    def _encode(self, publication: Publication, name: str) -> Iterator[None]:
        """Encode the endpoints of a name; what is left then has a turn of its own."""
        _, _, port = name.rpartition(":")
        taken = 0
        for _ in self._resources.steps(publication, name, port):  # Others take them, too.
            taken += 1
            yield
        if taken > STEPS_BESIDE:
            yield from repeat(None, _LOOKS_A_TURN)

    def _take(self, service: Key, publication: Publication) -> Iterator[None]:
        """List the resources of a service at a publication, and no others of it."""
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
            self.held_bytes -= held_bytes(name)
        else:
            self._listed[name] = listed
            self.held_bytes += held_bytes(name) if before is None else 0
        if self._log is not None:
            self._log.record(name, listed, was_there=before is not None)

    def _sorted(self) -> tuple[str, ...]:
        # Nearly sorted already, as services come in order at first.
        return tuple([name for key in sorted(self._names_of) for name in self._names_of[key]])

    def _cell(self, name: str) -> Listed:
        return self._listed.get(name) or Listed(0, None)


class Wildcard:
    """Hands one stream the resources of a listing: each once, and again after each change.

    It holds a version, and no entry for each resource. `reading`: a run has begun, and is to be
    read to its end.
    """

    __slots__ = ("_on_closed", "_reader", "_stream_wake", "_woken", "listing", "reading")

    def __init__(self, listing: Listing, wake: Wake, on_closed: Callable[[], object]) -> None:
        """`wake` is called when there may be something to take, after there was nothing."""
        self.listing = listing
        self.reading = False
        self._stream_wake = wake
        self._on_closed = on_closed
        self._reader: Reader[str, Listed] | None = None
        self._woken = False

    def close(self) -> None:
        """Release the listing."""
        if self._reader is not None:
            self._reader.close()
        self._on_closed()

    @property
    def behind(self) -> bool:
        """Whether there may be something to take. If not, the stream will be woken."""
        reader, listing = self._reader, self.listing
        read = not self._woken and reader is not None and not reader.behind
        return not read or listing.behind or listing.encodes

    @property
    def begun(self) -> bool:
        """Whether anything may have been taken yet."""
        return self._reader is not None

    @property
    def running(self) -> bool:
        """Whether the run that has begun has more to take."""
        return self._reader is not None and self._reader.running

    @property
    def answered(self) -> bool:
        """Whether everything that was listed when it began has been taken."""
        return self._reader is not None and self._reader.answered

    def has_sent(self, name: str) -> bool:
        """Whether a name is known to have been handed out as it is now, even if it is gone."""
        return self._reader is not None and self._reader.has_sent(name)

    def take(self) -> ListedDue | None:
        """The next change; None at the end, or, while `running`, after many names without one.

        The listing must be up to date, and the caller must send the change before the next call.
        """
        self._woken = False
        return self._read().take()

    def sent_ahead(self, name: str) -> None:
        """Note that a listed name was sent, as it is now, in another way. Must be up to date."""
        self._read().sent_ahead(name)

    def skip(self) -> None:
        """Note that everything was sent, as it is now, in another way. Before the first `take`."""
        self._read().skip()

    def again(self) -> None:
        """Hand out everything once more after the current run, and names that are gone by then."""
        if self._reader is not None:
            self._reader.again()

    def wake(self) -> None:
        """Note that there may be something to take."""
        self._woken = True
        self._stream_wake()

    def _read(self) -> Reader[str, Listed]:
        if self._reader is None:
            self._reader = self.listing.read(self.wake)
        return self._reader


class Listings:
    """The listings that are followed: one for all clients that see the same resources of a type."""

    def __init__(self, cache: Cache, resources: Resources) -> None:
        """No listings yet."""
        self._cache = cache
        self._resources = resources
        self._open: dict[tuple[TypeUrl, str | None, FilterClass | None], Listing] = {}

    def follow(
        self, type_url: TypeUrl, namespace: str | None, filter_class: FilterClass, wake: Wake
    ) -> Wildcard:
        """The resources of a type that wildcards cover in a namespace, or in all (None). Close it.

        Call it once the cache is synced.
        """
        # Resources other than load assignments follow from names, and change with ports only.
        shown = filter_class if type_url is TypeUrl.ENDPOINT else None
        scope = type_url, namespace, shown
        listing = self._open.get(scope)
        if listing is None:
            follow = partial(self._cache.follow, namespace, shown)
            listing = Listing(type_url, follow, self._resources)
            self._open[scope] = listing
        listing.users += 1
        return Wildcard(listing, wake, partial(self._leave, scope))

    def _leave(self, scope: tuple[TypeUrl, str | None, FilterClass | None]) -> None:
        listing = self._open[scope]
        listing.users -= 1
        if not listing.users:
            listing.close()
            del self._open[scope]
