"""Which VM is in which service: by label, by selector, and what each VM contributes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice

from vmsvc_grpc.cache.contributions import Contributions
from vmsvc_grpc.cache.evaluation import MATCHED_MAX, Evaluation
from vmsvc_grpc.model.endpoints import Endpoint, EndpointDiff
from vmsvc_grpc.model.objects import (
    IPFamily,
    Key,
    ServiceSpec,
    StoredEndpoints,
    StoredService,
    VirtualMachine,
    VirtualMachineService,
    says_the_same,
)
from vmsvc_grpc.model.ownership import is_owned
from vmsvc_grpc.model.resolve import AddressRules, JudgedAddress, as_held, contribution, families
from vmsvc_grpc.model.selector import matches

_Label = tuple[str, str]  # namespace, label key
_Pair = tuple[str, str]  # label key, label value


@dataclass(slots=True)
class CachedService(Contributions):
    """What the cache knows of one VMService. Read it; only the cache changes it.

    `spec` is the specification that is served, even while a later one is refused; None if none was
    valid.
    """

    object: VirtualMachineService
    spec: ServiceSpec | None = None
    families: tuple[IPFamily, ...] = ()
    newest_spec: ServiceSpec | None = None
    """The last valid specification, which is served once the service has been evaluated by it."""

    evaluated: bool = False
    """Whether its endpoints have been worked out once. To clients it is not there before."""

    evaluation: Evaluation | None = None
    """How far it has been evaluated anew. What clients are shown stays as it was meanwhile."""

    remembered: frozenset[str] = frozenset()
    """Uids that are ready in the stored Endpoints, while these are not of `endpoints`.

    That is before the service has been evaluated, and while it has no selector.
    """

    _ready_uids: Counter[str] | None = None
    """How many ready endpoints each VM has; kept from the first call of `remembers` on."""

    def remembers(self, uid: str) -> bool:
        """Whether the VM of this uid is among the ready endpoints now."""
        if self._ready_uids is None:
            self._ready_uids = Counter(e.vm_uid for e in self.endpoints if e.ready)
        return uid in self._ready_uids or uid in self.remembered

    def remember(self, stored: StoredEndpoints | None) -> None:
        """Remember which VMs are ready in the stored Endpoints: they were so before we started."""
        self.remembered = stored.ready_uids() if stored else frozenset()

    def give(self, vm: Key, endpoints: tuple[Endpoint, ...] | None) -> EndpointDiff | None:
        """Replace what a VM contributes, None if it is not selected; the difference that makes.

        O(what the VM contributes), and copies the pointers to all endpoints.
        """
        before = self.contributions.get(vm)
        if endpoints == before:
            return None
        self._put(vm, before, endpoints)
        change = self._show(vm, before, endpoints)
        if change is not None and self._ready_uids is not None:
            self._ready_uids.subtract(e.vm_uid for e in change.gone if e.ready)
            self._ready_uids.update(e.vm_uid for e in change.upserted if e.ready)
            for uid in {e.vm_uid for e in change.gone if not self._ready_uids[e.vm_uid]}:
                del self._ready_uids[uid]
        return change

    def take(self, evaluation: Evaluation) -> None:
        """Replace all that it shows by what the evaluation has worked out."""
        self.evaluation = None
        self.evaluated = True
        self.spec, self.families = evaluation.spec, evaluation.families
        if self.spec is not None:
            self.remembered = self._left_in_stored(self.spec)
        self._take_over(evaluation)
        self._ready_uids = None

    def _left_in_stored(self, spec: ServiceSpec) -> frozenset[str]:
        """Who was ready until now, if stored Endpoints stay as they were when `spec` is served."""
        if spec.selector:
            return frozenset()  # `endpoints` remembers.
        return self.remembered.union(e.vm_uid for e in self.endpoints if e.ready)

    def serve_newest_spec(self) -> None:
        """Serve by the newest spec, whose endpoints are the same: only ports may differ."""
        self.spec = self.newest_spec

    def abandon(self) -> None:
        """Stop evaluating it, as it is gone. Leaves no reference cycle."""
        if self.evaluation is not None:
            self.evaluation.abandon()
            self.evaluation = None

    @property
    def selector(self) -> Mapping[str, str]:
        """The selector of its VMs, even if it is refused and has never been valid."""
        return self._selector_of(self.spec)

    @property
    def newest_selector(self) -> Mapping[str, str]:
        """The selector of `newest_spec`; that of the object if none was valid."""
        return self._selector_of(self.newest_spec)

    def _selector_of(self, spec: ServiceSpec | None) -> Mapping[str, str]:
        return self.object.declared_selector if spec is None else spec.selector

    @property
    def served(self) -> ServiceSpec | None:
        """The specification that is served now; None if the service is absent to clients."""
        return self.spec if self.evaluated and not self.object.meta.deleting else None


class Membership:
    """VMs, VMServices, and what each VM contributes to the services that select it.

    Only the cache changes it. Cost of a VM's change: its labels, and the services that match.
    """

    def __init__(self, rules: AddressRules) -> None:
        """There are none yet."""
        self.vms = VirtualMachineIndex()
        self.services: dict[Key, CachedService] = {}
        self.evaluations = 0
        self._rules = rules
        self._selectors = SelectorIndex()

    def vm_changed(
        self,
        old: VirtualMachine | None,
        new: VirtualMachine | None,
        judged: Sequence[JudgedAddress],
    ) -> Iterator[tuple[CachedService, EndpointDiff]]:
        """Replace a VM; the services whose endpoints change by that, and how.

        `judged` are the addresses of the new VM.
        """
        selecting = self._selecting(new)
        left = set() if _same_services(old, new) else {*self._selecting(old)} - {*selecting}
        for key in selecting:
            service = self.services[key]
            assert new is not None, "only what is there is selected"
            self.evaluations += 1
            if service.evaluation is not None:
                service.evaluation.vm_changed(old, new, judged)
                continue
            given = contribution(new, judged, service.families, service.remembers)
            if (change := service.give(new.key, given)) is not None:
                yield service, change
        for key in left:
            service = self.services[key]
            assert old is not None, "only what was there was selected"
            if service.evaluation is not None:
                service.evaluation.vm_left(old.key)
            elif (change := service.give(old.key, None)) is not None:
                yield service, change

    def _selecting(self, vm: VirtualMachine | None) -> list[Key]:
        """The services that select a VM."""
        if vm is None or vm.deleting:
            return []
        return self._selectors.selecting(vm.key.namespace, vm.labels)

    def large_services(self, vm: Key) -> list[CachedService]:
        """The services that select a VM and are evaluated in pieces, but are not just now."""
        selecting = map(self.services.__getitem__, self._selecting(self.vms.get(vm)))
        return [
            service
            for service in selecting
            if service.evaluation is None and len(service.members) > MATCHED_MAX
        ]

    def put_service(
        self, object_: VirtualMachineService, stored: StoredEndpoints | None
    ) -> CachedService | None:
        """Add or replace a VMService; what is known of it, None if nothing changed.

        Its endpoints stay as they are: `outdated` says whether they are to be evaluated anew.
        `stored` are its Endpoints, for one that was not known before.
        """
        key = object_.key
        service = self.services.get(key)
        if service is None or service.object.meta.uid != object_.meta.uid:
            # A new object keeps nothing of an earlier one of its name.
            self.remove_service(key)
            service = CachedService(object_)
            service.remember(stored)
            self.services[key] = service
        else:
            before, service.object = service.object, object_
            if says_the_same(before, object_):
                return None
        service.newest_spec = object_.spec or service.newest_spec
        return service

    def remove_service(self, key: Key) -> bool:
        """Remove a VMService; whether there was one."""
        self._selectors.remove(key)
        service = self.services.pop(key, None)
        if service is not None:
            service.abandon()
        return service is not None

    def outdated(self, service: CachedService, stored: StoredService | None) -> bool:
        """Whether the newest spec contributes other endpoints; `stored` is its Service.

        O(1): selector and address families are compared. Not to be asked during an evaluation,
        which is for the spec that was the newest when it began.
        """
        assert service.evaluation is None, "it is asked at the end"
        spec = service.newest_spec
        return (
            not service.evaluated
            or (spec is None) is not (service.spec is None)
            or service.newest_selector != self._selectors.of(service.object.key)
            or self._families(spec, stored) != service.families
        )

    def _families(
        self, spec: ServiceSpec | None, stored: StoredService | None
    ) -> tuple[IPFamily, ...]:
        """The address families of a service; none without a valid spec."""
        if spec is None:
            return ()
        given: Sequence[str] = stored.ip_families if stored else ()
        if stored is not None and not given and is_owned(stored.meta):
            # No API server completes it.
            spec = as_held(spec, stored.cluster_ip, stored.ip_family_policy)
        return families(spec, given, self._rules.cluster_families)

    def evaluate(self, service: CachedService, stored: StoredService | None) -> bool:
        """Evaluate the service anew from its VMs; whether that is done. `stored` is its Service.

        O(VMs with the rarest pair of its selector). If these are many, it only begins, and
        `proceed` does the rest.
        """
        key, spec, selector = service.object.key, service.newest_spec, service.newest_selector
        if selector != self._selectors.of(key):
            self._selectors.put(key, selector)
        evaluation = Evaluation(
            spec,
            selector,
            self._families(spec, stored),
            self.vms,
            self.vms.candidates(key.namespace, selector),
            before=service.contributions,
            remembers=service.remembers,
            rules=self._rules,
        )
        service.evaluation = evaluation
        return not evaluation.large and self.proceed(service)

    def proceed(self, service: CachedService) -> bool:
        """Do a piece of the evaluation of a service; whether it is done."""
        evaluation = service.evaluation
        assert evaluation is not None, "it is being evaluated"
        matched = evaluation.matched
        done = evaluation.proceed()
        self.evaluations += evaluation.matched - matched
        if done:
            service.take(evaluation)
        return done


def _same_services(old: VirtualMachine | None, new: VirtualMachine | None) -> bool:
    """Whether a change of a VM cannot change which services select it."""
    if old is None or new is None:
        return False
    return old.deleting == new.deleting and old.labels == new.labels


_NONE: Mapping[str, Mapping[Key, None]] = {}

# How many of a selector's keys are searched for VMs that nearly match. No real one has as many.
_NEAR_KEYS_MAX = 1_000

# How many names are looked at to find VMs that are nearly selected: some 4 ms.
_NEAR_NAMES_MAX = 15_000


class VirtualMachineIndex:
    """VMs by name, and by each of their labels, its key and its value, within a namespace."""

    def __init__(self) -> None:
        """An empty index."""
        self._by_namespace: dict[str, dict[Key, VirtualMachine]] = {}
        # Names, not VMs: a VM that changes but keeps its labels need not be filed again.
        self._by_label: dict[_Label, dict[str, dict[Key, None]]] = {}
        # How many VMs of a namespace have exactly these labels, whatever their values.
        self._key_sets: dict[str, dict[frozenset[str], int]] = {}

    def __len__(self) -> int:
        """How many VMs there are."""
        return sum(map(len, self._by_namespace.values()))

    def get(self, key: Key) -> VirtualMachine | None:
        """The VM of that name, or None. O(1)."""
        return self._by_namespace.get(key.namespace, {}).get(key)

    def keys(self) -> set[Key]:
        """The names of all VMs, as a new set. O(VMs), but some 0.1 µs for each."""
        return set[Key]().union(*self._by_namespace.values())

    def put(self, vm: VirtualMachine) -> VirtualMachine | None:
        """Add or replace a VM; the one that it replaces, if any. O(labels)."""
        old = self.get(vm.key)
        if old is None or old.labels != vm.labels:
            self.remove(vm.key)
            for key, value in vm.labels.items():
                by_value = self._by_label.setdefault((vm.key.namespace, key), {})
                by_value.setdefault(value, {})[vm.key] = None
            self._count_keys(vm, 1)
        self._by_namespace.setdefault(vm.key.namespace, {})[vm.key] = vm
        return old

    def remove(self, key: Key) -> VirtualMachine | None:
        """Take a VM out; None if there was none. O(labels). Leaves no empty entry behind."""
        vms = self._by_namespace.get(key.namespace)
        vm = vms.pop(key, None) if vms else None
        if vm is None:
            return None
        if not vms:
            del self._by_namespace[key.namespace]
        for label, value in vm.labels.items():
            by_value = self._by_label[key.namespace, label]
            del by_value[value][key]
            if not by_value[value]:
                del by_value[value]
            if not by_value:
                del self._by_label[key.namespace, label]
        self._count_keys(vm, -1)
        return vm

    def _count_keys(self, vm: VirtualMachine, times: int) -> None:
        counted = self._key_sets.setdefault(vm.key.namespace, {})
        keys = frozenset(vm.labels)
        counted[keys] = counted.get(keys, 0) + times
        if not counted[keys]:
            del counted[keys]
            if not counted:
                del self._key_sets[vm.key.namespace]

    def candidates(self, namespace: str, selector: Mapping[str, str]) -> list[Key]:
        """Names of all VMs of the namespace that a selector may match: those with its rarest pair.

        A new list, in time of its size, but little for each.
        """
        buckets = [
            self._by_label.get((namespace, key), {}).get(value, {})
            for key, value in selector.items()
        ]
        return list(min(buckets, key=len, default=()))

    def nearly_matching(
        self,
        namespace: str,
        selector: Mapping[str, str],
        members: Container[Key],
        looks_max: int,
    ) -> Iterator[VirtualMachine]:
        """VMs of the namespace that have a key of the selector, but are not members.

        Each once, including those that are being deleted; at most `looks_max`. They come in turn
        from each pair of the selector and from each of its keys with other values; those that
        were labelled last come first. Members, and VMs that came already, are skipped; how many
        names are looked at is bounded, too: some ms of work.
        """
        vms = self._by_namespace.get(namespace, {})
        seen: set[Key] = set()
        for name in islice(_in_turn(self._near_names(namespace, selector)), _NEAR_NAMES_MAX):
            if name in seen or name in members:
                continue
            if len(seen) == looks_max:
                return
            seen.add(name)
            yield vms[name]

    def _near_names(self, namespace: str, selector: Mapping[str, str]) -> Iterator[Iterator[Key]]:
        """Names of VMs that have a pair of the selector, then of those that have a key of it."""
        found = [
            (by_value, value)
            for key, value in islice(selector.items(), _NEAR_KEYS_MAX)
            if (by_value := self._by_label.get((namespace, key))) is not None
        ]
        yield from (reversed(names[value]) for names, value in found if value in names)
        yield from (_of_other_values(by_value, value) for by_value, value in found)

    def having_any(
        self, namespace: str, keys: AbstractSet[str], looks_max: int
    ) -> tuple[int, bool]:
        """How many VMs of the namespace have at least one of these labels; whether that is all.

        O(different sets of label keys), which are few in a namespace. At most `looks_max` labels
        are looked at.
        """
        count = looks = 0
        for labels, vms in self._key_sets.get(namespace, {}).items():
            looks += min(len(labels), len(keys))
            if looks > looks_max:
                return count, False
            if not keys.isdisjoint(labels):
                count += vms
        return count, True

    def matching_elsewhere(
        self, namespace: str, selector: Mapping[str, str], looks_max: int
    ) -> Iterator[VirtualMachine]:
        """VMs of other namespaces that a selector matches, as many as are soon found.

        At most `looks_max` namespaces, and VMs, are looked at: 2,000 take some milliseconds.
        """
        pairs = list(selector.items())
        looks = 0
        for other in islice(self._by_namespace if pairs else (), looks_max):
            if other == namespace or not all(
                value in self._by_label.get((other, key), _NONE) for key, value in pairs
            ):
                continue
            smallest = min((self._by_label[other, key][value] for key, value in pairs), key=len)
            vms = self._by_namespace[other]
            for name in islice(smallest, looks_max - looks):
                looks += 1
                if matches(selector, vms[name].labels):
                    yield vms[name]


def _in_turn(names: Iterable[Iterator[Key]]) -> Iterator[Key]:
    """The first of each, then the second of each, and so on until all are exhausted."""
    turns = deque(names)
    while turns:
        name = next(turns[0], None)
        if name is None:
            turns.popleft()
        else:
            turns.rotate(-1)
            yield name


def _of_other_values(by_value: dict[str, dict[Key, None]], value: str) -> Iterator[Key]:
    """Names of VMs that have a label with another value than this one, the last first."""
    return (
        name for other in reversed(by_value) if other != value for name in reversed(by_value[other])
    )


class SelectorIndex:
    """Services by one pair of their selector, so that a VM finds them by its own labels."""

    def __init__(self) -> None:
        """An empty index."""
        self._selectors: dict[Key, Mapping[str, str]] = {}
        self._filed_under: dict[Key, _Pair] = {}
        # Services of a namespace by one pair of their selector, each with its whole selector.
        self._by_pair: dict[str, dict[_Pair, dict[Key, Mapping[str, str]]]] = {}

    def put(self, service: Key, selector: Mapping[str, str]) -> None:
        """File a service under one pair of its selector: the one with the fewest other services.

        A service with an empty selector is not filed: it selects no VM.
        """
        self.remove(service)
        if not selector:
            return
        by_pair = self._by_pair.setdefault(service.namespace, {})
        pair = min(selector.items(), key=lambda pair: len(by_pair.get(pair, ())))
        self._selectors[service] = selector
        self._filed_under[service] = pair
        by_pair.setdefault(pair, {})[service] = selector

    def of(self, service: Key) -> Mapping[str, str]:
        """The selector that a service is filed by; empty if it is not."""
        return self._selectors.get(service, {})

    def remove(self, service: Key) -> None:
        """Take a service out, if it is there. Leaves no empty entry behind."""
        pair = self._filed_under.pop(service, None)
        if pair is None:
            return
        del self._selectors[service]
        by_pair = self._by_pair[service.namespace]
        del by_pair[pair][service]
        if not by_pair[pair]:
            del by_pair[pair]
            if not by_pair:
                del self._by_pair[service.namespace]

    def selecting(self, namespace: str, labels: Mapping[str, str]) -> list[Key]:
        """Services whose selector matches `labels`, each once.

        O(labels + services under their pairs).
        """
        by_pair = self._by_pair.get(namespace)
        if by_pair is None:
            return []
        return [
            service
            for pair in labels.items()
            if (services := by_pair.get(pair)) is not None
            for service, selector in services.items()
            if matches(selector, labels)
        ]
