"""Events in, topics out: which endpoints each service has, and which subscriptions to wake."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, KeysView, Sequence
from typing import NamedTuple

from vmsvc_grpc.cache.collection import Collection, ServiceReader
from vmsvc_grpc.cache.membership import CachedService, Membership
from vmsvc_grpc.cache.objects import Objects, OnProblems
from vmsvc_grpc.cache.topic import (
    Absence,
    Absent,
    OnPublished,
    Publication,
    Subscription,
    Topic,
    Topics,
    not_found,
)
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import (
    Answer,
    AnswerGone,
    Apply,
    Delete,
    Event,
    Init,
    InitDone,
    Malformed,
)
from vmsvc_grpc.model.objects import (
    Key,
    Kind,
    Object,
    ObjectMeta,
    StoredService,
    VirtualMachine,
    VirtualMachineService,
)
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.resolve import AddressRules, JudgedAddress, addresses


class CacheCounts(NamedTuple):
    """How much work was done so far, for tests and metrics."""

    events: int
    evaluations: int
    """How many times a VM was matched against a service."""
    publications: int


AT_ONCE_MAX = 100
"""How many services are evaluated, or objects deleted, in one go: some ms for services of 20."""

_EVALUATIONS_MAX = 500
"""How many VMs are matched against services in one go, where services are large."""

_CHANGES_MAX = 10
"""How many VMs are removed one by one from a large service: each copies pointers to the others."""

_LISTED_KINDS = frozenset({Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE})


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
        on_unfinished: Callable[[], None] = lambda: None,
        on_published: OnPublished | None = None,
    ) -> None:
        """An empty cache, synced once each of `kinds` has been listed.

        `namespaces` are those that are listed one by one; none: all at once. `on_unfinished` is
        called when an event has left work for `proceed`, `on_published` after each publication.
        """
        self.rules = rules
        self.collection = Collection()
        self._objects = Objects(kinds, namespaces, on_problems)
        self._membership = Membership(rules)
        published: OnPublished = self.collection.record
        if on_published is not None:
            published = _both(published, on_published)
        self._topics = Topics(self._membership.services, published)
        self._on_unfinished = on_unfinished
        self._awaiting: dict[Callable[[], None], None] = {}
        self._events = 0
        self._synced = self._objects.complete
        # Work that lists have left: objects to delete, and services to evaluate for the first time.
        # `OrderedDict`, as taking the first of a plain dict again and again is quadratic.
        self._missing: dict[Kind, set[Key]] = {}
        self._unevaluated: OrderedDict[Key, None] = OrderedDict()
        # Large services that are evaluated in pieces, a piece of each in turn.
        self._evaluating: OrderedDict[Key, None] = OrderedDict()
        # Services that may need work, as the cache has become synced, and that nobody knows of yet.
        self._unreported: list[Key] = []
        # For readers; only the rooms that own these change them.
        self.vms = self._membership.vms
        self.services = self._membership.services
        self.stored_services = self._objects.services
        self.stored_endpoints = self._objects.endpoints
        self.stored_slices = self._objects.slices
        self.problems = self._objects.problems

    # -- Reading and subscribing --

    @property
    def synced(self) -> bool:
        """Whether every kind has been listed and evaluated once, so that answers are complete."""
        return self._synced

    @property
    def unfinished(self) -> bool:
        """Whether events have left work for `proceed`."""
        if self._missing or self._unevaluated or self._unreported or self._evaluating:
            return True
        # What was left may have been deleted meanwhile.
        return self._objects.complete and not self._synced

    @property
    def unlisted(self) -> frozenset[Kind]:
        """The kinds that have not been listed completely yet."""
        return self._objects.unlisted

    @property
    def counts(self) -> CacheCounts:
        """How much work was done so far."""
        return CacheCounts(self._events, self._membership.evaluations, self._topics.publications)

    @property
    def version(self) -> int:
        """The version of the newest publication."""
        return self._topics.version

    @property
    def followed(self) -> int:
        """How many publications there were that somebody follows."""
        return self._topics.followed

    @property
    def topic_count(self) -> int:
        """How many topics there are: two for each service, and those that somebody waits for."""
        return len(self._topics)

    def keys_with_work(self) -> set[Key]:
        """Names of all services that exist, and of deleted ones that still control objects.

        A new set, in time of its size: others' Services and Endpoints cost nothing.
        """
        return self._objects.controlled_keys().union(self.services)

    def unreadable_vms(self, namespace: str) -> KeysView[Key]:
        """Names of the VMs in a namespace that cannot be read now, though perhaps before.

        A view of them. O(1).
        """
        return self._objects.unreadable(Kind.VIRTUAL_MACHINE, namespace)

    def state(self, service: Key, filter_class: FilterClass) -> Publication:
        """The newest publication of a service; an `Absent` one if it does not exist."""
        return self._topics.get(filter_class, service).current

    def subscribe(
        self, service: Key, filter_class: FilterClass, subscription: Subscription
    ) -> Topic:
        """The topic of a service, which wakes `subscription` from now on.

        The service need not exist; its topic then is absent until it does.
        """
        return self._topics.subscribe(service, filter_class, subscription)

    def unsubscribe(self, topic: Topic, subscription: Subscription) -> None:
        """Do not wake `subscription` any more. It need not have been subscribed."""
        self._topics.unsubscribe(topic, subscription)

    def follow(
        self, namespace: str | None, filter_class: FilterClass | None, wake: Callable[[], None]
    ) -> ServiceReader:
        """A reader of all services of a namespace, or of all (None); `wake` is called for news.

        Without a filter class it hands out only services that come, go or change their ports. Ask
        it once the cache is synced, and close it at the end.
        """
        return self.collection.follow(namespace, filter_class, self._topics, wake)

    def await_synced(self, wake: Callable[[], None]) -> None:
        """Call `wake` once, when the cache becomes synced; never if it is already."""
        if not self.synced:
            self._awaiting[wake] = None

    def forget(self, wake: Callable[[], None]) -> None:
        """Do not call `wake` any more. It need not have been waiting."""
        self._awaiting.pop(wake, None)

    # -- Changing --

    def apply(self, event: Event) -> frozenset[Key]:
        """Take in one event and do all the work that it leaves: `take_in`, then `proceed`.

        At the end of a long list, the caller waits until all of it is done.
        """
        changed = self.take_in(event)
        while self.unfinished:
            changed |= self.proceed()
        return changed

    def take_in(self, event: Event) -> frozenset[Key]:
        """Take in one event; the services whose endpoints changed or whose objects need work.

        When it returns, every topic that shows a change has published it. Only the end of a list,
        and a large service that must be evaluated anew, leave work to `proceed`: what is served of
        that service stays as it was until that is done. Empty until the cache is synced; from then
        on `proceed` returns every service.
        """
        self._events += 1
        changed = self._taken_in(event)
        if self.unfinished:
            self._on_unfinished()
        return changed if self.synced else frozenset()

    def proceed(self) -> frozenset[Key]:
        """Do a slice of the work that events have left; returns services as `take_in` does.

        A slice is of AT_ONCE_MAX objects, fewer if they are large, or a piece of the evaluation of
        a large service.

        Other events may come between two slices: an object that is emitted after the end of a list
        that lacked it stays.
        """
        changed: set[Key] = set()
        before = self._membership.evaluations
        for _ in range(AT_ONCE_MAX):
            if self._missing:
                kind, missing = next(iter(self._missing.items()))
                many = len(missing) > _CHANGES_MAX
                key = missing.pop()
                if not missing:
                    del self._missing[kind]
                if kind is Kind.VIRTUAL_MACHINE and many:
                    self._begin_evaluations(key)
                changed |= self._deleted(kind, key)
            elif self._unevaluated:
                self._evaluate_first(self._unevaluated.popitem(last=False)[0])
            elif self._objects.complete and not self._synced and self._evaluated_all():
                self._become_synced()
            elif self._unreported:
                changed.add(self._unreported.pop())
            else:
                # Last, as there is always more to do of a service whose spec always changes.
                changed |= self._proceed_evaluating()
                break
            if self._membership.evaluations - before > _EVALUATIONS_MAX:
                break
        return frozenset(changed) if self._synced else frozenset()

    def _begin_evaluations(self, vm: Key) -> None:
        """Begin to evaluate the large services of a VM anew, as many of their VMs are to go.

        They take them in together, and publish once.
        """
        for service in self._membership.large_services(vm):
            self._evaluate(service)

    def _evaluated_all(self) -> bool:
        """Whether no service waits for the end of its first evaluation."""
        return all(self.services[key].evaluated for key in self._evaluating)

    def _proceed_evaluating(self) -> frozenset[Key]:
        """Do a piece of the evaluation of a large service; the service, if that was the last."""
        if not self._evaluating:
            return frozenset()
        key = next(iter(self._evaluating))
        service = self.services[key]
        if not self._membership.proceed(service):
            self._evaluating.move_to_end(key)
            return frozenset()
        del self._evaluating[key]
        self._bring_up_to_date(service)  # It may have changed again meanwhile.
        self._publish(service)
        return frozenset((key,))

    def _taken_in(self, event: Event) -> frozenset[Key]:
        match event:
            case Apply(object_):  # Most are.
                if self._objects.emitted(object_):
                    return self._applied(object_)
            case Init(kind, namespace):
                self._objects.list_begins(kind, namespace)
            case InitDone():
                return self._listed(event)
            case Malformed(kind, key):
                self._is_not_missing(kind, key)
                self._objects.emitted_malformed(event)
            case Delete(kind, key, resource_version):
                if self._objects.emitted_deleted(kind, key, resource_version):
                    return self._deleted(kind, key)
            case Answer() | AnswerGone():
                return self._answered(event)
        return frozenset()

    def _answered(self, answer: Answer | AnswerGone) -> frozenset[Key]:
        match answer:
            case Answer(object_):
                if self._objects.answered(object_, self._meta(object_.kind, object_.key)):
                    return self._applied(object_)
            case AnswerGone(kind, key):
                if self._objects.answered_gone(answer, self._meta(kind, key)):
                    return self._deleted(kind, key)
        return frozenset()

    def _meta(self, kind: Kind, key: Key) -> ObjectMeta | None:
        """The metadata of the object that is held, of a kind that may be written."""
        if kind is Kind.VIRTUAL_MACHINE_SERVICE:
            service = self.services.get(key)
            return service.object.meta if service else None
        return self._objects.meta(kind, key)

    def _applied(self, object_: Object) -> frozenset[Key]:
        if self._missing:
            self._is_not_missing(object_.kind, object_.key)
        match object_:
            case VirtualMachine() as vm:
                judged = addresses(vm, self.rules)
                self._note(vm, tuple([a.problem for a in judged if a.problem is not None]))
                return self._vm_changed(self.vms.put(vm), vm, judged)
            case VirtualMachineService() as service:
                self._note(service, service.problems)
                return self._service_changed(service)
        self._note(object_, ())
        changed = self._objects.put(object_)
        if changed and isinstance(object_, StoredService):
            self._families_changed(object_.key)
        return self._with_work(changed)

    def _note(self, object_: Object, problems: tuple[Problem, ...]) -> None:
        self._objects.note(object_.kind, object_.key, problems)

    def _deleted(self, kind: Kind, key: Key) -> frozenset[Key]:
        self._objects.note(kind, key, ())
        match kind:
            case Kind.VIRTUAL_MACHINE:
                vm = self.vms.remove(key)
                return self._vm_changed(vm, None, ()) if vm else frozenset()
            case Kind.VIRTUAL_MACHINE_SERVICE:
                if not self._membership.remove_service(key):
                    return frozenset()
                self._unevaluated.pop(key, None)
                self._evaluating.pop(key, None)
                self.collection.discard(key)
                self._topics.publish_absent(not_found(key))
                return frozenset((key,))
        changed = self._objects.remove(kind, key)
        if changed and kind is Kind.SERVICE:
            self._families_changed(key)
        return self._with_work(changed)

    def _with_work(self, names: frozenset[Key]) -> frozenset[Key]:
        """The names of which a VMService exists, or of which a deleted one still controls a child.

        Other Services and Endpoints, as most are, mean no work.
        """
        return frozenset(
            name for name in names if name in self.services or self._objects.controls(name)
        )

    def _listed(self, done: InitDone) -> frozenset[Key]:
        was_complete = self._objects.complete
        missing = self._objects.list_ends(
            done.kind, done.namespace, done.resource_version, self._names(done.kind)
        )
        if missing:
            self._missing.setdefault(done.kind, set()).update(missing)
        if self._objects.complete and not was_complete:
            # Nothing was evaluated before: which VMs were ready is known from the stored Endpoints,
            # which may be the last to be listed.
            self._unevaluated.update(dict.fromkeys(self.services))
            if not self._missing and not self._unevaluated:
                self._become_synced()
        return frozenset()

    def _is_not_missing(self, kind: Kind, key: Key) -> None:
        missing = self._missing.get(kind)
        if missing is not None:
            missing.discard(key)
            if not missing:
                del self._missing[kind]

    def _names(self, kind: Kind) -> Iterable[Key]:
        match kind:
            case Kind.VIRTUAL_MACHINE:
                return self.vms.keys()
            case Kind.VIRTUAL_MACHINE_SERVICE:
                return self.services
        return self._objects.names(kind)

    def _evaluate_first(self, key: Key) -> None:
        service = self.services[key]
        service.remember(self.stored_endpoints.get(key))
        self._evaluate(service)

    def _become_synced(self) -> None:
        self._synced = True
        awaiting, self._awaiting = self._awaiting, {}
        for wake in awaiting:
            wake()
        self._unreported = list(self.keys_with_work())

    def _vm_changed(
        self,
        old: VirtualMachine | None,
        new: VirtualMachine | None,
        judged: Sequence[JudgedAddress],
    ) -> frozenset[Key]:
        if old == new or not self._objects.complete:
            return frozenset()
        changed = []
        for service, change in self._membership.vm_changed(old, new, judged):
            key = service.object.key
            changed.append(key)
            if service.served is not None:
                self._topics.publish_change(key, service.endpoints, change)
        return frozenset(changed)

    def _service_changed(self, object_: VirtualMachineService) -> frozenset[Key]:
        key = object_.key
        service = self._membership.put_service(object_, self.stored_endpoints.get(key))
        if service is None:
            return frozenset()
        waits = not self._objects.complete or key in self._unevaluated
        if not waits and not self._bring_up_to_date(service):
            self._publish(service)
        return frozenset((key,))

    def _families_changed(self, key: Key) -> None:
        service = self.services.get(key)
        if service is not None and service.evaluated:
            self._bring_up_to_date(service)

    def _bring_up_to_date(self, service: CachedService) -> bool:
        """Serve by the newest spec; whether the service has to be evaluated anew for that.

        During an evaluation nothing is done: this is called again at its end.
        """
        if service.evaluation is not None:
            return False
        stored = self.stored_services.get(service.object.key)
        if self._membership.outdated(service, stored):
            self._evaluate(service)
            return True
        service.serve_newest_spec()
        return False

    def _evaluate(self, service: CachedService) -> None:
        """Evaluate a service anew from its VMs, and publish the result; or begin to."""
        key = service.object.key
        if self._membership.evaluate(service, self.stored_services.get(key)):
            self._evaluating.pop(key, None)
            self._publish(service)
        else:
            self._evaluating[key] = None

    def _publish(self, service: CachedService) -> None:
        """Bring the service's topics to its state; those that show no change stay silent."""
        if not service.evaluated:
            return
        if service.object.meta.deleting:
            self.collection.discard(service.object.key)
        else:
            self.collection.add(service.object.key)
        spec = service.served
        if spec is None:
            self._topics.publish_absent(_absent(service.object))
        else:
            self._topics.publish(service.object.key, spec.ports, service.endpoints)


def _absent(service: VirtualMachineService) -> Absent:
    if service.meta.deleting:
        message = f"VirtualMachineService {service.key} is being deleted"
        return Absent(service.key, Absence.NOT_FOUND, message)
    reasons = "; ".join(map(str, service.problems))
    return Absent(service.key, Absence.REFUSED, reasons)


def _both(one: OnPublished, other: OnPublished) -> OnPublished:
    def published(topic: Topic, /, *, was_there: bool) -> bool | None:
        followed = one(topic, was_there=was_there)
        return other(topic, was_there=was_there) or followed

    return published
