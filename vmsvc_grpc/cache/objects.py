"""What was listed, emitted and answered: freshness, problems, and objects stored for services."""

from __future__ import annotations

from collections.abc import Callable, Iterable, KeysView, Sequence
from itertools import product

from vmsvc_grpc.cache.freshness import Freshness, ListScope
from vmsvc_grpc.cache.slice_index import SliceIndex
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

Stored = StoredService | StoredEndpoints | StoredEndpointSlice
"""What is held for a VMService."""


class Objects:
    """What the source has emitted, and what our requests were answered.

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
        self._unlisted: set[ListScope] = set(product(kinds, namespaces or (None,)))
        self._listing: dict[ListScope, set[Key]] = {}
        self._freshness = Freshness(namespaces)
        self._on_problems = on_problems

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
    ) -> set[Key]:
        """A complete list ends; the names of held and malformed objects that it lacked.

        O(all that are held), but little for each: it is done in one go. Of sets and dicts, no name
        has to be hashed again.
        """
        listed = self._listing.pop((kind, namespace), set())
        self._freshness.listed(kind, namespace, resource_version, listed)
        self._unlisted.discard((kind, namespace))
        listed |= self._freshness.written_since(kind, namespace)
        lacked = set(held)
        lacked.update(key for noted, key in self.problems if noted is kind)
        lacked -= listed
        if namespace is None:
            return lacked
        return {key for key in lacked if key.namespace == namespace}

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

        Of a Service or Endpoints that is not ours, only a trace is kept and compared; of such a
        slice, nothing, as no slice of ours depends on its name. If only the resource version and
        fields that nobody here reads have changed, it counts as unchanged.
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
