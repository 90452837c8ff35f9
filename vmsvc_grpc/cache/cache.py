"""Events in, topics out: which endpoints each service has, and who must hear of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

from vmsvc_grpc.cache.collection import Collection
from vmsvc_grpc.cache.membership import SelectorIndex, Service, VirtualMachineIndex
from vmsvc_grpc.cache.objects import Freshness, SliceIndex
from vmsvc_grpc.cache.topic import Absence, Absent, Publication, Subscription, Topic
from vmsvc_grpc.model.endpoints import Endpoint, EndpointSet, FilterClass
from vmsvc_grpc.model.events import Answer, Apply, Delete, Event, Init, InitDone, Malformed
from vmsvc_grpc.model.objects import (
    IPFamily,
    Key,
    Kind,
    Object,
    ServiceSpec,
    StoredEndpoints,
    StoredEndpointSlice,
    StoredService,
    VirtualMachine,
    VirtualMachineService,
)
from vmsvc_grpc.model.ownership import service_of_slice
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.resolve import AddressRules, addresses, contribution, families

OnProblems = Callable[[Kind, Key, tuple[Problem, ...]], None]
"""Told what is wrong with an object, each time that changes; empty when nothing is."""


class ScopeWatcher(Protocol):
    """Who watches which services exist. Must only take note, and not call back."""

    def created(self, service: Key) -> None:
        """A service exists, and is not being deleted, that did not or was before."""

    def cache_synced(self) -> None:
        """The cache has become complete: everything may be asked for now."""


@dataclass(slots=True)
class Counts:
    """How much work was done, for tests and metrics. Only rises."""

    events: int = 0
    evaluations: int = 0
    """How often one VM was held against one service."""
    publications: int = 0


_LISTED_KINDS = frozenset({Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE})

_List = tuple[Kind, str | None]
"""What one complete list covers: a kind, in one namespace or in all (None)."""


class Cache:
    """VMs, VMServices and the objects stored for them, and the topics that follow from them.

    Not thread-safe: one event loop owns it. No method waits.
    """

    def __init__(
        self,
        rules: AddressRules,
        *,
        kinds: Iterable[Kind] = _LISTED_KINDS,
        namespaces: Sequence[str] = (),
        on_problems: OnProblems | None = None,
    ) -> None:
        """An empty cache, synced once each of `kinds` has been listed.

        `namespaces` are those that are listed one by one; none: all at once.
        """
        self.rules = rules
        self.counts = Counts()
        self.vms = VirtualMachineIndex()
        self.services: dict[Key, Service] = {}
        self.collection = Collection()
        self.stored_services: dict[Key, StoredService] = {}
        self.stored_endpoints: dict[Key, StoredEndpoints] = {}
        self.stored_slices = SliceIndex()
        self.problems: dict[tuple[Kind, Key], tuple[Problem, ...]] = {}
        self._selectors = SelectorIndex()
        self._topics: dict[tuple[Key, FilterClass], Topic] = {}
        self._scopes: dict[ScopeWatcher, str | None] = {}
        self._unlisted: set[_List] = set(product(kinds, namespaces or (None,)))
        self._listing: dict[_List, set[Key]] = {}
        self._freshness = Freshness(namespaces)
        self._version = 0
        self._on_problems = on_problems

    # -- Reading and subscribing --

    @property
    def synced(self) -> bool:
        """Whether every kind has been listed once, so that answers are complete."""
        return not self._unlisted

    @property
    def unlisted(self) -> frozenset[Kind]:
        """The kinds that have not been listed completely yet."""
        return frozenset(kind for kind, _ in self._unlisted)

    def stored_keys(self) -> set[Key]:
        """Names of the services that objects are stored for, as a set of the caller's own."""
        stored = set(self.stored_services) | set(self.stored_endpoints)
        return stored | self.stored_slices.services()

    def state(self, service: Key, filter_class: FilterClass) -> Publication:
        """The newest publication of a service; an `Absent` one if it does not exist."""
        topic = self._topics.get((service, filter_class))
        return topic.current if topic else self._first(_not_found(service))

    def subscribe(
        self, service: Key, filter_class: FilterClass, subscription: Subscription
    ) -> Topic:
        """The topic of a service, which wakes `subscription` from now on.

        The service need not exist; its topic then is absent until it does.
        """
        topic = self._topics.get((service, filter_class))
        if topic is None:
            topic = Topic(service, filter_class, self._first(_not_found(service)))
            self._topics[service, filter_class] = topic
        topic.subscriptions[subscription] = None
        return topic

    def unsubscribe(self, topic: Topic, subscription: Subscription) -> None:
        """Do not wake `subscription` any more; also if it was not subscribed."""
        topic.subscriptions.pop(subscription, None)
        self._drop_if_idle(topic)

    def watch_scope(self, watcher: ScopeWatcher, namespace: str | None) -> None:
        """Tell `watcher` of services created in a namespace, or in all, and of `synced`.

        A watcher has one scope; `unwatch_scope` ends it.
        """
        self._scopes[watcher] = namespace

    def unwatch_scope(self, watcher: ScopeWatcher) -> None:
        """Tell `watcher` nothing any more; also if it was not told before."""
        self._scopes.pop(watcher, None)

    def idle(self) -> bool:
        """Whether nothing is held for anybody: no object, index entry, topic or watcher."""
        return not (
            self.services
            or self.collection
            or self.stored_services
            or self.stored_endpoints
            or self.problems
            or self._topics
            or self._scopes
            or not self._freshness.idle()
            or not self.stored_slices.empty()
            or not self.vms.empty()
            or not self._selectors.empty()
        )

    @property
    def topic_count(self) -> int:
        """How many topics there are: two a service, and those waited for."""
        return len(self._topics)

    # -- Changing --

    def apply(self, event: Event) -> frozenset[Key]:
        """Take in one event; the services whose endpoints changed or whose objects need work.

        By the time it returns, every topic that shows a change has published it. Empty
        until the cache is synced; the event that makes it so returns every service.
        """
        self.counts.events += 1
        changed = self._taken_in(event)
        return changed if self.synced else frozenset()

    def _taken_in(self, event: Event) -> frozenset[Key]:
        match event:
            case Init(kind, namespace):
                self._listing[kind, namespace] = set()
                self._freshness.listing(kind, namespace)
                return frozenset()
            case InitDone(kind, namespace, resource_version):
                self._freshness.listed(kind, namespace, resource_version)
                return self._listed(kind, namespace)
            case Malformed(kind, key, problem):
                self._seen(kind, key)
                self._note(kind, key, (problem,))
                return frozenset()
            case Delete(kind, key, resource_version):
                if not self._freshness.told(kind, key, resource_version):
                    return frozenset()
                for scope in (None, key.namespace):
                    self._listing.get((kind, scope), set()).discard(key)
                return self._delete(kind, key)
            case Apply(object_):
                return self._told(object_)
            case Answer(object_):
                return self._answered(object_)
        raise AssertionError(f"not an event: {event!r}")

    def _told(self, object_: Object) -> frozenset[Key]:
        self._seen(object_.kind, object_.key)
        if isinstance(object_, VirtualMachine):  # Nobody but the source tells of one.
            return self._applied(object_)
        version = object_.meta.resource_version
        if not self._freshness.told(object_.kind, object_.key, version):
            return frozenset()
        return self._applied(object_)

    def _answered(self, object_: Object) -> frozenset[Key]:
        assert not isinstance(object_, VirtualMachine), "VMs are not written"
        version = object_.meta.resource_version
        if not self._freshness.answered(object_.kind, object_.key, version):
            return frozenset()
        return self._applied(object_)

    def _applied(self, object_: Object) -> frozenset[Key]:
        self._note(object_.kind, object_.key, self._flaws(object_))
        match object_:
            case VirtualMachine() as vm:
                return self._vm_changed(self.vms.put(vm), vm)
            case VirtualMachineService() as service:
                return self._service_changed(service)
            case StoredService() as stored:
                return self._stored_service_changed(stored)
            case StoredEndpoints() as stored:
                if self.stored_endpoints.get(stored.key) == stored:
                    return frozenset()
                self.stored_endpoints[stored.key] = stored
                return frozenset((stored.key,))
            case StoredEndpointSlice() as stored:
                old = self.stored_slices.put(stored)
                if old == stored:
                    return frozenset()
                # Somebody may have given it to another service.
                return frozenset(map(service_of_slice, (stored, old) if old else (stored,)))

    def _flaws(self, object_: Object) -> tuple[Problem, ...]:
        match object_:
            case VirtualMachine() as vm:
                flaws = (a.problem for a in addresses(vm, self.rules))
                return tuple(flaw for flaw in flaws if flaw is not None)
            case VirtualMachineService() as service:
                return service.problems
        return ()

    def _seen(self, kind: Kind, key: Key) -> None:
        for scope in (None, key.namespace):
            if (listing := self._listing.get((kind, scope))) is not None:
                listing.add(key)

    def _note(self, kind: Kind, key: Key, problems: tuple[Problem, ...]) -> None:
        if self.problems.get((kind, key), ()) == problems:
            return
        if problems:
            self.problems[kind, key] = problems
        else:
            del self.problems[kind, key]
        if self._on_problems is not None:
            self._on_problems(kind, key, problems)

    def _held(self, kind: Kind) -> set[Key]:
        malformed = {key for noted, key in self.problems if noted is kind}
        match kind:
            case Kind.VIRTUAL_MACHINE:
                return malformed | self.vms.keys()
            case Kind.VIRTUAL_MACHINE_SERVICE:
                return malformed | set(self.services)
            case Kind.SERVICE:
                return malformed | set(self.stored_services)
            case Kind.ENDPOINTS:
                return malformed | set(self.stored_endpoints)
            case Kind.ENDPOINT_SLICE:
                return malformed | self.stored_slices.keys()

    def _listed(self, kind: Kind, namespace: str | None) -> frozenset[Key]:
        listed = self._listing.pop((kind, namespace), set())
        changed: set[Key] = set()
        for gone in sorted(self._held(kind) - listed):
            listed_there = namespace is None or gone.namespace == namespace
            if listed_there and not self._freshness.overtaken(kind, gone):
                changed |= self._delete(kind, gone)
        if (kind, namespace) in self._unlisted:
            self._unlisted.remove((kind, namespace))
            if self.synced:
                changed |= self._became_synced()
        return frozenset(changed)

    def _became_synced(self) -> set[Key]:
        # Who was ready is known only now, as the stored Endpoints may come last; so
        # nothing has been worked out yet.
        for key, service in self.services.items():
            service.remember(self._stored_ready_uids(key))
            self._reevaluate(service)
        for watcher in list(self._scopes):
            watcher.cache_synced()
        return self.stored_keys() | set(self.services)

    def _stored_ready_uids(self, key: Key) -> frozenset[str]:
        stored = self.stored_endpoints.get(key)
        return stored.ready_uids() if stored else frozenset()

    def _delete(self, kind: Kind, key: Key) -> frozenset[Key]:
        self._note(kind, key, ())
        self._freshness.gone(kind, key)
        match kind:
            case Kind.VIRTUAL_MACHINE:
                vm = self.vms.remove(key)
                return self._vm_changed(vm, None) if vm else frozenset()
            case Kind.VIRTUAL_MACHINE_SERVICE:
                if self.services.pop(key, None) is None:
                    return frozenset()
                self._selectors.remove(key)
                self.collection.discard(key)
                self._publish_absent(_not_found(key))
                return frozenset((key,))
            case Kind.SERVICE:
                if self.stored_services.pop(key, None) is None:
                    return frozenset()
                self._families_changed(key)
                return frozenset((key,))
            case Kind.ENDPOINTS:
                gone = self.stored_endpoints.pop(key, None)
                return frozenset((key,)) if gone else frozenset()
            case Kind.ENDPOINT_SLICE:
                slice_ = self.stored_slices.remove(key)
                return frozenset((service_of_slice(slice_),)) if slice_ else frozenset()

    def _vm_changed(self, old: VirtualMachine | None, new: VirtualMachine | None) -> frozenset[Key]:
        vm = new or old
        assert vm is not None
        if old == new or not self.synced:
            return frozenset()
        affected = dict.fromkeys(self._selectors.selecting(vm.key.namespace, vm.labels))
        if old is not None and old.labels != vm.labels:
            affected |= dict.fromkeys(self._selectors.selecting(vm.key.namespace, old.labels))
        return frozenset(key for key in affected if self._contribute(key, vm.key, new))

    def _contribute(self, key: Key, vm_key: Key, vm: VirtualMachine | None) -> bool:
        """Hold one VM against one service; whether the service's endpoints changed."""
        service = self.services[key]
        before = service.contributions.pop(vm_key, None)
        given = self._evaluated(service, vm) if vm else None
        if given is not None:
            service.contributions[vm_key] = given
        return (given or ()) != (before or ()) and self._reassemble(service)

    def _evaluated(self, service: Service, vm: VirtualMachine) -> tuple[Endpoint, ...] | None:
        assert service.spec is not None, "only a service with a valid spec has a selector"
        self.counts.evaluations += 1
        return contribution(service.spec, service.families, vm, service.remembers, self.rules)

    def _reassemble(self, service: Service) -> bool:
        changed = service.reassemble()
        self._publish(service)
        return changed

    def _reevaluate(self, service: Service) -> bool:
        """Work the service out anew from its VMs; whether its endpoints changed."""
        service.contributions = {}
        if service.spec is not None:
            key = service.object.key
            service.families = self._families(key, service.spec)
            for vm in self.vms.matching(key.namespace, service.spec.selector):
                if (given := self._evaluated(service, vm)) is not None:
                    service.contributions[vm.key] = given
        return self._reassemble(service)

    def _families(self, key: Key, spec: ServiceSpec) -> tuple[IPFamily, ...]:
        stored = self.stored_services.get(key)
        return families(spec, stored.ip_families if stored else (), self.rules.cluster_families)

    def _families_changed(self, key: Key) -> None:
        service = self.services.get(key)
        if service is None or service.spec is None or not self.synced:
            return
        if self._families(key, service.spec) != service.families:
            self._reevaluate(service)

    def _service_changed(self, object_: VirtualMachineService) -> frozenset[Key]:
        key = object_.key
        service = self.services.get(key)
        if service is None or service.object.meta.uid != object_.meta.uid:
            # A new object of an old name owes nothing to the one before it.
            service = Service(object_, remembered=self._stored_ready_uids(key))
            self.services[key] = service
            self._selectors.remove(key)
        elif service.object == object_:
            return frozenset()
        else:
            service.object = object_
        spec_changed = object_.spec is not None and object_.spec != service.spec
        if spec_changed:
            service.spec = object_.spec
            self._selectors.put(key, service.spec.selector if service.spec else {})
        created = self._collect(object_)
        if self.synced:
            if spec_changed:
                self._reevaluate(service)
            else:
                self._publish(service)
            if created:
                self._announce(key)
        return frozenset((key,))

    def _collect(self, service: VirtualMachineService) -> bool:
        """Bring the collection in line with one service; whether that is new to it."""
        if not service.meta.deleting:
            return self.collection.add(service.key)
        self.collection.discard(service.key)
        return False

    def _announce(self, key: Key) -> None:
        for watcher, namespace in list(self._scopes.items()):
            if namespace is None or namespace == key.namespace:
                watcher.created(key)

    def _stored_service_changed(self, stored: StoredService) -> frozenset[Key]:
        if self.stored_services.get(stored.key) == stored:
            return frozenset()
        self.stored_services[stored.key] = stored
        self._families_changed(stored.key)
        return frozenset((stored.key,))

    # -- Publishing --

    def _publish(self, service: Service) -> None:
        """Bring the service's topics to its state; those that show no change stay silent."""
        key, spec = service.object.key, service.served
        if spec is None:
            self._publish_absent(_absent(service.object))
            return
        ready = tuple(e for e in service.endpoints if e.ready)
        self._publish_set(key, FilterClass.ALL, spec, service.endpoints)
        self._publish_set(key, FilterClass.READY_ONLY, spec, ready)

    def _publish_set(
        self,
        key: Key,
        filter_class: FilterClass,
        spec: ServiceSpec,
        endpoints: tuple[Endpoint, ...],
    ) -> None:
        topic = self._topics.get((key, filter_class))
        if topic is not None:
            state = topic.current.state
            if (
                isinstance(state, EndpointSet)
                and state.ports == spec.ports
                and state.endpoints == endpoints
            ):
                return
        version = self._next_version()
        new = EndpointSet(key, version, spec.ports, endpoints)
        self.counts.publications += 1
        if topic is None:
            first = Publication(version, new, None)
            self._topics[key, filter_class] = Topic(key, filter_class, first)
        else:
            topic.publish(version, new)

    def _publish_absent(self, absent: Absent) -> None:
        for filter_class in FilterClass:
            topic = self._topics.get((absent.service, filter_class))
            if topic is None:
                if absent.service in self.services:
                    self._topics[absent.service, filter_class] = Topic(
                        absent.service, filter_class, self._first(absent)
                    )
            else:
                if not _same_absence(topic.current.state, absent):
                    self.counts.publications += 1
                    topic.publish(self._next_version(), absent)
                self._drop_if_idle(topic)

    def _drop_if_idle(self, topic: Topic) -> None:
        if not topic.subscriptions and topic.service not in self.services:
            self._topics.pop((topic.service, topic.filter_class), None)

    def _next_version(self) -> int:
        self._version += 1
        return self._version

    def _first(self, absent: Absent) -> Publication:
        return Publication(self._next_version(), absent, None)


def _not_found(key: Key) -> Absent:
    return Absent(key, Absence.NOT_FOUND, f"there is no VirtualMachineService {key}")


def _same_absence(state: EndpointSet | Absent, absent: Absent) -> bool:
    # First "is being deleted", then "there is none": to a client that is one event.
    if not isinstance(state, Absent) or state.absence is not absent.absence:
        return False
    return absent.absence is Absence.NOT_FOUND or state == absent


def _absent(service: VirtualMachineService) -> Absent:
    if service.meta.deleting:
        message = f"VirtualMachineService {service.key} is being deleted"
        return Absent(service.key, Absence.NOT_FOUND, message)
    reasons = "; ".join(map(str, service.problems))
    return Absent(service.key, Absence.REFUSED, reasons)
