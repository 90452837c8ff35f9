"""What was listed, emitted and answered: freshness, problems, and objects stored for services."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, KeysView, Sequence
from itertools import product
from typing import NamedTuple

from vmsvc_grpc.model.events import AnswerGone, Malformed
from vmsvc_grpc.model.objects import (
    Key,
    Kind,
    Object,
    ObjectMeta,
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

OnProblems = Callable[[Kind, Key, tuple[Problem, ...]], None]
"""Called with the problems of an object each time that they change; empty if there are none."""

_ListScope = tuple[Kind, str | None]
"""What one complete list covers: a kind, in one namespace or in all (None)."""

Stored = StoredService | StoredEndpoints | StoredEndpointSlice
"""What is held for a VMService."""


class Objects:
    """What the source emitted and requests were answered, as far as it counts.

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
        # The objects that were last emitted as malformed, by namespace.
        self._unreadable: dict[tuple[Kind, str], dict[Key, None]] = {}
        self._unlisted: set[_ListScope] = set(product(kinds, namespaces or (None,)))
        self._listing: dict[_ListScope, set[Key]] = {}
        self._freshness = Freshness(namespaces)
        self._on_problems = on_problems

    def empty(self) -> bool:
        """Whether nothing is held."""
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

    # -- What is emitted and answered --

    def list_begins(self, kind: Kind, namespace: str | None) -> None:
        """A complete list is asked for."""
        self._listing[kind, namespace] = set()
        self._freshness.listing(kind, namespace)

    def list_ends(
        self, kind: Kind, namespace: str | None, resource_version: str, held: Iterable[Key]
    ) -> list[Key]:
        """A complete list ends; the names of held and malformed objects that it lacked, sorted."""
        listed = self._listing.pop((kind, namespace), set())
        self._freshness.listed(kind, namespace, resource_version, listed)
        self._unlisted.discard((kind, namespace))
        known = {key for noted, key in self.problems if noted is kind}.union(held)
        return sorted(
            key
            for key in known - listed
            if namespace in (None, key.namespace) and not self._freshness.overtaken(kind, key)
        )

    def emitted(self, object_: Object) -> bool:
        """Whether an object that the source emits is to be taken in."""
        self._seen(object_.kind, object_.key)
        if isinstance(object_, VirtualMachine):  # It comes from the source alone.
            return True
        meta = object_.meta
        return self._freshness.emitted(object_.kind, meta.key, meta.resource_version, meta.uid)

    def answered(self, object_: Object, held: ObjectMeta | None) -> bool:
        """Whether the answer to a request is to be taken in; `held` is what is held now."""
        assert not isinstance(object_, VirtualMachine), "VMs are not written"
        return self._freshness.answered(object_.kind, object_.meta, held)

    def answered_gone(self, answer: AnswerGone, held: ObjectMeta | None) -> bool:
        """Whether the answer removes `held`, what is held under that name."""
        return self._freshness.answered_gone(answer, held)

    def emitted_malformed(self, event: Malformed) -> None:
        """An object exists that cannot be read."""
        self._seen(event.kind, event.key)
        if not self._freshness.emitted_malformed(event.kind, event.key, event.resource_version):
            return
        self.note(event.kind, event.key, (event.problem,))
        there = self._unreadable.setdefault((event.kind, event.key.namespace), {})
        there[event.key] = None

    def emitted_deleted(self, kind: Kind, key: Key, resource_version: str) -> bool:
        """Whether a deletion that the source emits is to be taken in."""
        if not self._freshness.emitted_deleted(kind, key, resource_version):
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
        """Replace the problems of an object that could be read, or that is gone."""
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

    def unreadable(self, kind: Kind, namespace: str) -> KeysView[Key]:
        """Names of the objects of a kind in a namespace that cannot be read now: a view. O(1)."""
        return self._unreadable.get((kind, namespace), {}).keys()

    def meta(self, kind: Kind, key: Key) -> ObjectMeta | None:
        """The metadata of a stored object; None if there is none of that name."""
        stored: Stored | None
        match kind:
            case Kind.SERVICE:
                stored = self.services.get(key)
            case Kind.ENDPOINTS:
                stored = self.endpoints.get(key)
            case _:
                stored = self.slices.get(key)
        return stored.meta if stored else None

    def controlled_keys(self) -> set[Key]:
        """Names of the VMServices, gone or not, that control a stored Service or Endpoints.

        A new set, in time of its size, however many objects of others there are.
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
        """Add or replace a stored object; if it changed, the services that it was and is for.

        Of an object that is not ours only a trace is kept, and compared; of such a slice nothing,
        as no slice of ours depends on its name. A change of fields that nobody here reads, and of
        the resource version with them, is no change.
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
        """Remove a stored object; the service that it was for, if it was there."""
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
    """The service that an object is for. Somebody may relabel a slice for another one."""
    match stored:
        case None:
            return frozenset()
        case StoredEndpointSlice():
            return frozenset((service_of_slice(stored),))
    return frozenset((stored.key,))


class _Answered(NamedTuple):
    """The last answer to a request about an object: its state at a version, or that it is gone.

    If it is gone, `version` is one that it once had; it may have had later ones.
    """

    version: int
    uid: str
    gone: bool = False

    def outdates(self, version: int, uid: str) -> bool:
        """Whether a state of an object of that name is older than this."""
        return version < self.version or (self.gone and uid == self.uid)


class Freshness:
    """Which is the newer state of an object: the source's, or the answer to a request.

    Both come over connections of their own, so either may overtake the other. An API
    server's resource versions are numbers that rise with each change of any object of a
    kind (KEP-5504); where there are none, whatever comes last counts. A deletion that the source
    emits is ordered by these numbers alone; one that a request was answered, by the uid, which is
    never used again.
    """

    def __init__(self, namespaces: Sequence[str]) -> None:
        """`namespaces` are those that are listed one by one; none: all at once."""
        self._scoped = bool(namespaces)
        # How far the source has come with each of its lists.
        self._emitted: dict[_ListScope, int] = {}
        self._listing: set[_ListScope] = set()
        # What the source has not emitted yet, as far as we know.
        self._answered: dict[_ListScope, dict[Key, _Answered]] = {}
        # The same, from before the list under way was asked for. That list knows better: if it is
        # older nevertheless, the server has started over, as after a restored backup.
        self._before: dict[_ListScope, dict[Key, _Answered]] = {}

    def idle(self) -> bool:
        """Whether the source has emitted everything that was answered."""
        return not any(self._answered.values()) and not any(self._before.values())

    # -- What the source emits --

    def listing(self, kind: Kind, namespace: str | None) -> None:
        """A list is asked for."""
        scope = kind, namespace
        self._listing.add(scope)
        self._before.setdefault(scope, {}).update(self._answered.pop(scope, {}))

    def listed(
        self, kind: Kind, namespace: str | None, resource_version: str, listed: Container[Key]
    ) -> None:
        """The list that was asked for is complete, of that version, and holds these."""
        scope = kind, namespace
        at = number(resource_version)
        self._emitted[scope] = at or 0
        self._listing.discard(scope)
        self._before.pop(scope, None)
        answered = self._answered.pop(scope, {})
        if at is not None:
            self._answered[scope] = {
                key: last
                for key, last in answered.items()
                # More may still come of one that was listed and is gone.
                if last.version > at or (last.gone and key in listed)
            }

    def overtaken(self, kind: Kind, key: Key) -> bool:
        """Whether an object that the list just completed lacks was written after it."""
        last = self._last(kind, key)
        return last is not None and not last.gone

    def emitted(self, kind: Kind, key: Key, resource_version: str, uid: str) -> bool:
        """Whether a state that the source emits is to be taken in: no answer is newer."""
        version = self._reached(kind, key, resource_version)
        last = self._last(kind, key)
        if version is None or last is None:
            return True
        if last.outdates(version, uid):
            return False
        del self._answered[self._scope(kind, key)][key]
        return True

    def emitted_malformed(self, kind: Kind, key: Key, resource_version: str) -> bool:
        """Whether it counts that an object is malformed: no answer is newer."""
        version = self._reached(kind, key, resource_version)
        last = self._last(kind, key)
        return version is None or last is None or version >= last.version

    def emitted_deleted(self, kind: Kind, key: Key, resource_version: str) -> bool:
        """Whether a deletion that the source emits is to be taken in: no answer is newer."""
        version = self._reached(kind, key, resource_version)
        last = self._last(kind, key)
        if last is None:
            return True
        if version is not None and version < last.version:
            return False
        del self._answered[self._scope(kind, key)][key]
        return True

    # -- What requests are answered --

    def answered(self, kind: Kind, meta: ObjectMeta, held: ObjectMeta | None) -> bool:
        """Whether the state of an answer is to be taken in; `held` is what is held now.

        Not if this state or a later one is held, nor if the source has come as far: then the object
        is gone.
        """
        version = number(meta.resource_version)
        if version is None:
            return True
        scope = self._scope(kind, meta.key)
        known = number(held.resource_version) if held else None
        if version <= max(self._emitted.get(scope, 0), known or 0):
            return False
        for answered in (self._answered, self._before):
            last = answered.get(scope, {}).get(meta.key)
            if last is not None and last.outdates(version, meta.uid):
                return False
        self._answered.setdefault(scope, {})[meta.key] = _Answered(version, meta.uid)
        return True

    def answered_gone(self, answer: AnswerGone, held: ObjectMeta | None) -> bool:
        """Whether the answer removes `held`, what is held under that name."""
        version = number(answer.resource_version)
        if version is None:
            return True
        scope = self._scope(answer.kind, answer.key)
        if held is None:
            goes = False
            # Either the source has emitted its end already, or it will emit all of its life.
            told = self._emitted.get(scope, 0) > version
        else:
            known = number(held.resource_version) or 0
            goes = held.uid == answer.uid or known < version
            told = not goes  # This is a later object of the name.
        last = self._answered.get(scope, {}).get(answer.key)
        if not told and (last is None or last.version <= version):
            gone = _Answered(version, answer.uid, gone=True)
            self._answered.setdefault(scope, {})[answer.key] = gone
        return goes

    def _last(self, kind: Kind, key: Key) -> _Answered | None:
        return self._answered.get(self._scope(kind, key), {}).get(key)

    def _reached(self, kind: Kind, key: Key, resource_version: str) -> int | None:
        """The version as a number. Notes that the source has come as far."""
        version = number(resource_version)
        scope = self._scope(kind, key)
        # Objects of a list come in the order of their names, not in that of time.
        if version is not None and scope not in self._listing:
            self._emitted[scope] = max(version, self._emitted.get(scope, 0))
        return version

    def _scope(self, kind: Kind, key: Key) -> _ListScope:
        return kind, key.namespace if self._scoped else None


# As many digits as 64 bits have: etcd counts no further. Python refuses to read 5,000.
_NUMBER = re.compile("[0-9]{1,20}")


def number(resource_version: str) -> int | None:
    """A resource version as a number to compare; None if it is not one. Never raises."""
    return int(resource_version) if _NUMBER.fullmatch(resource_version) else None


class SliceIndex:
    """EndpointSlices by name, and by service."""

    def __init__(self) -> None:
        """An empty index."""
        self._by_key: dict[Key, StoredEndpointSlice] = {}
        self._by_service: dict[Key, dict[Key, StoredEndpointSlice]] = {}

    def get(self, key: Key) -> StoredEndpointSlice | None:
        """The slice of that name, or None."""
        return self._by_key.get(key)

    def keys(self) -> set[Key]:
        """The names of all slices, as a new set."""
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
        """Remove a slice, and return it, or None. O(1)."""
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
