"""What has been listed and told: lists, freshness, problems, and what is stored for services."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product

from vmsvc_grpc.model.events import Malformed
from vmsvc_grpc.model.objects import (
    Key,
    Kind,
    Object,
    StoredEndpoints,
    StoredEndpointSlice,
    StoredService,
    VirtualMachine,
    says_the_same,
)
from vmsvc_grpc.model.ownership import (
    endpoints_trace,
    is_controlled,
    is_our_slice,
    service_of_slice,
    service_trace,
)
from vmsvc_grpc.model.problem import Problem

# As many as 64 bits have: etcd counts no further. Python refuses to read 5,000.
_DIGITS_MAX = 20

OnProblems = Callable[[Kind, Key, tuple[Problem, ...]], None]
"""Told what is wrong with an object, each time that changes; empty when nothing is."""

_List = tuple[Kind, str | None]
"""What one complete list covers: a kind, in one namespace or in all (None)."""

Stored = StoredService | StoredEndpoints | StoredEndpointSlice
"""What is held for a VMService."""


class Objects:
    """What the source told and requests were answered, as far as it counts.

    VMs and VMServices themselves are kept by `membership`. Only the cache changes it.
    """

    def __init__(
        self, kinds: Iterable[Kind], namespaces: Sequence[str], on_problems: OnProblems | None
    ) -> None:
        """`namespaces` are those that are listed one by one; none: all at once."""
        self.services: dict[Key, StoredService] = {}
        self.endpoints: dict[Key, StoredEndpoints] = {}
        self.slices = SliceIndex()
        # Names under which a VMService of the name controls something.
        self._controlled: dict[Kind, set[Key]] = {Kind.SERVICE: set(), Kind.ENDPOINTS: set()}
        self.problems: dict[tuple[Kind, Key], tuple[Problem, ...]] = {}
        # Those told of last as something that cannot be read, by namespace.
        self._unreadable: dict[tuple[Kind, str], dict[Key, None]] = {}
        self._unlisted: set[_List] = set(product(kinds, namespaces or (None,)))
        self._listing: dict[_List, set[Key]] = {}
        self._freshness = Freshness(namespaces)
        self._on_problems = on_problems

    def empty(self) -> bool:
        """Whether nothing is held of any object."""
        stored = self.services or self.endpoints or not self.slices.empty()
        problems = self.problems or self._unreadable
        return not (stored or problems) and self._freshness.idle()

    @property
    def complete(self) -> bool:
        """Whether every kind has been listed once."""
        return not self._unlisted

    @property
    def unlisted(self) -> frozenset[Kind]:
        """The kinds that have not been listed completely yet."""
        return frozenset(kind for kind, _ in self._unlisted)

    # -- What is told --

    def list_begins(self, kind: Kind, namespace: str | None) -> None:
        """A complete list begins."""
        self._listing[kind, namespace] = set()
        self._freshness.listing(kind, namespace)

    def list_ends(
        self, kind: Kind, namespace: str | None, resource_version: str, held: Iterable[Key]
    ) -> list[Key]:
        """A complete list ends; names of `held`, and of the malformed, that it lacked, sorted."""
        self._freshness.listed(kind, namespace, resource_version)
        listed = self._listing.pop((kind, namespace), set())
        self._unlisted.discard((kind, namespace))
        known = {key for noted, key in self.problems if noted is kind}.union(held)
        return sorted(
            key
            for key in known - listed
            if namespace in (None, key.namespace) and not self._freshness.overtaken(kind, key)
        )

    def told(self, object_: Object) -> bool:
        """Whether what the source tells of an object is to be taken in."""
        self._seen(object_.kind, object_.key)
        if isinstance(object_, VirtualMachine):  # Nobody but the source tells of one.
            return True
        return self._freshness.told(object_.kind, object_.key, object_.meta.resource_version)

    def answered(self, object_: Object) -> bool:
        """Whether the answer to a request is to be taken in."""
        assert not isinstance(object_, VirtualMachine), "VMs are not written"
        return self._freshness.answered(object_.kind, object_.key, object_.meta.resource_version)

    def told_malformed(self, event: Malformed) -> None:
        """An object exists that cannot be read."""
        self._seen(event.kind, event.key)
        self.note(event.kind, event.key, (event.problem,))
        there = self._unreadable.setdefault((event.kind, event.key.namespace), {})
        there[event.key] = None

    def told_deleted(self, kind: Kind, key: Key, resource_version: str) -> bool:
        """Whether what the source tells of a deletion is to be taken in."""
        if not self._freshness.told(kind, key, resource_version):
            return False
        for scope in (None, key.namespace):
            self._listing.get((kind, scope), set()).discard(key)
        return True

    def _seen(self, kind: Kind, key: Key) -> None:
        if not self._listing:
            return
        for scope in (None, key.namespace):
            if (listing := self._listing.get((kind, scope))) is not None:
                listing.add(key)

    # -- What is held --

    def note(self, kind: Kind, key: Key, problems: tuple[Problem, ...]) -> None:
        """These are the problems of an object now that could be read, or is gone."""
        if there := self._unreadable.get((kind, key.namespace)):
            there.pop(key, None)
            if not there:
                del self._unreadable[kind, key.namespace]
        if self.problems.get((kind, key), ()) == problems:
            return
        if problems:
            self.problems[kind, key] = problems
        else:
            del self.problems[kind, key]
        if self._on_problems is not None:
            self._on_problems(kind, key, problems)

    def unreadable(self, kind: Kind, namespace: str) -> Iterable[Key]:
        """Names of the objects of a kind there that cannot be read now. O(these)."""
        return tuple(self._unreadable.get((kind, namespace), ()))

    def forget(self, kind: Kind, key: Key) -> None:
        """There is no such object any more; what is stored under the name is for `remove`."""
        self.note(kind, key, ())
        self._freshness.gone(kind, key)

    def controlled_keys(self) -> set[Key]:
        """Names of the VMServices, gone or not, that control a stored Service or Endpoints.

        A set of the caller's own. O(these), however many objects of others there are.
        """
        return set().union(*self._controlled.values())

    def controls(self, service: Key) -> bool:
        """Whether the VMService of that name, gone or not, controls a Service or Endpoints."""
        return any(service in controlled for controlled in self._controlled.values())

    def names(self, kind: Kind) -> Iterable[Key]:
        """Names of the stored objects of a kind."""
        match kind:
            case Kind.SERVICE:
                return self.services
            case Kind.ENDPOINTS:
                return self.endpoints
            case Kind.ENDPOINT_SLICE:
                return self.slices.keys()
        raise AssertionError(f"not stored for a service: {kind}")

    def put(self, stored: Stored) -> frozenset[Key]:
        """Add or replace a stored object; the services that it was and is for, if it changed.

        Of another's object only a trace is kept, and counts; of its slice nothing, as a slice
        has no name that ours must have. That something about an object changed that nobody
        here reads, and its resource version with that, is no change.
        """
        old: Stored | None
        match stored:
            case StoredService():
                old = self.services.get(stored.key)
                self.services[stored.key] = stored = service_trace(stored)
            case StoredEndpoints():
                old = self.endpoints.get(stored.key)
                self.endpoints[stored.key] = stored = endpoints_trace(stored)
            case _:
                if not is_our_slice(stored):
                    return self.remove(stored.kind, stored.key)
                old = self.slices.put(stored)
        self._file(stored.kind, stored.key, stored)
        if old is not None and says_the_same(old, stored):
            return frozenset()
        return _services(old) | _services(stored)

    def _file(self, kind: Kind, key: Key, stored: Stored | None) -> None:
        if (controlled := self._controlled.get(kind)) is None:
            return
        if stored is not None and is_controlled(stored.meta):
            controlled.add(key)
        else:
            controlled.discard(key)

    def remove(self, kind: Kind, key: Key) -> frozenset[Key]:
        """Take a stored object out; the service that it was for, if it was there."""
        self._file(kind, key, None)
        match kind:
            case Kind.SERVICE:
                return _services(self.services.pop(key, None))
            case Kind.ENDPOINTS:
                return _services(self.endpoints.pop(key, None))
            case Kind.ENDPOINT_SLICE:
                return _services(self.slices.remove(key))
        raise AssertionError(f"not stored for a service: {kind}")


def _services(stored: Stored | None) -> frozenset[Key]:
    """The service that an object is for; somebody may give a slice to another one."""
    match stored:
        case None:
            return frozenset()
        case StoredEndpointSlice():
            return frozenset((service_of_slice(stored),))
    return frozenset((stored.key,))


class Freshness:
    """Resource versions told by the source, and those answered that it has not told yet.

    Both come over connections of their own, so either may overtake the other. An API
    server's resource versions are numbers that rise with each change of any object of a
    kind (KEP-5504); where there are none, whatever comes last counts.
    """

    def __init__(self, namespaces: Sequence[str]) -> None:
        """`namespaces` are those that are listed one by one; none: all at once."""
        self._scoped = bool(namespaces)
        # How far the source has come, by what it follows by itself.
        self._told: dict[tuple[Kind, str | None], int] = {}
        self._answered: dict[tuple[Kind, Key], int] = {}

    def listing(self, kind: Kind, namespace: str | None) -> None:
        """A list begins: it may be of a server whose resource versions begin anew."""
        self._told.pop((kind, namespace), None)
        for answered in [a for a in self._answered if a[0] is kind]:
            if namespace in (None, answered[1].namespace):
                del self._answered[answered]

    def listed(self, kind: Kind, namespace: str | None, resource_version: str) -> None:
        """The list that began is of that resource version, whatever it held."""
        self._told[kind, namespace] = _number(resource_version) or 0

    def overtaken(self, kind: Kind, key: Key) -> bool:
        """Whether an answer told of a later time than the list that ends just now."""
        told = self._told.get(self._scope(kind, key), 0)
        return self._answered.get((kind, key), 0) > told

    def told(self, kind: Kind, key: Key, resource_version: str) -> bool:
        """Whether what the source tells is to be taken in: no answer was newer."""
        version = _number(resource_version)
        if version is None:
            return True
        scope = self._scope(kind, key)
        self._told[scope] = max(version, self._told.get(scope, 0))
        if version < self._answered.get((kind, key), 0):
            return False
        self._answered.pop((kind, key), None)
        return True

    def answered(self, kind: Kind, key: Key, resource_version: str) -> bool:
        """Whether an answer is to be taken in: the source has not told of that time yet.

        If it has, it has told this very state, or one after it: the object may be gone.
        """
        version = _number(resource_version)
        if version is None:
            return True
        known = max(self._told.get(self._scope(kind, key), 0), self._answered.get((kind, key), 0))
        if version <= known:
            return False
        self._answered[kind, key] = version
        return True

    def gone(self, kind: Kind, key: Key) -> None:
        """There is no such object any more."""
        self._answered.pop((kind, key), None)

    def idle(self) -> bool:
        """Whether everything that was answered has been told."""
        return not self._answered

    def _scope(self, kind: Kind, key: Key) -> tuple[Kind, str | None]:
        return kind, key.namespace if self._scoped else None


def _number(resource_version: str) -> int | None:
    counts = resource_version.isdecimal() and len(resource_version) <= _DIGITS_MAX
    return int(resource_version) if counts else None


class SliceIndex:
    """EndpointSlices by name, and by the service that each is of."""

    def __init__(self) -> None:
        """An empty index."""
        self._by_key: dict[Key, StoredEndpointSlice] = {}
        self._by_service: dict[Key, dict[Key, StoredEndpointSlice]] = {}

    def keys(self) -> set[Key]:
        """The names of all slices, as a set of the caller's own."""
        return set(self._by_key)

    def of(self, service: Key) -> tuple[StoredEndpointSlice, ...]:
        """A service's slices, sorted by name. O(slices of the service)."""
        held = self._by_service.get(service, {})
        return tuple(held[key] for key in sorted(held))

    def put(self, slice_: StoredEndpointSlice) -> StoredEndpointSlice | None:
        """Add or replace a slice; the one that it replaces, if any. O(1)."""
        old = self.remove(slice_.key)
        self._by_key[slice_.key] = slice_
        self._by_service.setdefault(service_of_slice(slice_), {})[slice_.key] = slice_
        return old

    def remove(self, key: Key) -> StoredEndpointSlice | None:
        """Drop a slice; what it was, or None. O(1)."""
        old = self._by_key.pop(key, None)
        if old is not None:
            service = service_of_slice(old)
            held = self._by_service[service]
            del held[key]
            if not held:
                del self._by_service[service]
        return old

    def empty(self) -> bool:
        """Whether nothing is held."""
        return not self._by_key
